"""Self-hosted models: a price from what was paid for GPUs, and the idle share for the platform.

The bill of a period is spread over its tokens: over those used (a reservation: all of it is
somebody's), or over those that the capacity could have done (usage: what nobody used is idle, and
the platform's). What the events cost and what is idle are the bill, to the pico: the idle share
takes what rounding left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec

from costspan.core.decide import Lineage, decide
from costspan.core.money import PICO
from costspan.core.prices import PriceBook, PriceRow, Prices
from costspan.core.prices.capacity_file import Capacity
from costspan.core.prices.units import TOKENS_PER_RATE
from costspan.core.read.words import dollars
from costspan.core.restate.idle import Idle, idle_so_far, post_idle
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
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.policy import Policies
from costspan.core.settle.settlement import Settlement

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
    change. Models that earlier bills of the period priced and these do not name keep their price
    and their idle share.

    Raises:
        RestateError: if no bill is of this period, or more tokens were used than the capacity; if
            one bill is there under two names.
    """
    hand.check()
    bills = [bill for bill in bills if bill.period == period]
    if not bills:
        raise RestateError(f"the file has no [[capacity]] of {period}")
    models: list[Hosted] = []
    with trying() as tried, ledger.settling(TIMEOUT_SECONDS) as settlement:
        scope = Scope(settlement, Target(None, period))
        notes: list[str] = []
        already = idle_so_far(ledger, period)
        kept = _kept_rows(scope, bills)
        notes += _earlier(bills, kept, already)
        tokens = _tokens(scope, bills, kept, notes)
        rows = list(map(_row_over, bills, tokens))
        change, is_repeated = Change(False, 0, 0, 0, {}), True
        if priced := (*(row for row in rows if row is not None), *kept):
            book = PriceBook(id=_book_id(period), source="GPU-hours", rows=priced)
            settlement.keep_price_book(book)
            books = scope.in_front_of_now(book.sha256)
            record = scope.record_like_now(hand, books)
            is_repeated = scope.is_repeated(record)
            change = scope.settle([record], tell)
            change = msgspec.structs.replace(change, books=record.books or ())
        used = _used(scope)
        for bill, many, row in zip(bills, tokens, rows, strict=True):
            models.append(_hosted(bill, many, row, used, already))
        change = _post_idle(settlement, period, models, hand, change)
        change = msgspec.structs.replace(change, notes=tuple(notes))
        keep_only_what_counts(change, is_repeated, dry_run)
        tried.change = msgspec.structs.replace(change, recorded=True)
    return CapacityChange(tried.change, tuple(models))


def _kept_rows(scope: Scope, bills: Sequence[Capacity]) -> tuple[PriceRow, ...]:
    """The prices in force that earlier bills made, of models that these do not name."""
    book = scope.book_in_force(_book_id(scope.target.name))
    named = {(bill.provider, bill.model) for bill in bills}
    return tuple(
        row for row in (() if book is None else book.rows) if (row.provider, row.model) not in named
    )


def _earlier(
    bills: Sequence[Capacity], kept: Sequence[PriceRow], already: Mapping[str, Idle]
) -> list[str]:
    """A word on each model that only earlier bills name; one bill must not be there twice."""
    models = {_name_of(row): row.model for row in kept}
    models.update((name, idle.model) for name, idle in already.items())
    for bill in bills:
        models.pop(bill.name, None)
    for name, model in sorted(models.items()):
        for bill in bills:
            if model == bill.model and (name == model or bill.provider is None):
                raise RestateError(
                    f"an earlier bill of {bill.period} is for {name}, and this one for"
                    f" {bill.name}: if they are two, write both in one file; if it is one,"
                    " take the earlier one back first (--undo)"
                )
    return [
        f"{name} is not in the file: its price and its idle share"
        f" ({dollars(_idle_of(already, name))}) stay as an earlier bill made them;"
        " --undo takes back every bill of the month"
        for name in sorted(models)
    ]


def _idle_of(already: Mapping[str, Idle], name: str) -> int:
    return already[name].cost if name in already else 0


def _name_of(row: PriceRow) -> str:
    return f"{row.provider}/{row.model}" if row.provider else row.model


def _tokens(
    scope: Scope, bills: Sequence[Capacity], kept: Sequence[PriceRow], notes: list[str]
) -> list[Fraction]:
    """The weighted tokens of each bill's events: those whose cost is a price of their usage."""
    rows = [_row(bill, Fraction(1)) for bill in bills]
    book = PriceBook(id=_book_id(scope.target.name), rows=(*rows, *kept))
    places = {row.id: at for at, row in enumerate(rows)}
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
    already: Mapping[str, Idle],
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
        posted=idle - _idle_of(already, bill.name),
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
