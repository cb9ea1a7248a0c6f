"""The provider's price list and its exact arithmetic, written apart from ``costspan.core``."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from math import floor
from typing import Final

Prices = Mapping[str, Mapping[str, str]]
"""Model, or ``model#tier``, to component to USD per 1M tokens as a decimal string.

``web_searches`` are USD per one search, as in a contract file.
"""

DEFAULT_PRICES: Final[Prices] = {
    "gpt-4o": {"input": "2.50", "output": "10.00", "cache_read": "1.25"},
    "gpt-4o#batch": {"input": "1.25", "output": "5.00"},
    "gpt-4o#flex": {"input": "1.25", "output": "5.00", "cache_read": "0.625"},
    "gpt-4o#priority": {"input": "4.25", "output": "17.00", "cache_read": "2.125"},
    "gpt-4o-mini": {"input": "0.15", "output": "0.60", "cache_read": "0.075"},
    "gpt-4o-audio-preview": {
        "input": "2.50",
        "output": "10.00",
        "audio_input": "40.00",
        "audio_output": "80.00",
    },
    "in-house-7": {"input": "1.00", "output": "2.00"},
    "claude-sonnet-4-5": {
        "input": "3.00",
        "output": "15.00",
        "cache_read": "0.30",
        "cache_write_5m": "3.75",
        "cache_write_1h": "6.00",
    },
    "claude-haiku-4-5": {
        "input": "1.00",
        "output": "5.00",
        "cache_read": "0.10",
        "cache_write_5m": "1.25",
        "cache_write_1h": "2.00",
    },
    "text-embedding-3-small": {"input": "0.02", "output": "0"},
}
DEFAULT_ALIASES: Final[Mapping[str, str]] = {
    "gpt-4o-2024-08-06": "gpt-4o",
    "gpt-4o-mini-2024-07-18": "gpt-4o-mini",
}

_PICO_PER_MILLIONTH: Final = 10**6  # 1 USD per 1M tokens is 10**6 pico-USD per token.
_PICO_PER_ONE: Final = {"web_searches": 10**12}  # what is not counted in tokens
BASE_TIERS: Final = frozenset({"", "auto", "default", "standard"})


class Unpriced(ValueError):
    """The price list has no row or no rate for what was served: a mistake in the script."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The exact cost of one request in pico-USD, and its split, which sums to it."""

    pico: int
    by_component: Mapping[str, int]


class PriceList:
    """Rates by model and tier, and the dated names that models are served under.

    Args:
        prices: USD per 1M tokens (or per search) as decimal strings.
        aliases: Dated name to model. A request for the model is served, and billed, under
            its latest dated name.

    Raises:
        ValueError: A rate is not a finite, non-negative decimal string, or an alias names no row.
    """

    def __init__(self, prices: Prices, aliases: Mapping[str, str]) -> None:
        self._rates = {
            model: {component: _rate(rate) for component, rate in row.items()}
            for model, row in prices.items()
        }
        self._aliases = {dated: model for dated, model in aliases.items() if model in prices}
        self._dated: dict[str, str] = {}
        for dated, model in sorted(self._aliases.items()):
            self._dated[model] = dated

    def served_name(self, requested: str) -> str | None:
        """The name the reply carries for a requested one; None when there is no such model."""
        if requested in self._aliases:
            return requested
        if requested in self._rates and "#" not in requested:
            return self._dated.get(requested, requested)
        return None

    def served_tier(self, requested: str | None, model: str) -> str:
        """The tier that serves a request: the one asked for if it has a row, else default."""
        if requested is None or requested in BASE_TIERS:
            return "default"
        return requested if f"{self._base(model)}#{requested}" in self._rates else "default"

    def models(self) -> list[str]:
        """Every name that may be requested."""
        base = [model for model in self._rates if "#" not in model]
        return sorted({*base, *self._aliases})

    def cost(self, model: str, tier: str, components: Mapping[str, int]) -> Cost:
        """Price disjoint components: exact, then rounded half-even once to whole pico-USD.

        The split over components gets the rounding by largest remainder, ties by name.

        Raises:
            Unpriced: There is no row for this model and tier, or no rate for a component.
        """
        key = self._base(model) if tier in BASE_TIERS else f"{self._base(model)}#{tier}"
        if key not in self._rates:
            raise Unpriced(f"the loopback provider has no price row {key!r}")
        rates, exact = self._rates[key], dict[str, Fraction]()
        for component, count in components.items():
            if component not in rates:
                raise Unpriced(f"the loopback provider has no rate for {component!r} in {key!r}")
            each = _PICO_PER_ONE.get(component, _PICO_PER_MILLIONTH)
            exact[component] = rates[component] * count * each
        total = round(sum(exact.values(), Fraction(0)))  # round() of a Fraction is half-even.
        return Cost(total, _largest_remainder(total, exact))

    def _base(self, model: str) -> str:
        return self._aliases.get(model, model)


def _rate(text: object) -> Fraction:
    if not isinstance(text, str):
        raise ValueError(f"a rate is a decimal string, not {text!r}")
    try:
        rate = Decimal(text)
    except InvalidOperation as error:
        raise ValueError(f"a rate is a decimal string, not {text!r}") from error
    if not rate.is_finite() or rate < 0:
        raise ValueError(f"a rate is finite and not negative, not {text!r}")
    return Fraction(rate)


def _largest_remainder(total: int, exact: Mapping[str, Fraction]) -> dict[str, int]:
    shares = {name: floor(amount) for name, amount in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
