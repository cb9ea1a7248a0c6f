"""The price row of an event: where it was found, what it makes of each component, its history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction

import msgspec

from costspan.core.money import format_usd, round_half_even
from costspan.core.prices import Match, PriceBook, PriceRow, Prices, Verdict
from costspan.core.prices.units import UNIT_COMPONENTS
from costspan.core.read import words
from costspan.core.settle.entries import Settled


class Part(msgspec.Struct, frozen=True):
    """One component of a price: quantity x rate = amount.

    `rate` is USD per 1M tokens, or per one where `is_each`; None if the row has none, and then
    `amount` (decimal string of USD) is None too.
    """

    component: str
    quantity: int
    rate: str | None
    is_each: bool
    amount: str | None


class RowInTime(msgspec.Struct, frozen=True):
    """A row of the same model and terms in the same book, at whatever time it holds (ns UTC)."""

    row: str
    effective_from: int | None
    effective_to: int | None
    rates: dict[str, str]
    in_force: bool


class Priced(msgspec.Struct, frozen=True):
    """A price row and the book it is from; rates are USD per 1M tokens or per unit.

    `above` are the rates of longer prompts, by their threshold of input tokens. `why` says how the
    name led to the row, `others` what the other books say, `history` the row's place in time.
    `since` is what the ledger's other policies would have priced it by: (from when on they decide,
    ns UTC; the book and its rates).
    """

    row: str
    book: str
    version: str | None
    model: str
    tier: str | None
    rates: dict[str, str]
    effective_from: int | None
    effective_to: int | None
    above: tuple[tuple[int, dict[str, str]], ...] = ()
    parts: tuple[Part, ...] = ()
    why: str = ""
    others: tuple[str, ...] = ()
    history: tuple[RowInTime, ...] = ()
    since: tuple[tuple[int, str], ...] = ()


def priced(
    row: PriceRow,
    book: PriceBook,
    each: Settled,
    prices: Prices,
    others: Iterable[tuple[int, Prices]] = (),
) -> Priced:
    """What a row says of an event's usage.

    Args:
        row: the row that priced it, or the one of the model asked for.
        book: the book it is from.
        each: the event.
        prices: the books that were in force.
        others: the books of other policies, each with the moment from which it decides.
    """
    facts = each.event.facts
    usage = facts.usage or {}
    asked = (row.model, facts.provider or row.provider, row.tier, facts.region, None)
    verdicts = prices.explain(*asked, each.event.at_ns or 0, facts.price_book)
    mine = next((one for one in verdicts if one.row is not None and one.row.id == row.id), None)
    return Priced(
        row=row.id,
        book=book.id,
        version=book.source_version,
        model=row.model,
        tier=row.tier,
        rates=dict(row.rates),
        effective_from=row.effective_from,
        effective_to=row.effective_to,
        above=tuple((tier.above_input_tokens, dict(tier.rates)) for tier in row.above),
        parts=_parts(row, book, usage),
        why="" if mine is None else mine.why,
        others=tuple(_said(one, usage) for one in verdicts if one is not mine),
        history=_history(row, () if mine is None else mine.others),
        since=tuple(_elsewhere(row, each, usage, others)),
    )


def _elsewhere(
    row: PriceRow, each: Settled, usage: Mapping[str, int], others: Iterable[tuple[int, Prices]]
) -> Iterator[tuple[int, str]]:
    facts = each.event.facts
    for start, prices in others:
        asked = (row.model, facts.provider or row.provider, row.tier, facts.region, None)
        match = prices.find(*asked, each.event.at_ns or 0, facts.price_book)
        if match is None:
            yield start, "no price"
        elif match.row.rates != row.rates or match.row.above != row.above:
            yield start, f"{_name(match.book)}: {_rates(match.row, usage)}"


def _said(verdict: Verdict, usage: Mapping[str, int]) -> str:
    version = f" {verdict.source_version}" if verdict.source_version else ""
    if verdict.row is None:
        return f"{verdict.book}{version} has none: {verdict.why}"
    return f"{verdict.book}{version} would say {_rates(verdict.row, usage)}"


def _name(book: PriceBook) -> str:
    return f"{book.id} {book.source_version}" if book.source_version else book.id


def _rates(row: PriceRow, usage: Mapping[str, int]) -> str:
    rates = {name: rate for name, rate in row.rates.items() if name in usage} or row.rates
    return ", ".join(f"{name} {rate}" for name, rate in sorted(rates.items()))


def _parts(row: PriceRow, book: PriceBook, usage: Mapping[str, int]) -> tuple[Part, ...]:
    match = Match(row, book, ())
    return tuple(
        _part(component, quantity, match.rate(component, usage))
        for component, quantity in sorted(usage.items())
        if quantity
    )


def _part(component: str, quantity: int, exact: Fraction | None) -> Part:
    is_each = component in UNIT_COMPONENTS
    if exact is None:
        return Part(component, quantity, None, is_each, None)
    per_unit = words.trimmed(format_usd(round_half_even(exact)))
    return Part(
        component,
        quantity,
        per_unit if is_each else words.rate(exact),
        is_each,
        format_usd(round_half_even(exact * quantity)),
    )


def _history(row: PriceRow, others: tuple[PriceRow, ...]) -> tuple[RowInTime, ...]:
    """The rows of the same terms, oldest first; the one in force is among them."""
    same = [other for other in others if _terms(other) == _terms(row)]
    return tuple(
        RowInTime(
            each.id, each.effective_from, each.effective_to, dict(each.rates), each.id == row.id
        )
        for each in sorted([row, *same], key=_start)
    )


def _terms(row: PriceRow) -> tuple[str | None, ...]:
    return (row.provider, row.model, row.tier, row.region, row.endpoint)


def _start(row: PriceRow) -> tuple[int, str]:
    return (-(2**63) if row.effective_from is None else row.effective_from, row.id)
