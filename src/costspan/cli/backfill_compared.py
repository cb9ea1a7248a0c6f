"""The books beside what another system's rows say, once all of them are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from costspan.core.backfill.claim import Told
from costspan.core.backfill.compare import Comparison
from costspan.core.backfill.waiting import Waiting
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.policy import Policies


def compare_all(
    ledger_url: str,
    source: str,
    waiting: Waiting,
    compared: Comparison,
    tell: Callable[[int], None],
) -> None:
    """Compare the rows with their events.

    Args:
        ledger_url: Where the books are.
        source: What the names of all rows begin with.
        waiting: The rows.
        compared: Where the sums go.
        tell: Is told how many rows are done.
    """
    if not waiting.rows:
        return
    done = 0
    ledger = open_url(ledger_url, create=False)
    try:
        for chunk in waiting:
            with ledger.snapshot():
                _compare(ledger, source, chunk, compared)
            done += len(chunk)
            tell(done)
    finally:
        ledger.close()


def _compare(ledger: Ledger, source: str, chunk: Sequence[Told], compared: Comparison) -> None:
    events = {each.event.id: each for each in ledger.events({told.event_id for told in chunk})}
    policies = Policies(ledger.reading())
    for told in chunk:
        found = events.get(told.event_id)
        if found is None or told.oid not in found.event.oid_names:
            found = _met(ledger, told.oid)
        prices = None if found is None else policies.at(found.event).prices
        rows = 0 if found is None else _rows_of(found, f"{source}/")
        compared.add(told, found, prices, rows)


def _met(ledger: Ledger, oid: str) -> Settled | None:
    """The event that a row became evidence of; where it is on several, the one that is ok."""
    names = ledger.named(oid)
    found = sorted(
        ledger.events(names) if names else (),
        key=lambda each: (each.event.outcome != "ok", each.event.id),
    )
    return found[0] if found else None


def _rows_of(found: Settled, prefix: str) -> int:
    return sum(name.startswith(prefix) for name in found.event.oid_names)
