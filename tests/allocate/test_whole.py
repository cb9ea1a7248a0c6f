"""Whole invoices: brought in where nobody recorded a call, and taken out once that is not so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import pytest
from allocating import MONTH, NOW, allocated, rows, usd
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import call, close_month, keep, shelf

from costspan.core.allocate import (
    AllocationError,
    AllocationRule,
    allocate_in,
    load_rule,
    measured_for,
)
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.journal.records import FreeLine
from costspan.core.prices import PriceBook, PriceRow
from costspan.core.read.books import Books
from costspan.core.reconcile import adjustments, reconcile
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settle import settle


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Acme has 3 USD of its own, globex 1; the platform nothing."""
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, flat_cost="2"), call(3, tenant="globex"))
        yield ledger


def invoice_of(amount: int, provider: str = "acme-gpu", account: str = "org-9", **said: Any) -> Any:
    fields: dict[str, Any] = {
        "id": f"{amount:064x}", "source": "csv", "provider": provider, "account": account,
        "period": MONTH, "version": 1, "imported_at": NOW, "by": "ann", "currency": "USD",
        "is_provisional": False,
    }  # fmt: skip
    invoice = Invoice(**{**fields, **said})
    line = InvoiceLine(
        invoice=invoice.id, number=0, provider=provider, account=account, project=None, day="",
        model=None, component="", tier=None, category="usage", requests=None, quantity=None,
        unit=None, amount=amount, currency=invoice.currency, description="all of it",
        is_provisional=invoice.is_provisional,
    )  # fmt: skip
    return invoice, [line], f"raw {amount}".encode()


WHOLE = '[[invoice]]\nsource = "csv"\naccount = "org-9"\n'


def test_a_whole_untagged_invoice_by_activity(ledger: Ledger) -> None:
    ledger.invoices.keep(*invoice_of(usd("8")))
    found = allocated(ledger, WHOLE)
    assert rows(ledger)["@platform", "adjustment", "invoice"] == (usd("8"), 0)
    assert rows(ledger)["@platform", "allocated", "invoice"] == (usd("-8"), 0)
    assert rows(ledger)["acme", "allocated", "invoice"] == (usd("6"), 0)
    assert [(each.amount, each.missing) for each in found.invoices] == [(usd("8"), usd("8"))]
    assert allocated(ledger, WHOLE).posted == 0
    ledger.invoices.keep(*invoice_of(usd("9")))  # the next version of it
    allocated(ledger, WHOLE)
    assert rows(ledger)["acme", "allocated", "invoice"] == (usd("6.75"), 0)
    assert rows(ledger)["@platform", "adjustment", "invoice"] == (usd("9"), 0)
    assert Books(ledger).is_balanced()


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (None, "no invoice of csv org-9"),
        (invoice_of(1, currency="EUR"), "is in EUR"),
        (invoice_of(1, is_provisional=True), "is provisional"),
        (invoice_of(1, provider="openai"), "1 events of 2026-11 are of the account"),
    ],
)
def test_an_invoice_that_cannot_be_brought_in(ledger: Ledger, kept: Any, said: str) -> None:
    keep(ledger, call(8, provider="openai", provider_account="org-9"))
    if kept:
        ledger.invoices.keep(*kept)
    before = rows(ledger)
    with pytest.raises(AllocationError, match=said):
        allocated(ledger, WHOLE)
    assert rows(ledger) == before


def test_an_invoice_that_was_reconciled_is_not_brought_in_again(ledger: Ledger) -> None:
    invoice, lines, raw = invoice_of(usd("8"))
    ledger.invoices.keep(invoice, lines, raw)
    line = FreeLine("@platform", "adjustment", "invoice", "", "", usd("1"), 0)
    record = free_postings(
        kind="invoice_adjust", period=MONTH, lines=[line], about={"invoice": invoice.id},
        by="bob", reason="variance", recorded_at=1,
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        settle(settlement, [], [record])
    with pytest.raises(AllocationError, match="reconciled already"):
        allocated(ledger, WHOLE)


@pytest.mark.parametrize(
    ("provider", "events", "is_refused"),
    [
        ("openai", {"provider": "OpenAI"}, True),
        ("bedrock", {"provider": "aws_bedrock"}, True),
        ("azure", {"provider": "az.ai.openai"}, True),
        ("openai", {"provider": "az.ai.openai"}, False),
        ("openai", {"provider": None, "usage": {"input": 1}, "flat_cost": None}, True),
        # Its price says whose it is.
        ("anthropic", {"provider": None, "usage": {"input": 1}, "flat_cost": None}, False),
        ("anthropic", {"provider": None, "executed_model": None}, True),  # nobody knows whose it is
    ],
)
def test_events_are_of_a_provider_whatever_they_call_it(
    provider: str, events: dict[str, Any], is_refused: bool
) -> None:
    row = PriceRow(book="list", model="m", provider="openai", rates={"input": "1"})
    book = PriceBook(id="list", rows=(row,))
    with closing(shelf()) as ledger:
        with ledger.settling(1) as settlement:
            settlement.keep_price_book(book)
            (policy,) = settlement.policies()
            policy = msgspec.structs.replace(policy, books=(book.sha256,), effective_from=1)
            settle(settlement, [], [policy])
        keep(ledger, call(8, **{"executed_model": "m", **events}))
        ledger.invoices.keep(*invoice_of(usd("8"), provider=provider, account=""))
        before = rows(ledger)
        rule = '[[invoice]]\nsource = "csv"'
        if is_refused:
            with pytest.raises(AllocationError, match="1 events of 2026-11 are of the account of"):
                allocated(ledger, rule)
            assert rows(ledger) == before
        else:
            assert allocated(ledger, rule).invoices[0].missing == usd("8")


@pytest.mark.parametrize(
    ("rule", "project", "account", "is_refused"),
    [
        (WHOLE, None, "org-9", True),
        (WHOLE, "proj-1", "proj-1", True),  # a line of the invoice names it
        (WHOLE + 'known_as = ["prod"]', None, "prod", True),
        (WHOLE, None, "prod", False),
        (WHOLE, None, None, False),
    ],
)
def test_events_are_of_an_account_under_any_of_its_names(
    ledger: Ledger, rule: str, project: str | None, account: str | None, is_refused: bool
) -> None:
    keep(ledger, call(8, provider="acme-gpu", provider_account=account))
    invoice, (line,), raw = invoice_of(usd("8"))
    ledger.invoices.keep(invoice, [msgspec.structs.replace(line, project=project)], raw)
    if is_refused:
        with pytest.raises(AllocationError, match="1 events of 2026-11 are of the account"):
            allocated(ledger, rule)
    else:
        (found,) = allocated(ledger, rule).invoices
        assert found.missing == usd("8")
        # Three calls say neither provider nor account; this one says no account, or another's.
        assert found.note.startswith("3 events of" if account else "4 events of")


def test_what_no_provider_bills_is_no_event_of_an_account(ledger: Ledger) -> None:
    said = {"provider": "acme-gpu", "provider_account": "org-9"}
    keep(ledger, call(8, provider_billed=False, **said), call(9, cache="exact", **said))
    ledger.invoices.keep(*invoice_of(usd("8")))
    assert allocated(ledger, WHOLE).invoices[0].missing == usd("8")


@pytest.mark.parametrize("rule", [load_rule(WHOLE).undone(), AllocationRule()])
@pytest.mark.parametrize("closes", [False, True])
def test_it_is_taken_out_by_a_rule_that_does_not_name_it(
    ledger: Ledger, rule: AllocationRule, closes: bool
) -> None:
    before = rows(ledger)
    ledger.invoices.keep(*invoice_of(usd("8")))
    allocated(ledger, WHOLE)
    assert rows(ledger) != before
    if closes:
        close_month(ledger, MONTH)
    found = allocated(ledger, rule, now_ns=NOW + 1)
    assert [(each.amount, each.missing) for each in found.invoices] == [(0, usd("-8"))]
    assert "does not name it" in found.invoices[0].note
    assert rows(ledger) == before
    again = allocated(ledger, rule, now_ns=NOW + 2)
    assert (again.posted, again.invoices) == (0, ())
    assert allocated(ledger, WHOLE, now_ns=NOW + 3).posted == 4  # and in again
    assert rows(ledger)["@platform", "adjustment", "invoice"] == (usd("8"), 0)
    assert Books(ledger).is_balanced()


def test_it_is_taken_out_when_events_of_its_account_have_come(ledger: Ledger) -> None:
    """Then reconciliation has it: what is billed is in the books once."""
    ledger.invoices.keep(*invoice_of(usd("8")))
    allocated(ledger, WHOLE)
    assert reconcile(ledger, MONTH).documents == []
    keep(ledger, call(8, flat_cost="5", provider="acme-gpu", provider_account="org-9"))
    found = allocated(ledger, WHOLE, now_ns=NOW + 1)
    assert [(each.amount, each.missing) for each in found.invoices] == [(0, usd("-8"))]
    assert found.invoices[0].note.startswith("1 events of 2026-11 are of its account now")
    assert ("@platform", "adjustment", "invoice") not in rows(ledger)
    assert {row for row in rows(ledger) if row[1] == "allocated"} == set()
    again = allocated(ledger, WHOLE, now_ns=NOW + 2)
    assert (again.posted, again.invoices[0].missing) == (0, 0)
    compared = reconcile(ledger, MONTH)
    assert [(each.ledger.money, each.invoice.money) for each in compared.totals] == [
        (usd("5"), usd("8"))
    ]
    records = adjustments(ledger, compared, by="ann", reason="variance", at=NOW)
    with ledger.settling(1) as settlement:
        settle(settlement, [], records)
    assert sum(cost for cost, _ in rows(ledger).values()) == usd("12")  # 4 of others, and 8
    assert allocated(ledger, WHOLE, now_ns=NOW + 3).posted == 0
    assert Books(ledger).is_balanced()


def test_an_invoice_that_a_later_document_emptied_comes_to_nothing(ledger: Ledger) -> None:
    before = rows(ledger)
    ledger.invoices.keep(*invoice_of(usd("8")))
    allocated(ledger, WHOLE)
    ledger.invoices.keep(invoice_of(0, currency="")[0], [], b"emptied")
    assert allocated(ledger, WHOLE).invoices[0].missing == usd("-8")
    assert rows(ledger) == before


def test_a_rule_that_names_it_twice_is_refused(ledger: Ledger) -> None:
    ledger.invoices.keep(*invoice_of(usd("8")))
    before = rows(ledger)
    with pytest.raises(AllocationError, match="csv org-9 twice"):
        allocated(ledger, WHOLE + WHOLE)
    assert rows(ledger) == before


def test_one_too_large_for_one_posting(ledger: Ledger) -> None:
    before = rows(ledger)
    amount = 3 * (2**63 - 1)
    invoice, (line,), raw = invoice_of(2**63 - 1)
    lines = [msgspec.structs.replace(line, number=number) for number in range(3)]
    ledger.invoices.keep(invoice, lines, raw)
    allocated(ledger, WHOLE)
    assert rows(ledger)["@platform", "adjustment", "invoice"] == (amount, 0)
    assert Books(ledger).is_balanced()
    allocated(ledger, AllocationRule(), now_ns=NOW + 1)
    assert rows(ledger) == before


def test_posting_tells_how_far_it_is(ledger: Ledger) -> None:
    ledger.invoices.keep(*invoice_of(usd("8")))
    rule, told = load_rule(WHOLE), list[int]()
    known = measured_for(ledger, MONTH, rule)
    with ledger.settling(1) as settlement:
        found = allocate_in(
            ledger, settlement, MONTH, rule, known,
            by="ann", reason="end", now_ns=NOW, tell=told.append,
        )  # fmt: skip
    assert told == [3, 4]  # the shares and what balances them, then the invoice
    assert found.posted == 4


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from(["org-1", "org-2"])), st.sampled_from(["cost", "none"])),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.sampled_from(["org-1", "org-2"]), max_size=2),
)
def test_whatever_rules_follow_one_another_the_last_one_stands(
    steps: list[tuple[set[str], str]], calls: list[str]
) -> None:
    """What stands of an invoice is all of it or nothing, and never beside events of its account."""
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, tenant="globex", flat_cost="0.3"))
        own = rows(ledger)
        for number, account in enumerate(("org-1", "org-2")):
            ledger.invoices.keep(*invoice_of(usd("7") + number, account=account))
        for number, (accounts, how) in enumerate(steps):
            every = 'method = "none"' if how == "none" else f'by = "{how}"'
            named = [f'[[invoice]]\nsource = "csv"\naccount = "{each}"\n' for each in accounts]
            allocated(ledger, "".join(named) + f"[every]\n{every}", now_ns=NOW + number)
        wanted = sum(usd("7") + (each == "org-2") for each in steps[-1][0])
        assert rows(ledger).get(("@platform", "adjustment", "invoice"), (0, 0)) == (wanted, 0)
        for number, account in enumerate(calls, 10):
            keep(ledger, call(number, tenant="x", provider="acme-gpu", provider_account=account))
        was_in = steps[-1][0] | {each for accounts, _ in steps for each in accounts}
        both = {"org-1", "org-2"} & was_in  # others were never in: they would be refused
        rule = "".join(f'[[invoice]]\nsource = "csv"\naccount = "{each}"\n' for each in both)
        allocated(ledger, rule, now_ns=NOW + 100)
        wanted = sum(usd("7") + (each == "org-2") for each in both - set(calls))
        assert rows(ledger).get(("@platform", "adjustment", "invoice"), (0, 0)) == (wanted, 0)
        allocated(ledger, AllocationRule().undone(), now_ns=NOW + 101)
        left = {row: amounts for row, amounts in rows(ledger).items() if row[0] != "x"}
        assert left == own
        assert Books(ledger).is_balanced()
