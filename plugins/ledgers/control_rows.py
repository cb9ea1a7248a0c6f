"""A control record as what is kept of it in rows, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from costspan.core import clean
from costspan.core.journal.process import process_of
from costspan.core.journal.records import (
    Assignment,
    Close,
    Counts,
    Erasure,
    FreePostings,
    Opened,
    Policy,
    Pruned,
    Refusals,
    Restatement,
    SessionOwner,
)
from costspan.plugins.ledgers.queries import Row

Kept = Policy | SessionOwner | Assignment | Restatement | FreePostings | Erasure | Pruned | Close
"""The control records that are kept one by one."""
encode_control = msgspec.msgpack.Encoder().encode
"""The bytes of a control record's row."""
decode_control = msgspec.msgpack.Decoder(Kept).decode
"""A control record from the bytes of its row."""
Counted = Opened | Refusals | Counts
"""The control records of which a writer has many: what they come to is in the table `counted`."""


def counted_rows(record: Counted) -> Iterator[tuple[str, str, int]]:
    """(kind, name, times) of its writer: what it counted, and which process it says to be.

    A process is the kind `Opened`: the name is its host's ("" if unknown), the times are its pid (0
    if unknown). One whose writer is no id of ours is left out: the row might not fit an index.
    """
    if not isinstance(record, Opened):
        for name, times in record.counts.items():
            yield type(record).__name__, name, times
    if not isinstance(record, Refusals):
        host, pid = process_of(record)
        if (host or pid) and clean.identifier(record.writer) == record.writer:
            yield "Opened", host or "", pid or 0


def counted_records(rows: Iterable[Row]) -> Iterator[Counted]:
    """The records behind rows of (writer, kind, name, times), those of a writer side by side."""
    counted: dict[tuple[str, str], dict[str, int]] = {}
    for writer, kind, name, times in rows:
        if kind == "Opened":
            yield Opened(writer, times, 0, name or None)
        else:
            counted.setdefault((kind, writer), {})[name] = times
    for (kind, writer), counts in counted.items():
        if kind == "Counts":
            yield Counts(writer, counts, 0)
        elif kind == "Refusals":
            yield Refusals(writer, counts, 0)
