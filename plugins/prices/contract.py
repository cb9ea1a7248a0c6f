"""The operator's own prices: a TOML file that the configuration names.

The format, and the reading of it, are the core's (`costspan.core.prices.contract`); they are
found here too, beside the other sources of prices.
"""

from __future__ import annotations

from costspan.core.hooks import hookimpl
from costspan.core.prices import PriceBook
from costspan.core.prices.contract import ContractError, load

__all__ = ["ContractError", "load", "prices"]


@hookimpl
def prices() -> list[PriceBook]:
    """No book: which file is the contract is said in the configuration, which calls `load`."""
    return []
