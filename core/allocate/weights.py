"""Who takes part in a pool, and with what weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

from costspan.core.allocate.activity import Measured, Own
from costspan.core.allocate.methods import (
    SHARERS_MAX,
    AllocationError,
    Weight,
    shapley,
    shapley_airport,
)
from costspan.core.allocate.rule import LONGEST_PREFIX, AllocationRule, PoolRule

Unit = Literal["", "USD", "tokens", "requests"]


class Weights(NamedTuple):
    """The weight of every tenant that takes part, what it is a weight of, and in words.

    Weights of unit USD are pico-USD.
    """

    of: dict[str, Weight]
    unit: Unit
    said: str


def needs_measuring(rule: AllocationRule, pools: Iterable[str]) -> bool:
    """Whether a rule asks for what only the events tell."""
    return bool(rule.invoice) or any(
        (each.method == "activity" and each.by == "tokens")
        or (each.method == "shapley" and _needs_of(pool, each) == LONGEST_PREFIX)
        for pool in pools
        for each in (rule.of(pool),)
    )


def weights_of(
    pool: str, rule: PoolRule, own: Mapping[str, Own], measured: Measured | None
) -> Weights:
    """The weights of a pool's rule.

    Raises:
        AllocationError: for a game that is none, or of too many for an exact value.
    """
    if rule.method == "even":
        return Weights(dict.fromkeys(_taking_part(rule, own), 1), "", "even")
    if rule.method == "weighted":
        if not rule.weights:
            raise AllocationError(
                f"pool {pool}: weighted needs weights: write them in a rule (--rule FILE)"
            )
        return Weights(dict(rule.fixed_weights()), "", "weighted: fixed weights")
    if rule.method == "shapley":
        return _shapley(pool, rule, own, measured)
    counted: Mapping[str, int]
    if rule.by == "tokens":
        assert measured is not None
        counted = measured.tokens
    elif rule.by == "requests":
        counted = {owner: each.requests for owner, each in own.items()}
    else:
        counted = {owner: each.cost for owner, each in own.items()}
    # Less than nothing is no activity: who was refunded more than it used shares nothing.
    of: dict[str, Weight] = {
        owner: max(0, counted.get(owner, 0)) for owner in _taking_part(rule, own)
    }
    return Weights(of, "USD" if rule.by == "cost" else rule.by, f"activity: own {rule.by}")


def _taking_part(rule: PoolRule, everybody: Iterable[str]) -> list[str]:
    chosen = everybody if rule.tenants is None else rule.tenants
    return [owner for owner in chosen if owner not in rule.without]


def _needs_of(pool: str, rule: PoolRule) -> dict[str, str] | str | None:
    if rule.needs is None and not rule.costs and pool == "prompt_cache":
        return LONGEST_PREFIX
    return rule.needs


def _shapley(
    pool: str, rule: PoolRule, own: Mapping[str, Own], measured: Measured | None
) -> Weights:
    needs = _needs_of(pool, rule)
    if needs == LONGEST_PREFIX:
        assert measured is not None
        prefixes = {
            owner: measured.prefix[owner]
            for owner in _taking_part(rule, own)
            if owner in measured.prefix
        }
        # In tokens: every token of the premium costs the same, and weights have no scale.
        of: dict[str, Fraction] = shapley_airport(prefixes)
        return Weights(dict(of), "tokens", "shapley: airport game of the longest prefixes")
    if needs is not None:
        fixed = {owner: need for owner, need in rule.fixed_needs().items() if _in(rule, owner)}
        return Weights(dict(shapley_airport(fixed)), "USD", "shapley: airport game of needs")
    if rule.costs:
        return Weights(dict(_game(pool, rule)), "USD", "shapley: by definition")
    raise AllocationError(
        f"pool {pool}: a Shapley value is of a game: say needs or costs in a rule (--rule FILE)"
    )


def _in(rule: PoolRule, owner: str) -> bool:
    return owner not in rule.without


def _game(pool: str, rule: PoolRule) -> dict[str, Fraction]:
    costs = rule.fixed_costs()
    sharers = frozenset(owner for some in costs for owner in some if _in(rule, owner))
    if len(sharers) > SHARERS_MAX:
        shapley(sharers, len)  # refuses, and says what to do

    def cost(some: frozenset[str]) -> int:
        if some not in costs:
            raise AllocationError(
                f"pool {pool}: the game does not say what {'+'.join(sorted(some))} cost together"
            )
        return costs[some]

    values = shapley(sharers, cost)
    for owner, value in values.items():
        if value < 0:
            raise AllocationError(
                f"pool {pool}: {owner} makes it cheaper for the others in this game (its value is"
                " negative), so it has no weight: check the costs, or use another method"
            )
    return values
