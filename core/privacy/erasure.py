"""Erasing a person: who is behind a pseudonym is deleted; what the pseudonym did stays.

No posting, line, decision or sealed root holds a person, so none of them changes. The pseudonym is
random: once its row is gone nothing tells whose it was. Who comes back gets another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from costspan.core.clean import observation
from costspan.core.journal import spool
from costspan.core.journal.records import Erasure
from costspan.core.privacy.persons import is_pseudonym
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settle import settle

_LEASE_SECONDS = 30
_CHUNK_BYTES = 1 << 20


class ErasureError(ValueError):
    """A person that cannot be erased as it was asked for; the text says why."""


class Erased(NamedTuple):
    """What an erasure did.

    `record` is kept in the journal; `was_known`: somebody was behind the pseudonym until now;
    `is_compact`: the deleted bytes are gone from the file (else somebody else was reading it).
    `mentions` counts the observations and events that hold the erased id in other fields (labels,
    sessions, names): costspan does not know them to be a person.
    """

    record: Erasure
    was_known: bool
    is_compact: bool
    mentions: int


def erase(
    ledger: Ledger,
    *,
    user: str | None = None,
    pseudonym: str | None = None,
    by: str,
    reason: str,
    now_ns: int,
    patience_seconds: int = 5,
) -> Erased:
    """Erase a person, named by exactly one of `user` and `pseudonym`.

    Done again it deletes nothing more, and keeps no second record. `patience_seconds` is how long
    it waits for others who read the file before it says that the bytes are not gone.

    Raises:
        ErasureError: if nobody has this name, or `by` or `reason` would keep the id for ever.
        LedgerBusy: if another settler holds the lease.
    """
    persons = ledger.persons
    if user is not None:
        found = [each for form in _forms_of(user) if (each := persons.pseudonym_of(form))]
        for other in found[1:]:
            erase(
                ledger, pseudonym=other, by=by, reason=reason, now_ns=now_ns,
                patience_seconds=patience_seconds,
            )  # fmt: skip
        pseudonym = found[0] if found else None
        if pseudonym is None:
            raise ErasureError(
                "nobody in the ledger has this id: erased already, never seen, or still in a spool"
                " (costspan drain first)"
            )
    if pseudonym is None or not is_pseudonym(pseudonym):
        raise ErasureError("a pseudonym is p: and 24 hex digits, as costspan explain shows it")
    name = user or persons.names([pseudonym]).get(pseudonym)
    if name is not None and re.search(rf"(?<!\w){re.escape(name)}(?!\w)", f"{by} {reason}"):
        raise ErasureError(
            "who asked and why are kept for ever: write them without the id that is to be erased"
        )
    known = next(_records_of(ledger, pseudonym), None)
    if name is None and known is None:
        raise ErasureError(f"nobody in the ledger is {pseudonym}")
    record = known or Erasure(pseudonym, by, reason, now_ns)
    with ledger.settling(_LEASE_SECONDS) as settlement:
        was_known = ledger.persons.forget(pseudonym)
        if known is None:
            settle(settlement, [], [record])
    is_compact = ledger.compact(patience_seconds)
    return Erased(record, was_known, is_compact, persons.mentions(name) if name else 0)


def _forms_of(user: str) -> list[str]:
    """The id, and what is kept in its place where it is not kept as it is: see `core.clean`."""
    kept = observation({"user": user}).user
    return list(dict.fromkeys(form for form in (user, kept) if form))


def _records_of(ledger: Ledger, pseudonym: str) -> Iterator[Erasure]:
    for each in ledger.controls():
        if isinstance(each, Erasure) and each.pseudonym == pseudonym:
            yield each


def files_with(folder: Path, text: str) -> list[Path]:
    """The files of a spool, those in quarantine included, that hold this text."""
    wanted = text.encode("utf-8", "replace")
    files = [*folder.glob("*"), *spool.quarantined(folder)]
    return sorted({path for path in files if path.is_file() and _holds(path, wanted)})


def _holds(path: Path, wanted: bytes) -> bool:
    try:
        with path.open("rb") as file:
            tail = b""
            while chunk := file.read(_CHUNK_BYTES):
                if wanted in tail + chunk:
                    return True
                tail = chunk[-len(wanted) :]
    except FileNotFoundError:  # drained meanwhile
        return False
    return False
