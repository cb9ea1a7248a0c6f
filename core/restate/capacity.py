"""Self-hosted models: a price from what was paid for GPUs, and the idle share for the platform.

The bill of a period is spread over its tokens: over those used (a reservation: all of it is
somebody's), or over those that the capacity could have done (usage: what nobody used is idle, and
the platform's). What the events cost and what is idle are the bill, to the pico: the idle share
takes what rounding left.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import msgspec

from costspan.core.decide import Lineage, decide
from costspan.core.money import PICO
from costspan.core.prices import PriceBook, PriceRow, Prices
from costspan.core.prices.capacity_file import Capacity
from costspan.core.prices.units import TOKENS_PER_RATE
from costspan.core.restate.idle import idle_so_far, post_idle
from costspan.core.restate.scope import (
    SELF_HOSTED,
    TIMEOUT_SECONDS,
    Change,
    Hand,
    RestateError,
    Scope,
    Target,
    Tell,
    keep_only_what_counts,
    trying,
    with_platform,
)
from costspan.core.settle.ledger import Ledger, Settlement
from costspan.core.settle.policy import Policies

_RATE_PLACES = 10**12
"""Rates are USD per 1M tokens with so many places: what is cut off is idle."""


class Hosted(msgspec.Struct, frozen=True):
    """What a model's bill came to. Amounts are pico-USD.

    `tokens` are those of the priced events, weighted; `rate` is USD per 1M weighted tokens, None
    if there were none; `idle` is what the platform bears; `posted` what of it was posted now.
    """

    name: str
    model: str
    basis: str
    paid: int
    tokens: Fraction
    rate: str | None
    used: int
    idle: int
    posted: int


class CapacityChange(msgspec.Struct, frozen=True):
    """What restating a period by its GPU bill did."""

    change: Change
    models: tuple[Hosted, ...]


def restate_capacity(
    ledger: Ledger,
    period: str,
    bills: Sequence[Capacity],
    hand: Hand,
    *,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> CapacityChange:
    """Price a period's events of self-hosted models by what was paid; post what is idle.

    Again with the same bills and events, it changes nothing; with more events, only what they
    change.

    Raises:
        RestateError: if no bill is of this period, or more tokens were used than the capacity.
    """
    hand.check()
    bills = [bill for bill in bills if bill.period == period]
    if not bills:
        raise RestateError(f"the file has no [[capacity]] of {period}")
    models: list[Hosted] = []
    with trying() as tried, ledger.settling(TIMEOUT_SECONDS) as settlement:
        scope = Scope(settlement, Target(None, period))
        notes: list[str] = []
        tokens = _tokens(scope, bills, notes)
        rows = list(map(_row_over, bills, tokens))
        change, is_repeated = Change(False, 0, 0, 0, {}), True
        if priced := tuple(row for row in rows if row is not None):
            book = PriceBook(id=_book_id(period), source="GPU-hours", rows=priced)
            settlement.keep_price_book(book)
            record = scope.record_like_now(hand, scope.in_front_of_now(book.sha256, notes))
            is_repeated = scope.is_repeated(record)
            change = scope.settle([record], tell)
            change = msgspec.structs.replace(change, books=record.books or ())
        used = _used(scope)
        already = idle_so_far(ledger, period)
        for bill, many, row in zip(bills, tokens, rows, strict=True):
            models.append(_hosted(bill, many, row, used, already))
        change = _post_idle(settlement, period, models, hand, change)
        change = msgspec.structs.replace(change, notes=tuple(notes))
        keep_only_what_counts(change, is_repeated, dry_run)
        tried.change = msgspec.structs.replace(change, recorded=True)
    return CapacityChange(tried.change, tuple(models))


def _tokens(scope: Scope, bills: Sequence[Capacity], notes: list[str]) -> list[Fraction]:
    """The weighted tokens of each bill's events: those whose cost is a price of their usage."""
    book = PriceBook(
        id=_book_id(scope.target.name), rows=tuple(_row(bill, Fraction(1)) for bill in bills)
    )
    places = {row.id: at for at, row in enumerate(book.rows)}
    tokens = [Fraction(0)] * len(bills)
    policies = Policies(scope.settlement)
    prices: dict[Prices, Prices] = {}
    unknown = 0
    for each in scope.events():
        event = each.event
        if event.is_open:
            continue
        rules, behind, _ = policies.at(event, scope.in_force)
        own = prices.get(behind)
        if own is None:
            others = [other for other in behind.books if other.id != book.id]
            own = prices[behind] = Prices([book, *others])
        # What an event costs has nothing to do with its ancestors.
        decision = decide(event, Lineage(), rules, own)
        at = places.get(decision.price_row or "")
        if at is None:
            continue
        if decision.cost is None:
            unknown += 1
        elif decision.features["basis"] == "usage" and event.facts.usage:
            tokens[at] += bills[at].weighted(event.facts.usage)
    if unknown:
        notes.append(
            f"of {unknown:,} of these models' events the cost stays unknown: no usage was reported,"
            " or a component of it has no weight"
        )
    return tokens


def _row(bill: Capacity, per_token: Fraction) -> PriceRow:
    """The price of each component, given USD per 1M weighted tokens."""
    rates = {name: _decimal(Fraction(weight) * per_token) for name, weight in bill.weights.items()}
    return PriceRow(
        book=_book_id(bill.period), model=bill.model, provider=bill.provider, rates=rates
    )


def _row_over(bill: Capacity, tokens: Fraction) -> PriceRow | None:
    """The bill spread over its tokens; None if there is nothing to spread it over."""
    if bill.capacity is not None and tokens > bill.capacity:
        raise RestateError(
            f"{bill.name}: {round(tokens):,} weighted tokens were used of a capacity of"
            f" {bill.capacity:,}: the capacity is too low, or a weight too high"
        )
    if not tokens:
        return None
    return _row(bill, _per_million(bill, tokens))


def _per_million(bill: Capacity, tokens: Fraction) -> Fraction:
    """USD per 1M weighted tokens."""
    over = tokens if bill.capacity is None else Fraction(bill.capacity)
    return Fraction(bill.paid * TOKENS_PER_RATE, PICO) / Fraction(over)


def _decimal(amount: Fraction) -> str:
    """A decimal string, cut off after 12 places: what the rates leave is idle, not invented."""
    whole, places = divmod(int(amount * _RATE_PLACES), _RATE_PLACES)
    return f"{whole}.{places:012d}".rstrip("0").rstrip(".")


def _used(scope: Scope) -> dict[str, int]:
    """Price row -> what the events cost now that it is the price of, in pico-USD."""
    used: dict[str, int] = {}
    for each in scope.events():
        decision = each.decision
        if decision is None or decision.cost is None or decision.features["basis"] != "usage":
            continue
        row = decision.price_row or ""
        used[row] = used.get(row, 0) + decision.cost
    return used


def _hosted(
    bill: Capacity,
    tokens: Fraction,
    row: PriceRow | None,
    used: dict[str, int],
    already: dict[str, int],
) -> Hosted:
    cost = 0 if row is None else used.get(row.id, 0)
    idle = bill.paid - cost
    return Hosted(
        name=bill.name,
        model=bill.model,
        basis=bill.basis,
        paid=bill.paid,
        tokens=tokens,
        rate=None if row is None else _decimal(_per_million(bill, tokens)),
        used=cost,
        idle=idle,
        posted=idle - already.get(bill.name, 0),
    )


def _post_idle(
    settlement: Settlement, period: str, models: Sequence[Hosted], hand: Hand, change: Change
) -> Change:
    """Post what is not posted yet of the idle shares; the change with them in it."""
    posted = [each for each in models if each.posted]
    for each in posted:
        about = {
            "name": each.name,
            "basis": each.basis,
            "paid": str(each.paid),
            "used": str(each.used),
            "tokens": str(each.tokens),
        }
        model, amount = each.model, each.posted
        post_idle(settlement, period, model, amount, about, hand.by, hand.reason, hand.at_ns)
    return with_platform(change, sum(each.posted for each in posted), len(posted))


def _book_id(period: str) -> str:
    return f"{SELF_HOSTED}{period}"
