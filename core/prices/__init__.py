"""Prices: books of rates, how a model's name finds its row, and what a usage costs, exactly.

`PriceBook` is data that can be hashed and kept; `Prices` looks a model up in several books in
order of precedence; a `Match` prices usage in pico-USD. A `ChargeBook` says what a tenant is
charged where that is something else. Unknown is None, never 0.
"""

from costspan.core.prices.book import ContextTier, PriceBook, PriceError, PriceRow
from costspan.core.prices.charges import ChargeBook, ChargeEntry
from costspan.core.prices.compare import PriceChange, diff
from costspan.core.prices.lookup import Prices, Rows, Verdict
from costspan.core.prices.match import Match
from costspan.core.prices.names import canonical_provider, canonical_tier, undated
from costspan.core.prices.units import COMPONENTS, UNIT_COMPONENTS, is_prompt

__all__ = [
    "COMPONENTS",
    "UNIT_COMPONENTS",
    "ChargeBook",
    "ChargeEntry",
    "ContextTier",
    "Match",
    "PriceBook",
    "PriceChange",
    "PriceError",
    "PriceRow",
    "Prices",
    "Rows",
    "Verdict",
    "canonical_provider",
    "canonical_tier",
    "diff",
    "is_prompt",
    "undated",
]
