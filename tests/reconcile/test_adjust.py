"""After an adjustment the books of the period are what is billed, to the pico, and stay so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from month import PERIOD, USD, Said, at, bill, call, call_lines, keep, line, month, requests

from costspan.core.invoices.invoice import InvoiceLine
from costspan.core.journal.records import FreeLine
from costspan.core.read.books import Books
from costspan.core.reconcile import Authority, Grain, adjustments, reconcile
from costspan.core.reconcile.authority import parse
from costspan.core.reconcile.compare import TOGETHER
from costspan.core.settle.close import close_period
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger

CALL = 3500 * 10**6
EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "60"))
PLATFORM = parse('[authority]\nadjust = "platform"')
CHARGED = parse("[authority]\ncharge_adjustments = true")


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    ledger = month(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


def adjust(ledger: Ledger, rule: Authority | None = None, now: int = 1) -> int:
    """Adjust; how many lines were posted."""
    found = reconcile(ledger, PERIOD, rule)
    records = adjustments(ledger, found, by="ann", reason="invoice", at=now)
    keep(ledger, *records)
    return sum(len(record.lines) for record in records)


def cost(ledger: Ledger, **selected: Any) -> int:
    return sum(each.cost for each in ledger.roll_ups(**selected))


def adjusted(ledger: Ledger) -> dict[str, tuple[int, int]]:
    said: dict[str, tuple[int, int]] = {}
    for each in ledger.roll_ups(PERIOD):
        if each.line.bucket == "adjustment":
            was = said.get(each.line.owner, (0, 0))
            said[each.line.owner] = (was[0] + each.cost, was[1] + each.charge)
    return {owner: amounts for owner, amounts in said.items() if any(amounts)}


def test_pro_rata_over_the_tenants_of_each_grain(books: Ledger) -> None:
    keep(books, call(1), call(2), call(3, tenant="globex"), call(4, "2026-03-06", tenant="globex"))
    bill(books, [*call_lines(calls=3), line(amount=10, quantity=0), *call_lines("2026-03-06")])
    adjust(books)
    assert adjusted(books) == {"acme": (7, 0), "globex": (3, 0)}
    assert cost(books, period=PERIOD) == 4 * CALL + 10
    assert Books(books).is_balanced()


def test_the_platform_bears_it_where_the_rule_says_so_or_no_tenant_is_there(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [*call_lines(), line(amount=10, quantity=0), line(model="o3", amount=5)])
    adjust(books, PLATFORM)
    assert adjusted(books) == {"@platform": (15, 0)}
    adjust(books)  # another rule: only what it says otherwise
    assert adjusted(books) == {"@platform": (5, 0), "acme": (10, 0)}


def test_tenants_are_charged_only_where_the_rule_says_so(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [*call_lines(), line(amount=10, quantity=0), line(model="o3", amount=5)])
    adjust(books, CHARGED)
    assert adjusted(books) == {"acme": (10, 10), "@platform": (5, 0)}


def test_a_second_run_posts_nothing_and_a_new_version_only_the_difference(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, call_lines(calls=2))
    assert adjust(books) == 1
    assert adjust(books, now=2) == 0
    bill(books, [*call_lines(calls=2), line(amount=-7, quantity=0)])
    assert adjust(books, now=3) == 1
    assert cost(books, period=PERIOD) == 2 * CALL - 7
    bill(books, [*call_lines(), line(amount=0, quantity=0)])
    adjust(books, now=4)
    assert cost(books, period=PERIOD) == CALL
    assert adjusted(books) == {}


def test_late_telemetry_makes_the_adjustment_smaller(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, call_lines(calls=2))
    adjust(books)
    keep(books, call(2, tenant="globex"))
    adjust(books, now=2)
    assert adjusted(books) == {}
    assert cost(books, period=PERIOD) == 2 * CALL


def test_a_closed_month_is_adjusted_in_the_open_one(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, call_lines(calls=2))
    close_period(books, PERIOD, "ann", "month's end", at("2026-04-01"))
    before = cost(books, posted_period=PERIOD)
    adjust(books)
    assert cost(books, posted_period=PERIOD) == before
    assert cost(books, posted_period="2026-04") == CALL
    assert cost(books, period=PERIOD) == 2 * CALL
    assert adjust(books, now=2) == 0


def test_where_the_ledger_counts_nothing_is_adjusted_and_what_was_is_taken_back(
    books: Ledger,
) -> None:
    keep(books, call(1))
    bill(books, call_lines(calls=2))
    adjust(books)
    adjust(books, parse('[authority]\ntotals = "ledger"'), now=2)
    assert cost(books, period=PERIOD) == CALL


def test_taxes_and_credits_are_never_posted(books: Ledger) -> None:
    keep(books, call(1))
    bill(
        books, [*call_lines(), line(category="tax", amount=USD), line(category="credit", amount=-1)]
    )
    assert adjust(books) == 0


def test_another_currency_is_never_posted(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, call_lines(calls=2), currency="EUR")
    assert adjust(books) == 0


def test_an_invoice_that_an_allocation_brought_in_whole_is_left_alone(books: Ledger) -> None:
    bill(books, call_lines(calls=2), account="org")
    whole = free_postings(
        kind="invoice_adjust",
        period=PERIOD,
        lines=[FreeLine("@platform", "adjustment", "invoice", "", "", 2 * CALL, 0)],
        about={"invoice": "x", "source": "csv", "account": "org", "whole": "yes"},
        by="ann",
        reason="untagged",
        recorded_at=1,
    )
    keep(books, whole)
    found = reconcile(books, PERIOD)
    assert (found.documents, len(found.whole), found.variances) == ([], 1, [])
    assert adjust(books) == 0


calls = st.lists(
    st.tuples(
        st.sampled_from(["2026-03-04", "2026-03-05", "2026-03-06"]),
        st.sampled_from(["acme", "globex", "initech"]),
        st.sampled_from(["gpt-4o", "mini", "o9"]),
        st.tuples(st.integers(0, 5000), st.integers(1, 900)),
        st.sampled_from([None, "batch"]),
        st.sampled_from(["provider", "estimated", "missing", "start"]),
    ),
    max_size=12,
)
lines = st.lists(
    st.fixed_dictionaries(
        {
            "day": st.sampled_from(["2026-03-04", "2026-03-05", "2026-03-07"]),
            "model": st.sampled_from(["gpt-4o-2024-08-06", "mini", "o3", None]),
            "component": st.sampled_from(["input", "output", "cache_read", "web_searches", ""]),
            "quantity": st.none() | st.integers(0, 9000),
            "amount": st.integers(-(10**6), 10**11),
            "tier": st.sampled_from([None, "batch"]),
            "category": st.sampled_from(["usage", "usage", "usage", "tax", "credit"]),
            "is_provisional": st.booleans(),
        }
    ),
    max_size=12,
)
counts = st.none() | st.dictionaries(
    st.sampled_from(["2026-03-04", "2026-03-05"]), st.integers(0, 9), min_size=1
)


@settings(max_examples=EXAMPLES)
@given(calls, lines, lines, counts)
def test_causes_add_up_and_books_become_what_is_billed(
    recorded: list[Any], first: list[Said], second: list[Said], counted: dict[str, int] | None
) -> None:
    with closing(month(Path(":memory:"))) as ledger:
        for number, (day, tenant, model, tokens, tier, source) in enumerate(recorded):
            facts: dict[str, Any] = {"tenant": tenant, "executed_model": model, "tier": tier}
            if source == "start":
                facts |= {"phase": "start", "usage": None, "provider_result": None}
            elif source == "missing":
                facts |= {"usage": None, "usage_source": source, "provider_result": "unknown"}
            else:
                facts |= {"usage_source": source}
            keep(ledger, call(number, day, tokens, **facts))
        if counted is not None:
            bill(ledger, requests(counted), source="csv-usage", currency="")
        billed = 0
        for now, version in enumerate((first, second), 1):
            invoice = bill(ledger, [*version, line(model="o3", amount=now)])
            billed = _usage(ledger, invoice.id)
            found = reconcile(ledger, PERIOD)
            for each in found.variances:
                assert each.explained + each.unexplained == each.difference
            keep(ledger, *adjustments(ledger, found, by="ann", reason="r", at=now))
            assert cost(ledger, period=PERIOD) == billed
            found = reconcile(ledger, PERIOD)
            assert adjustments(ledger, found, by="ann", reason="r", at=9) == []
        assert Books(ledger).is_balanced()


def _usage(ledger: Ledger, invoice: str) -> int:
    found: list[InvoiceLine] = list(ledger.invoices.lines(invoice))
    return sum(each.amount for each in found if each.category == "usage")


def test_a_difference_of_more_than_a_posting_holds_is_posted_in_parts(books: Ledger) -> None:
    """An int64 of pico-USD ends at 9.2 million USD; a small line stands beside it."""
    most = 2**63 - 1
    keep(books, call(1), call(2, "2026-03-06", tenant="globex"))
    bill(books, [line(amount=2 * most + 5), *call_lines("2026-03-06", calls=2)])
    adjust(books, CHARGED)
    assert cost(books, period=PERIOD) == 2 * most + 5 + 2 * CALL
    assert adjusted(books)["acme"] == (2 * most + 5 - CALL,) * 2
    assert adjusted(books)["globex"] == (CALL, CALL)
    assert len(list(books.free_postings())) == 2
    assert adjust(books, CHARGED, now=2) == 0
    assert Books(books).is_balanced()


def test_what_is_disputed_is_left_out_and_what_was_posted_of_it_taken_back(books: Ledger) -> None:
    keep(books, call(1), call(2, "2026-03-06"))
    bill(books, [*call_lines(calls=2), *call_lines("2026-03-06", calls=3)])
    found = reconcile(books, PERIOD)
    (day,) = {each.grain for each in found.variances if each.grain.day == "2026-03-06"}
    adjust(books)
    assert cost(books, period=PERIOD) == 5 * CALL
    hand: dict[str, Any] = {"by": "ann", "reason": "disputed", "at": 2, "disputed": {day}}
    keep(books, *adjustments(books, reconcile(books, PERIOD), **hand))
    assert cost(books, period=PERIOD) == 3 * CALL
    assert adjustments(books, reconcile(books, PERIOD), **{**hand, "at": 3}) == []
    together = Grain(day.provider, day.account, "", "", TOGETHER)
    hand["disputed"] = {together}
    keep(books, *adjustments(books, reconcile(books, PERIOD), **hand))
    assert cost(books, period=PERIOD) == 2 * CALL
