"""A row that was found, compiled to price usage exactly: pico-USD, int where it can be."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from costspan.core.money import PICO
from costspan.core.prices.book import PriceBook, PriceRow, Rates
from costspan.core.prices.units import TOKENS_PER_RATE, UNIT_COMPONENTS, is_prompt

_Compiled = dict[str, int | Fraction]


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
        rates = self._base
        above: list[tuple[int, _Compiled]] = []
        for tier in row.above:
            rates = {**rates, **_compiled(tier.rates)}
            above.append((tier.above_input_tokens, rates))
        self._above = tuple(reversed(above))

    def __repr__(self) -> str:
        return f"<Match {self.book.id} {self.row.model} {self.row.id}>"

    def price(self, usage: Mapping[str, int]) -> Fraction | None:
        """What `usage` (component -> quantity) costs in pico-USD, exact and unrounded.

        None if a component with a quantity has no rate (`missing` names it), a quantity is
        negative, or the usage is empty: an empty usage is a missing one, not a free one.
        """
        rates = self._rates(usage) if self._above else self._base
        total: int | Fraction = 0
        for component, quantity in usage.items():
            if quantity:
                rate = rates.get(component)
                if rate is None or quantity < 0:
                    return None
                total += rate * quantity
        return Fraction(total) if usage else None

    def missing(self, usage: Mapping[str, int]) -> tuple[str, ...]:
        """The components of `usage` that cannot be priced: no rate, or a negative quantity."""
        rates = self._rates(usage)
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
        rate = self._rates(usage).get(component)
        return None if rate is None else Fraction(rate)

    def _rates(self, usage: Mapping[str, int]) -> _Compiled:
        if self._above:
            prompt = sum(quantity for name, quantity in usage.items() if is_prompt(name))
            for threshold, rates in self._above:
                if prompt > threshold:
                    return rates
        return self._base


def _compiled(rates: Rates) -> _Compiled:
    """Each rate in pico-USD per one unit."""
    compiled: _Compiled = {}
    for component, text in rates.items():
        pico = Fraction(text) * PICO
        if component not in UNIT_COMPONENTS:
            pico = pico * Fraction(1, TOKENS_PER_RATE)
        compiled[component] = pico.numerator if pico.denominator == 1 else pico
    return compiled
