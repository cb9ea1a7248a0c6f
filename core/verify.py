"""Proving that books are what was sealed, and that they follow from what was recorded.

Everything is worked out again: roots from the sealed postings, the chain of checkpoints, sums from
postings, events from their observations, decisions from facts and hashes, postings from decisions.
What is found names its place. Memory is flat in the number of events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from costspan.core.checkpoints import (
    Key,
    Verdict,
    broken_links,
    hash_of,
    unvouched,
    verdict_on,
)
from costspan.core.journal.records import Close
from costspan.core.ledger_errors import LedgerUnread
from costspan.core.settle.close import sealed_trees
from costspan.core.settle.entries import Line, Posted, Posting, RollUp
from costspan.core.settle.free import target_of_free
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.recheck import events_wrong

EVENTS_PER_BATCH = 1000

Tell = Callable[[str, int], None]
"""Called with what is being looked at, and how many of it are done."""


_UNVOUCHED = (
    "anybody who can write the ledger can have made it. Give the key of that time, or a copy of"
    " this checkpoint or of a later one that was kept elsewhere"
)
_DOUBTFUL: dict[Verdict, str] = {
    "unsigned": f"it is not signed, and keys were given: {_UNVOUCHED}",
    "unknown key": f"none of the keys that were given signed it: {_UNVOUCHED}",
}


class Problem(msgspec.Struct, frozen=True):
    """What is wrong: which check found it, and a text that names table, row, event or period."""

    check: str
    what: str


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A close as it was found.

    `is_sealed`: the postings are those it sealed; `is_linked`: it names the checkpoint before it;
    `signature` is what its signature is worth.
    """

    close: Close
    is_sealed: bool
    is_linked: bool
    signature: Verdict


def verify(
    ledger: Ledger,
    keys: Sequence[Key] = (),
    *,
    period: str | None = None,
    trusted: Close | None = None,
    tell: Tell = lambda what, done: None,
) -> Iterator[Problem | Checkpoint]:
    """Everything that is wrong, and every checkpoint as it was found.

    Args:
        ledger: The books.
        keys: What signatures are checked with; with any, each checkpoint must be vouched for (see
            `costspan.core.checkpoints.unvouched`).
        period: Look at nothing but the seal of this period (YYYY-MM) and the chain up to it.
        trusted: A checkpoint that was kept elsewhere: it must be among those here.
        tell: Called now and then with what is done.

    Raises:
        LedgerUnread: if the way to the books was lost on the way, or they may not be read.
    """
    with ledger.snapshot():
        if period is None:
            yield from _isolated("rows", lambda: _rows(ledger, tell))
        yield from _isolated(
            "checkpoints", lambda: checkpoints(ledger, keys, period, trusted, tell)
        )
        if period is None:
            yield from _isolated("roll-ups", lambda: _roll_ups(ledger))
            yield from _isolated("free postings", lambda: _free(ledger))
            yield from _isolated("events", lambda: _events(ledger, tell))


def _isolated(
    check: str, run: Callable[[], Iterator[Problem | Checkpoint]]
) -> Iterator[Problem | Checkpoint]:
    """A check that damage stops says so, and stops no other."""
    try:
        yield from run()
    except LedgerUnread:
        raise
    except Exception as error:
        yield Problem(check, f"cannot be checked to the end: {type(error).__name__}: {error}")


def _rows(ledger: Ledger, tell: Tell) -> Iterator[Problem]:
    tell("rows", 0)
    for what in ledger.damaged():
        yield Problem("rows", what)


def checkpoints(
    ledger: Ledger,
    keys: Sequence[Key],
    period: str | None = None,
    trusted: Close | None = None,
    tell: Tell = lambda _, __: None,
) -> Iterator[Problem | Checkpoint]:
    """Every checkpoint, or that of one period: its seal, its place in the chain, its signature."""
    closes = ledger.closes()
    if trusted is not None and hash_of(trusted) not in map(hash_of, closes):
        text = f"checkpoint {trusted.period}: the one that was kept elsewhere is not here"
        yield Problem("checkpoints", f"{text}: the books were closed again, or cut off")
    broken = broken_links(closes)
    for close in broken:
        text = "it does not name the checkpoint before it, which is another one or is gone"
        yield Problem("checkpoints", f"checkpoint {close.period}: {text}")
    asked = [each for each in closes if period is None or each.period == period]
    if period is not None and not asked:
        yield Problem("checkpoints", f"checkpoint {period}: there is none, {period} is not closed")
        return
    doubtful = unvouched(closes, keys, trusted)
    first = closes.index(asked[0]) if asked else 0
    after = closes[first - 1].period if first else None
    trees = sealed_trees(
        ledger, asked, after=after, tell=lambda done: tell("sealed postings", done)
    )
    for close, tree in zip(asked, trees, strict=True):
        is_sealed = (tree.root(), tree.size) == (close.root, close.postings)
        if not is_sealed:
            yield Problem(
                "checkpoints",
                f"checkpoint {close.period}: the {tree.size} postings of the period are not the"
                f" {close.postings} it sealed: their root is {tree.root()}, not {close.root}",
            )
        verdict = verdict_on(close, keys)
        if verdict == "bad":
            text = f"the {close.algorithm} signature was not made by key {close.key_id}"
            yield Problem("checkpoints", f"checkpoint {close.period}: {text}")
        elif close in doubtful:
            yield Problem("checkpoints", f"checkpoint {close.period}: {_DOUBTFUL[verdict]}")
        yield Checkpoint(
            close=close, is_sealed=is_sealed, is_linked=close not in broken, signature=verdict
        )


def _roll_ups(ledger: Ledger) -> Iterator[Problem]:
    """Two streams in the order of lines: what the roll-up says, and what the postings add up to."""
    kept, summed = ledger.roll_ups(), ledger.added_up()
    says, has = next(kept, None), next(summed, None)
    while says is not None or has is not None:
        order = _order(says, has)
        if order == 0 and says != has:
            yield Problem("roll-ups", f"{_line(says)}: says {_sums(says)}, postings {_sums(has)}")
        elif order < 0:
            yield Problem("roll-ups", f"{_line(says)}: says {_sums(says)}, postings say nothing")
        elif order > 0:
            yield Problem("roll-ups", f"{_line(has)}: says nothing, postings say {_sums(has)}")
        says = next(kept, None) if order <= 0 else says
        has = next(summed, None) if order >= 0 else has


def _order(one: RollUp | None, other: RollUp | None) -> int:
    if one is None or other is None:
        return 1 if one is None else -1
    first, second = _place(one), _place(other)
    return (first > second) - (first < second)


def _place(rolled: RollUp) -> tuple[str, ...]:
    line = rolled.line
    return (
        line.owner, line.bucket, line.pool or "", line.effective_period, line.day, line.model,
        rolled.posted_period,
    )  # fmt: skip


def _line(rolled: RollUp | None) -> str:
    return "" if rolled is None else "line " + " ".join(part for part in _place(rolled) if part)


def _sums(rolled: RollUp | None) -> str:
    if rolled is None:
        return ""
    return f"{rolled.cost} / {rolled.charge} pico-USD, {rolled.events} events"


def _free(ledger: Ledger) -> Iterator[Problem]:
    """What was posted of no event is what its record says."""
    for record in ledger.free_postings():
        if not _are(ledger.postings(record.id), target_of_free(record), events=0):
            yield Problem("free postings", f"{record.id}: posted is not what its record says")


def _events(ledger: Ledger, tell: Tell) -> Iterator[Problem]:
    """Every event from its observations, its decision from the facts, its postings from that."""
    events, done = ledger.events(), 0
    while batch := list(islice(events, EVENTS_PER_BATCH)):
        done += len(batch)
        # A settlement of its own for each: what one has read it keeps.
        for event_id, what in events_wrong(ledger.reading(), batch):
            yield Problem("events", f"event {event_id}: {what}")
        for each in batch:
            if not _are(ledger.postings(each.event.id), each.posted, events=1):
                yield Problem(
                    "events", f"event {each.event.id}: its postings are not what stands for it"
                )
        tell("events", done)


def _are(postings: Sequence[Posting], posted: Posted, events: int) -> bool:
    """Whether postings sum up to what stands, `events` of them on each line; the rest to nothing.

    A line on which an event stands is there even at zero, and no other is.
    """
    sums: dict[Line, list[int]] = {}
    for each in postings:
        total = sums.setdefault(each.line, [0, 0, 0])
        total[0] += each.amount.cost
        total[1] += each.amount.charge
        total[2] += each.events
    expected = {line: [amount.cost, amount.charge, events] for line, amount in posted}
    return {line: total for line, total in sums.items() if any(total)} == expected
