"""Telemetry beside the invoice: what the provider bills for an event's model and day.

Lines are grouped by what they are about (model and component), because a provider may say money in
one place and quantities in another. Amounts in another currency than USD are compared with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

import msgspec

from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.money import format_usd
from costspan.core.prices import canonical_provider, canonical_tier, undated
from costspan.core.prices.units import UNIT_COMPONENTS
from costspan.core.read import words
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

INVOICES_MAX = 64


class Billed(msgspec.Struct, frozen=True):
    """What an invoice says of a model's component on a day, and an event's part of it.

    `quantity`, `requests` and `ours` (what the event used) are counts; `amount` is a decimal string
    of `currency`. `implied` is amount / quantity, `rate` our price row's rate: USD per 1M tokens,
    or per one of another unit. `part` says how much of the line this event is.
    """

    invoice: str
    numbers: tuple[int, ...]
    source: str
    version: int
    day: str
    model: str
    component: str
    tier: str | None
    quantity: int | None
    requests: int | None
    amount: str
    currency: str
    is_provisional: bool
    ours: int | None
    implied: str | None
    rate: str | None
    part: str | None


class _Read(NamedTuple):
    """A current invoice: its lines of usage by day, and whether any of them says a tier."""

    invoice: Invoice
    by_day: dict[str, list[InvoiceLine]]
    says_tiers: bool


class Bills:
    """The current invoices of a ledger, each read once."""

    def __init__(self, ledger: Ledger) -> None:
        self._store = ledger.invoices
        self._kept: dict[str, list[_Read]] = {}
        self._has_any = bool(self._store.invoices())

    def beside(self, each: Settled, rates: Mapping[str, str]) -> tuple[Billed, ...]:
        """What is billed for the model and day of an event; `rates` are those of its price row."""
        line = each.posted[0][0] if each.posted else None
        if not self._has_any or line is None or not line.model:
            return ()
        found: list[Billed] = []
        for invoice, by_day, says_tiers in self._of(line.effective_period):
            if not _same_provider(invoice.provider, each.event.facts.provider):
                continue
            for day in {line.day, ""}:
                about = [
                    one
                    for one in by_day.get(day, ())
                    if _is_about(one, each, line.model) and same_tier(one, each, says_tiers)
                ]
                found += _billed(invoice, about, each, rates)
        return tuple(found)

    def _of(self, period: str) -> list[_Read]:
        if period not in self._kept:
            self._kept[period] = []
            for invoice in self._store.current(period)[:INVOICES_MAX]:
                by_day: dict[str, list[InvoiceLine]] = {}
                for line in self._store.lines(invoice.id):
                    if line.category == "usage":
                        by_day.setdefault(line.day, []).append(line)
                says_tiers = any(line.tier for lines in by_day.values() for line in lines)
                self._kept[period].append(_Read(invoice, by_day, says_tiers))
        return self._kept[period]


def _same_provider(billed: str, seen: str | None) -> bool:
    return seen is None or canonical_provider(billed) == canonical_provider(seen)


def _is_about(line: InvoiceLine, each: Settled, model: str) -> bool:
    facts = each.event.facts
    if line.model is None or not same_model(line.model, model):
        return False
    return not (facts.provider_account and line.project) or facts.provider_account in (
        line.project,
        line.account,
    )


def same_tier(line: InvoiceLine, each: Settled, says_tiers: bool) -> bool:
    """Whether a line is of the tier of an event; a bill that never says a tier is of all."""
    return not says_tiers or canonical_tier(line.tier) == canonical_tier(each.event.facts.tier)


def same_model(one: str, other: str) -> bool:
    """Whether two names are one model's, one perhaps with its date or its provider in front."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    own = name.rpartition("/")[2]
    return undated(own) or own


def _billed(
    invoice: Invoice, lines: Iterable[InvoiceLine], each: Settled, rates: Mapping[str, str]
) -> Iterator[Billed]:
    groups: dict[tuple[str, str | None, str], list[InvoiceLine]] = {}
    for line in lines:
        key = (line.component, canonical_tier(line.tier), line.currency or invoice.currency)
        groups.setdefault(key, []).append(line)
    usage = each.event.facts.usage or {}
    cost = None if each.decision is None else each.decision.cost
    for (component, tier, currency), some in sorted(groups.items(), key=lambda one: str(one[0])):
        quantities = [line.quantity for line in some if line.quantity is not None]
        quantity = sum(quantities) if quantities else None
        requests = [line.requests for line in some if line.requests is not None]
        amount = sum(line.amount for line in some)
        ours = usage.get(component) if component else None
        part: str | None = None
        if ours and quantity:
            part = words.percent(ours, quantity)
        elif not component and cost and currency == "USD" and amount:
            part = words.percent(cost, amount)
        implied = implied_rate(amount, quantity, component) if currency == "USD" else None
        yield Billed(
            invoice.id,
            tuple(line.number for line in some),
            invoice.source,
            invoice.version,
            some[0].day,
            some[0].model or "",
            component,
            tier,
            quantity,
            sum(requests) if requests else None,
            format_usd(amount),
            currency,
            any(line.is_provisional for line in some),
            ours,
            implied,
            rates.get(component),
            part,
        )


def implied_rate(amount: int, quantity: int | None, component: str) -> str | None:
    """What one unit comes to (pico-USD / quantity) as USD per 1M tokens, or per one other unit."""
    if not quantity or not amount or not component:
        return None
    exact = Fraction(amount, quantity)
    if component in UNIT_COMPONENTS:
        exact = Fraction(exact, 10**6)
    return words.rate(exact)
