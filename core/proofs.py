"""Proof that one line was sealed: the entry, its audit path, and the checkpoint it leads to.

Whoever checks one needs no ledger: the proof, and a checkpoint that they trust, because it is
signed by a key they know or because they were given it when the period was closed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from costspan.core.checkpoints import Key, Verdict, hash_of, verdict_on
from costspan.core.journal.records import Close
from costspan.core.settle.entries import Entry
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.merkle import Tree, canonical_posting, is_included

_OWNERS_SHOWN = 10
FORM = "costspan inclusion proof 1"
_encode = msgspec.json.Encoder().encode


class ProofError(ValueError):
    """A line that cannot be proved, or what is no proof; the text says why."""


class Proof(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That an entry is leaf `index` (from 0) of what a checkpoint sealed.

    `path` is the audit path of RFC 6962, section 2.1.1, in hex; the leaf is the JSON array of the
    entry's fields in their order, and the checkpoint says how many leaves there are.
    """

    form: str
    entry: Entry
    index: int
    path: tuple[str, ...]
    checkpoint: Close

    @property
    def is_included(self) -> bool:
        """Whether the path leads from the entry to the checkpoint's root."""
        leaf = _encode(msgspec.structs.astuple(self.entry))
        close = self.checkpoint
        return is_included(leaf, self.index, close.postings, self.path, close.root)


class Proved(msgspec.Struct, frozen=True, kw_only=True):
    """What a proof comes to.

    `is_trusted`: the checkpoint is the one that the reader holds; None without one to compare.
    `must_be_signed`: the reader gave keys, so that a signature of none of them is not good enough.
    """

    is_included: bool
    signature: Verdict
    is_trusted: bool | None
    must_be_signed: bool

    @property
    def is_vouched_for(self) -> bool:
        """Whether the reader's copy or one of their keys speaks for the checkpoint."""
        return self.is_trusted is True or self.signature == "good"

    @property
    def is_good(self) -> bool:
        """Whether nothing speaks against the proof, and of what the reader gave something for it.

        Without keys and without a checkpoint to compare it only agrees with itself.
        """
        if not self.is_included or self.is_trusted is False or self.signature == "bad":
            return False
        return self.is_vouched_for or not self.must_be_signed


def prove(ledger: Ledger, name: str, tenant: str | None = None) -> list[Proof]:
    """A proof for each sealed entry of this number, or of the events of this name.

    Those of one tenant, where it is named. The sealed postings are read twice: to find the entries,
    and to build their paths.

    Raises:
        ProofError: if there is none, if they are of several owners and none was named, or if the
            seal of one is broken.
    """
    with ledger.snapshot():
        closes = ledger.closes()
        if not closes:
            raise ProofError("no period is closed: nothing is sealed yet")
        found = _places(ledger, closes, name)
        if not found:
            raise ProofError(
                f"{name}: no sealed posting has this number, and no event of this name has one;"
                f" what was posted after {closes[-1].period} is sealed by the next close"
            )
        proofs = _proofs(ledger, closes, found)
    owners = sorted({proof.entry.owner for proof in proofs})
    if tenant is None and len(owners) > 1:
        raise ProofError(
            f"{name}: {len(owners)} owners bear it, and a proof shows whose it is: choose one with"
            f" --tenant ({', '.join(owners[:_OWNERS_SHOWN])})"
        )
    chosen = [proof for proof in proofs if tenant in (None, proof.entry.owner)]
    if not chosen:
        raise ProofError(f"{name}: nothing that was sealed of it is {tenant}'s")
    return chosen


def _places(ledger: Ledger, closes: Sequence[Close], name: str) -> list[tuple[int, int]]:
    """(which close, which leaf of it) of the entries that a name means."""
    number = int(name) if name.isascii() and name.isdecimal() and len(name) < 19 else None
    events = {name, *ledger.find_events(name)}
    periods = [close.period for close in closes]
    sizes = [0] * len(closes)
    found: list[tuple[int, int]] = []
    for at, posting in ledger.sealed(periods[-1]):
        close = bisect_left(periods, posting.posted_period)
        if at == number or posting.event_id in events:
            found.append((close, sizes[close]))
        sizes[close] += 1
    return found


def _proofs(
    ledger: Ledger, closes: Sequence[Close], places: Sequence[tuple[int, int]]
) -> list[Proof]:
    trees = [Tree(index) for _, index in places]
    entries: list[Entry | None] = [None] * len(places)
    periods = [close.period for close in closes]
    of_close: dict[int, list[int]] = {}
    for which, (of, _) in enumerate(places):
        of_close.setdefault(of, []).append(which)
    for at, posting in ledger.sealed(periods[-1]):
        asked = of_close.get(bisect_left(periods, posting.posted_period))
        if asked is None:
            continue
        leaf = canonical_posting(at, posting)
        for which in asked:
            if trees[which].size == places[which][1]:
                entries[which] = Entry.of(at, posting)
            trees[which].add(leaf)
    proofs: list[Proof] = []
    for tree, entry, (at, index) in zip(trees, entries, places, strict=True):
        close = closes[at]
        if entry is None or (tree.root(), tree.size) != (close.root, close.postings):
            raise ProofError(
                f"the seal of {close.period} is broken, so no line of it can be proved:"
                " costspan verify says what is wrong"
            )
        path = tuple(tree.path())
        proofs.append(Proof(form=FORM, entry=entry, index=index, path=path, checkpoint=close))
    return proofs


def read_proofs(data: bytes) -> list[Proof]:
    """The proofs in a file that `costspan verify --prove` wrote.

    Raises:
        ProofError: if it is none.
    """
    try:
        proofs = msgspec.json.decode(data, type=list[Proof])
    except msgspec.MsgspecError as error:
        raise ProofError(f"this is no proof: {error}") from error
    if not proofs or any(proof.form != FORM for proof in proofs):
        raise ProofError(f"this is no proof of the form {FORM!r}")
    return proofs


def check(proof: Proof, keys: Sequence[Key] = (), trusted: Close | None = None) -> Proved:
    """What a proof comes to, without any ledger.

    Args:
        proof: As it was given.
        keys: Those that the reader believes. With any, a checkpoint that none of them signed proves
            nothing, unless it is the trusted one.
        trusted: The checkpoint as the reader got it at another time, or from somebody else.
    """
    return Proved(
        is_included=proof.is_included,
        signature=verdict_on(proof.checkpoint, keys),
        is_trusted=None if trusted is None else hash_of(trusted) == hash_of(proof.checkpoint),
        must_be_signed=bool(keys),
    )
