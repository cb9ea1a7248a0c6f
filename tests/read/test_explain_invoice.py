"""Telemetry beside the invoice: of an event what is billed, of a line what was seen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from io import StringIO
from typing import Any

import pytest
from shelf import call, keep, shelf

from costspan.cli.explain import print_explanation
from costspan.cli.printing import Page
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.read.books import Books, NotFound
from costspan.core.settle.ledger import Ledger

DAY = "2026-11-05"


def bill(ledger: Ledger, *lines: dict[str, Any], raw: bytes = b"{}", **facts: Any) -> Invoice:
    """Keep an invoice of OpenAI's for November."""
    id = hashlib.sha256(raw).hexdigest()
    said = {
        "source": "openai", "provider": "openai", "account": "", "period": "2026-11", "version": 1,
        "imported_at": 0, "by": "ann", "currency": "USD", "is_provisional": False,
    }  # fmt: skip
    blank: dict[str, Any] = {
        "project": None, "day": DAY, "model": "gpt-4o-2024-08-06", "component": "input",
        "tier": None, "category": "usage", "requests": None, "quantity": None, "unit": "tokens",
        "amount": 0, "currency": "USD", "description": "gpt-4o, input", "is_provisional": False,
    }  # fmt: skip
    invoice = Invoice(id=id, **{**said, **facts})
    kept = [
        InvoiceLine(
            invoice=id, number=n, provider=invoice.provider, account="", **{**blank, **line}
        )
        for n, line in enumerate(lines)
    ]
    with ledger.settling(1):
        pass
    return ledger.invoices.keep(invoice, kept, raw)


def used(number: int, tokens: int, **facts: Any) -> Any:
    usage = {"input": tokens}
    return call(number, DAY, flat_cost=None, usage=usage, provider="openai", **facts)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(shelf()) as ledger:
        keep(
            ledger,
            used(1, 1000),
            used(2, 3000, tenant="globex"),
            call(3, DAY, usage={"input": 9000}, executed_model="gpt-4o-mini", provider="openai"),
            call(4, "2026-11-06", flat_cost=None, usage={"input": 7}, provider="openai"),
            call(5, "2026-11-04", flat_cost=None, usage={"input": 7}, provider="openai"),
            call(6, DAY, usage={"input": 9}, provider="azure"),
            call(7, DAY, usage={"input": 9}, provider="openai", tier="batch"),
        )
        yield ledger


def page_of(ledger: Ledger, name: str) -> str:
    stream = StringIO()
    print_explanation(Page(stream), Books(ledger).explain(name))
    return stream.getvalue()


def test_an_event_is_put_beside_its_line(ledger: Ledger) -> None:
    """Money and quantity may be told on two lines; the price they imply is compared with ours."""
    bill(
        ledger,
        {"amount": 15 * 10**9},
        {"quantity": 5000, "currency": "", "amount": 0},
        {"model": "gpt-4o-mini", "amount": 10**9, "quantity": 9000},
        {"day": "2026-11-06", "amount": 10**9, "quantity": 7},
        {"category": "tax", "component": "", "model": None, "amount": 10**9},
    )
    (node,) = Books(ledger).explain("a000001").roots
    told = {(one.amount, one.quantity): one for one in node.billed}
    assert sum(one.numbers != () for one in node.billed) == len(node.billed)
    numbers = sorted(number for one in node.billed for number in one.numbers)
    assert numbers == [0, 1]
    (both,) = told.values()
    assert both.implied == "3.00"
    assert both.rate == "2.5"
    assert both.part == "20.00 %"
    text = page_of(ledger, "a000001")
    assert "which is 3.00 per 1M (our price: 2.5)" in text
    assert "this event is 20.00 % of it" in text


def test_a_line_is_put_beside_its_events(ledger: Ledger) -> None:
    kept = bill(ledger, {"amount": 125 * 10**8, "quantity": 5000}, {"tier": "batch", "quantity": 9})
    found = Books(ledger).explain(f"{kept.id[:10]}:0")
    beside = found.invoice
    assert beside is not None
    assert (beside.events, beside.seen, beside.difference) == (2, 4000, 1000)
    assert beside.implied == "2.50"
    assert beside.owners == {
        "acme": ("0.002500000000", "0.002500000000", 1),
        "globex": ("0.007500000000", "0.007500000000", 1),
    }
    assert [each.event for each in beside.dearest] == ["a000002", "a000001"]
    assert found.headline == (
        "openai bills 0.0125 USD for gpt-4o-2024-08-06 input on 2026-11-05, 5,000 tokens; the books"
        " have 2 events of it with 4,000 tokens: 1,000 more are billed than were seen. They cost in"
        " all their components: acme 0.0025 USD and globex 0.0075 USD."
    )
    assert "difference" in page_of(ledger, f"{kept.id}:0")


def test_an_invoice_whole_and_what_is_none(ledger: Ledger) -> None:
    kept = bill(ledger, {"amount": 5 * 10**9}, {"category": "tax", "amount": 10**9, "model": None})
    whole = Books(ledger).explain(kept.id[:8])
    assert whole.headline.startswith("openai bills 0.006 USD for 2026-11 (version 1); the books")
    assert "as tax: no event stands behind such a line" in page_of(ledger, f"{kept.id}:1")
    for nobody in (f"{kept.id}:7", kept.id[:3], f"{kept.id}:x", "0" * 64):
        with pytest.raises(NotFound):
            Books(ledger).explain(nobody)


def test_another_currency_is_compared_with_nothing(ledger: Ledger) -> None:
    bill(ledger, {"amount": 15 * 10**9, "quantity": 5000, "currency": "EUR"}, currency="EUR")
    (node,) = Books(ledger).explain("a000001").roots
    (one,) = node.billed
    assert (one.currency, one.implied, one.part) == ("EUR", None, "20.00 %")
    assert "0.015 EUR" in page_of(ledger, "a000001")


def test_only_the_latest_version_is_beside(ledger: Ledger) -> None:
    bill(ledger, {"amount": 1, "quantity": 1}, raw=b"old")
    latest = bill(ledger, {"amount": 15 * 10**9, "quantity": 5000}, raw=b"new")
    (node,) = Books(ledger).explain("a000001").roots
    assert [(one.invoice, one.version) for one in node.billed] == [(latest.id, 2)]


def test_a_bill_that_says_no_tier_is_of_all_of_them(ledger: Ledger) -> None:
    kept = bill(ledger, {"amount": 125 * 10**8, "quantity": 5000})
    beside = Books(ledger).explain(f"{kept.id}:0").invoice
    assert beside is not None
    assert (beside.events, beside.seen) == (3, 4009)
