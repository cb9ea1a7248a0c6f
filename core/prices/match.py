"""A row that was found, compiled to price usage exactly in integers: parts of a pico-USD."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import lcm
from typing import NamedTuple

from costspan.core.money import PICO, round_ratio
from costspan.core.prices.book import PriceBook, PriceRow, Rates
from costspan.core.prices.units import TOKENS_PER_RATE, UNIT_COMPONENTS, is_prompt


class _Compiled(NamedTuple):
    """Rates in pico-USD per one unit, all over one denominator: nearly always 1."""

    numerators: dict[str, int]
    denominator: int


class Match:
    """The row that prices a request, the book it is from, and how it was found.

    Attributes:
        row: the price row.
        book: the book it belongs to.
        why: what the name was read as, and which books before this one missed and why.
    """

    __slots__ = ("_above", "_base", "book", "row", "why")

    def __init__(self, row: PriceRow, book: PriceBook, why: tuple[str, ...]) -> None:
        self.row = row
        self.book = book
        self.why = why
        self._base = _compiled(row.rates)
        # Highest threshold first, each with every rate it leads to: lower tiers show through.
        rates = row.rates
        above: list[tuple[int, _Compiled]] = []
        for tier in row.above:
            rates = {**rates, **tier.rates}
            above.append((tier.above_input_tokens, _compiled(rates)))
        self._above = tuple(reversed(above))

    def __repr__(self) -> str:
        return f"<Match {self.book.id} {self.row.model} {self.row.id}>"

    def cost(self, usage: Mapping[str, int]) -> int | None:
        """What `usage` costs in pico-USD: the exact price, rounded half-even once. None as `price`.

        All of it in integers: this is asked about every event.
        """
        compiled = self._rates(usage) if self._above else self._base
        total = _total(compiled, usage)
        if total is None or compiled.denominator == 1:
            return total
        return round_ratio(total, compiled.denominator)

    def price(self, usage: Mapping[str, int]) -> Fraction | None:
        """What `usage` (component -> quantity) costs in pico-USD, exact and unrounded.

        None if a component with a quantity has no rate (`missing` names it), a quantity is
        negative, or the usage is empty: an empty usage is a missing one, not a free one.
        """
        compiled = self._rates(usage)
        total = _total(compiled, usage)
        return None if total is None else Fraction(total, compiled.denominator)

    def missing(self, usage: Mapping[str, int]) -> tuple[str, ...]:
        """The components of `usage` that cannot be priced: no rate, or a negative quantity."""
        rates = self._rates(usage).numerators
        return tuple(
            sorted(
                component
                for component, quantity in usage.items()
                if quantity and (component not in rates or quantity < 0)
            )
        )

    def rate(self, component: str, usage: Mapping[str, int]) -> Fraction | None:
        """pico-USD for one unit (one token) of `component` in a request of this `usage`.

        None if it has no rate. The usage matters where the prompt's length chooses the rate.
        """
        numerators, denominator = self._rates(usage)
        rate = numerators.get(component)
        return None if rate is None else Fraction(rate, denominator)

    def _rates(self, usage: Mapping[str, int]) -> _Compiled:
        if self._above:
            prompt = sum(quantity for name, quantity in usage.items() if is_prompt(name))
            for threshold, rates in self._above:
                if prompt > threshold:
                    return rates
        return self._base


def _total(compiled: _Compiled, usage: Mapping[str, int]) -> int | None:
    """The price over the compiled rates' denominator; None if it is not known."""
    rates = compiled.numerators
    total = 0
    for component, quantity in usage.items():
        if quantity:
            rate = rates.get(component)
            if rate is None or quantity < 0:
                return None
            total += rate * quantity
    return total if usage else None


def _compiled(rates: Rates) -> _Compiled:
    exact = {
        component: Fraction(text) * PICO
        if component in UNIT_COMPONENTS
        else Fraction(text) * Fraction(PICO, TOKENS_PER_RATE)
        for component, text in rates.items()
    }
    denominator = lcm(*(rate.denominator for rate in exact.values()))
    return _Compiled({name: int(rate * denominator) for name, rate in exact.items()}, denominator)
