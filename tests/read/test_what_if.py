"""What other prices would make of events: each event with its own policy's books behind them."""

from __future__ import annotations

from contextlib import closing

from shelf import at, call, keep, shelf

from costspan.core.journal.records import Policy
from costspan.core.prices import PriceBook
from costspan.core.read.what_if import what_if
from costspan.core.settle import settle

DAYS = 28


def test_of_many_policies_each_event_keeps_its_own_books() -> None:
    """More of them than a process keeps loaded: what was let go must not answer for another."""
    with closing(shelf()) as ledger:
        with ledger.settling(1) as settlement:
            (first,) = settlement.policies()
            policies: list[Policy] = []
            for day in range(1, DAYS + 1):
                book = PriceBook.from_table("list", {"gpt-4o": {"input": str(day)}})
                settlement.keep_price_book(book)
                start = at(f"2026-11-{day:02}")
                policies.append(Policy(first.rules, (book.sha256,), start, "test"))
            settle(settlement, [], policies)
        usage = {"flat_cost": None, "usage": {"input": 1_000_000}}
        keep(ledger, *(call(day, f"2026-11-{day:02}", **usage) for day in range(1, DAYS + 1)))
        ids = [each.event.id for each in ledger.events()]
        other = PriceBook.from_table("tried", {"another-model": {"input": "1"}})
        found = what_if(ledger, "November", ids, None, other)
        assert (found.events, found.changed) == (DAYS, ())
        assert found.cost[0] == found.cost[1] == f"{sum(range(1, DAYS + 1))}.000000000000"
