"""Σ lines = Σ document, exactly, whatever is in it; and a version's changes are what changed."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from papers import BY, FOCUS, NOW, Number, anthropic_page, charged, cost, openai_page, table

from costspan.core.invoices.document import Order
from costspan.core.invoices.importing import Imported, documents_of, keep
from costspan.core.invoices.store import InvoiceStore
from costspan.core.settle.ledger import open_url

PICO = Decimal("1e12")
# Decimals of up to 12 places (cents: 10), of any sign, some in E notation.
amounts = st.integers(-(10**20), 10**20).map(lambda pico: Decimal(pico).scaleb(-12))
days = st.integers(1, 28).map(lambda day: f"2026-{1 + day % 12:02}-{day:02}")


def written(amount: Decimal, as_power: bool) -> str:
    return f"{amount:E}" if as_power else f"{amount:f}"


def imported(store: InvoiceStore, raw: bytes) -> list[Imported]:
    order = Order(place="./f", raw=raw, at=NOW)
    [document] = documents_of(order)
    return keep(store, document, order, by=BY, at=NOW)


def total(store: InvoiceStore, kept: list[Imported]) -> int:
    """The sum three times over: as it was read, line by line, and in the database."""
    read = sum(sum(each.amounts.values()) for each in kept)
    lines = sum(line.amount for each in kept for line in store.lines(each.invoice.id))
    sums = sum(pico for each in kept for _, pico in store.sums(each.invoice.id).values())
    assert read == lines == sums
    return lines


@settings(max_examples=25)
@given(bill=st.lists(st.tuples(days, amounts, st.booleans()), min_size=1, max_size=12))
def test_the_lines_add_up_to_the_document(bill: list[tuple[str, Decimal, bool]]) -> None:
    truth = int(sum((amount for _, amount, _ in bill), Decimal(0)) * PICO)
    openai: dict[str, list[Any]] = {}
    anthropic: dict[str, list[Any]] = {}
    rows: list[dict[str, str]] = []
    for number, (day, amount, as_power) in enumerate(bill):
        text = written(amount, as_power)
        openai.setdefault(day, []).append(cost(f"m{number}, input", Number(text)))
        cents = written(amount.scaleb(2), as_power)
        anthropic.setdefault(day, []).append(charged(cents, model=f"m{number}"))
        rows.append({**FOCUS, "BilledCost": text, "BillingPeriodStart": day})
    papers = [openai_page(openai), anthropic_page(anthropic)]
    papers.append(table(FOCUS, *(row.values() for row in rows)))
    with TemporaryDirectory() as folder:
        ledger = open_url(f"sqlite:///{Path(folder)}/l.db", create=True)
        for raw in papers:
            assert total(ledger.invoices, imported(ledger.invoices, raw)) == truth
        ledger.close()


lines = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3)), min_size=1, max_size=8)


@settings(max_examples=25)
@given(before=lines, after=lines)
def test_changes_are_the_difference_of_two_multisets(
    before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    def paper(bill: list[tuple[str, int]]) -> bytes:
        return table(
            FOCUS,
            *(
                {**FOCUS, "ChargeDescription": what, "BilledCost": str(n)}.values()
                for what, n in bill
            ),
        )

    with TemporaryDirectory() as folder:
        ledger = open_url(f"sqlite:///{Path(folder)}/l.db", create=True)
        imported(ledger.invoices, paper(before))
        [kept] = imported(ledger.invoices, paper(after))
        ledger.close()
    if before == after:
        assert (kept.is_new, kept.changes) == (False, None)
        return
    assert kept.changes is not None
    gone, come = Counter(before) - Counter(after), Counter(after) - Counter(before)
    most = max(
        sum(n for (w, _), n in side.items() if w == what) for side in (gone, come) for what in "ab"
    )
    assert kept.changes.lines == sum(
        max(sum(n for (w, _), n in side.items() if w == what) for side in (gone, come))
        for what in "ab"
    )
    assert kept.changes.lines >= most
    told = Counter(
        (change.before.description, change.before.amount // 10**12)
        for change in kept.changes.shown
        if change.before is not None
    )
    assert told == gone
