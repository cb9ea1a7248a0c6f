"""Sharing a pool among tenants: weights by method, exact amounts, and how good a method is.

`methods` and `score` are pure. `rule` says what to do with which pool, `run` does it in a ledger,
`backtest` tries methods where the truth is known. Amounts are integers of pico-USD.
"""

from costspan.core.allocate.methods import (
    METHODS,
    AllocationError,
    Method,
    allocate,
    shapley,
    shapley_airport,
    shapley_prompt_cache,
)
from costspan.core.allocate.rule import AllocationRule, load_rule
from costspan.core.allocate.run import (
    Allocated,
    allocate_in,
    allocate_period,
    measured_for,
)
from costspan.core.allocate.score import Score, score

__all__ = [
    "METHODS",
    "Allocated",
    "AllocationError",
    "AllocationRule",
    "Method",
    "Score",
    "allocate",
    "allocate_in",
    "allocate_period",
    "load_rule",
    "measured_for",
    "score",
    "shapley",
    "shapley_airport",
    "shapley_prompt_cache",
]
