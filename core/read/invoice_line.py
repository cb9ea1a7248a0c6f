"""A line of an invoice beside the books: what the provider bills, and what we saw of the same.

The books of the same day and model are found by their lines; the events behind them are looked at
for tokens, the dearest are named.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.money import format_usd
from costspan.core.prices import canonical_provider
from costspan.core.read import words
from costspan.core.read.billed import implied_rate, same_model, same_tier
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

PREFIX_CHARS_MIN = 6
EVENTS_TOLD_MAX = 20
_DAY_NS = 86_400 * 10**9
_BATCH_NS = 3 * _DAY_NS
"""A batch counts on the day it was completed, and may have started so much before."""


class Beside(msgspec.Struct, frozen=True):
    """An event beside the line: what it used of its component, and what it cost in all."""

    event: str
    owner: str
    quantity: int | None
    cost: str | None


class InvoiceBeside(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice or one of its lines, and the books of the same model and day.

    `owners` is owner -> (cost, charge, events) of the books there; `dearest` some of the events.
    `seen` is what the events used of the line's component, None if the line names none;
    `difference` is billed - seen, in the line's unit.
    """

    invoice: Invoice
    line: InvoiceLine | None
    amount: str
    implied: str | None
    owners: dict[str, tuple[str, str, int]]
    events: int
    seen: int | None
    difference: int | None
    dearest: tuple[Beside, ...]


def find_invoice(ledger: Ledger, name: str) -> tuple[Invoice, int | None] | None:
    """The invoice (and the number of its line) that `ID:NUMBER` or `ID` names; ID may be cut."""
    prefix, _, number = name.partition(":")
    if len(prefix) < PREFIX_CHARS_MIN or (number and not number.isdecimal()):
        return None
    if not set(prefix) <= set("0123456789abcdef"):
        return None
    found = [each for each in ledger.invoices.invoices() if each.id.startswith(prefix)]
    if len(found) != 1:
        return None
    return found[0], int(number) if number else None


def invoice_beside(ledger: Ledger, invoice: Invoice, line: InvoiceLine | None) -> InvoiceBeside:
    """What stands in the books beside it."""
    owners: dict[str, list[int]] = {}
    seen = count = 0
    beside: list[tuple[int, Beside]] = []
    for each in _events(ledger, invoice, line):
        count += 1
        usage = each.event.facts.usage or {}
        used = usage.get(line.component) if line is not None and line.component else None
        seen += used or 0
        for where, amount in each.posted:
            total = owners.setdefault(where.owner, [0, 0, 0])
            total[0] += amount.cost
            total[1] += amount.charge
            total[2] += 1
        cost = None if each.decision is None else each.decision.cost
        said = None if cost is None else format_usd(cost)
        owner = "" if each.decision is None else each.decision.owner
        beside.append((-(cost or 0), Beside(each.event.id, owner, used, said)))
        if len(beside) > 4 * EVENTS_TOLD_MAX:
            beside = sorted(beside, key=_dearest)[:EVENTS_TOLD_MAX]
    billed = line.amount if line is not None else _sum(ledger, invoice)
    component = line.component if line is not None else ""
    quantity = line.quantity if line is not None else None
    is_usd = line is not None and line.currency == "USD"
    return InvoiceBeside(
        invoice=invoice,
        line=line,
        amount=format_usd(billed),
        implied=implied_rate(billed, quantity, component) if is_usd else None,
        owners={
            owner: (format_usd(cost), format_usd(charge), events)
            for owner, (cost, charge, events) in sorted(owners.items())
        },
        events=count,
        seen=seen if component else None,
        difference=quantity - seen if component and quantity is not None else None,
        dearest=tuple(one for _, one in sorted(beside, key=_dearest)[:EVENTS_TOLD_MAX]),
    )


def _dearest(one: tuple[int, Beside]) -> tuple[int, str]:
    return (one[0], one[1].event)


def _sum(ledger: Ledger, invoice: Invoice) -> int:
    return sum(line.amount for line in ledger.invoices.lines(invoice.id))


def _events(ledger: Ledger, invoice: Invoice, line: InvoiceLine | None) -> Iterator[Settled]:
    """The events that an invoice's line (or all of it) is about: by day, model, tier, provider."""
    if line is not None and line.category != "usage":
        return
    provider = canonical_provider(invoice.provider)
    says_tiers = any(one.tier for one in ledger.invoices.lines(invoice.id))
    for each in ledger.events(_around(ledger, line)):
        facts = each.event.facts
        if not each.posted or canonical_provider(facts.provider) not in (None, provider):
            continue
        where = each.posted[0][0]
        if where.effective_period != invoice.period:
            continue
        if line is None or _is_of(line, each, where.day, where.model, says_tiers):
            yield each


def _is_of(line: InvoiceLine, each: Settled, day: str, model: str, says_tiers: bool) -> bool:
    if line.day and day != line.day:
        return False
    if line.model is not None and not same_model(line.model, model):
        return False
    return same_tier(line, each, says_tiers)


def _around(ledger: Ledger, line: InvoiceLine | None) -> set[str] | None:
    """The events near the line's day; None: any may be."""
    if line is None or not line.day:
        return None
    reading = ledger.reading()
    start = words.day_ns(line.day)
    return reading.started_since(start - _BATCH_NS) - reading.started_since(start + _DAY_NS)


def headline_of_invoice(found: InvoiceBeside) -> str:
    """What is billed, and what the books have of it."""
    invoice, line = found.invoice, found.line
    currency = (line.currency if line is not None else "") or invoice.currency or "USD"
    what = f"{invoice.provider} bills {words.trimmed(found.amount)} {currency}"
    if line is None:
        what += f" for {invoice.period} (version {invoice.version})"
    elif line.category != "usage":
        return f"{what} as {line.category}: no event stands behind such a line."
    else:
        about = " ".join(part for part in (line.model or "", line.component) if part)
        when = line.day or invoice.period
        quantity = "" if line.quantity is None else f", {line.quantity:,} {line.unit or 'units'}"
        what += f" for {about or 'usage'} on {when}{quantity}"
    if not found.events:
        return f"{what}; the books have no event of it."
    seen = f"; the books have {words.counted(found.events, 'event')} of it"
    if found.seen is not None:
        seen += f" with {found.seen:,} {line.unit or 'units' if line is not None else ''}"
        if found.difference:
            more = "more" if found.difference > 0 else "fewer"
            seen += f": {abs(found.difference):,} {more} are billed than were seen"
        elif found.difference == 0:
            seen += ": the same"
    owners = [
        f"{owner} {words.trimmed(cost)} USD"
        for owner, (cost, _, _) in list(found.owners.items())[:6]
    ]
    whole = "" if found.seen is None else " in all their components"
    return f"{what}{seen}. They cost{whole}: {words.listed(owners)}."
