"""What other prices would make of events: each event with its own policy's books behind them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from shelf import at, call, keep, shelf

from costspan.core.journal.records import Policy
from costspan.core.prices import PriceBook
from costspan.core.read.what_if import what_if
from costspan.core.settle import settle

MANY = 300
HOUR_NS = 3600 * 10**9
FIRST = at("2026-11-01")


@pytest.fixture
def thrifty() -> Iterator[None]:
    """What nobody holds is freed soon, so that its place in memory is another's."""
    before = gc.get_threshold()
    gc.set_threshold(100, 1, 1)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thrifty")
def test_of_many_policies_each_event_keeps_its_own_books() -> None:
    """More of them than a process keeps loaded: what was let go must not answer for another."""
    with closing(shelf()) as ledger:
        with ledger.settling(1) as settlement:
            (first,) = settlement.policies()
            policies: list[Policy] = []
            for hour in range(1, MANY + 1):
                book = PriceBook.from_table("list", {"gpt-4o": {"input": str(hour)}})
                settlement.keep_price_book(book)
                policies.append(Policy(first.rules, (book.sha256,), FIRST + hour * HOUR_NS, "test"))
            settle(settlement, [], policies)
        usage: dict[str, Any] = {"flat_cost": None, "usage": {"input": 1_000_000}}
        keep(
            ledger,
            *(
                call(hour, started_at=FIRST + hour * HOUR_NS, **usage)
                for hour in range(1, MANY + 1)
            ),
        )
        ids = [each.event.id for each in ledger.events()]
        other = PriceBook.from_table("tried", {"another-model": {"input": "1"}})
        found = what_if(ledger, "November", ids, None, other)
        assert (found.events, found.changed) == (MANY, ())
        assert found.cost[0] == found.cost[1] == f"{sum(range(1, MANY + 1))}.000000000000"
