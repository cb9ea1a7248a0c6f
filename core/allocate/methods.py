"""The methods: even, by activity, by fixed weights, and Shapley values.

Even, by activity and by weights are the usual three of shared-cost allocation (OpenCost's
specification names them). The Shapley value is the average over all orders in which the sharers
could have come; for few sharers it is computed from its definition (L. S. Shapley, 1953), for two
games in closed form: the airport game (S. C. Littlechild and G. Owen, 1973), whose cost is the
greatest need of those who come, and the sharing of a cached prompt prefix, which is one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import combinations
from math import comb
from typing import Literal

from costspan.core.decide.decision import PLATFORM
from costspan.core.money import split

Method = Literal["even", "activity", "weighted", "shapley"]
METHODS: tuple[Method, ...] = ("even", "activity", "weighted", "shapley")
SHARERS_MAX = 12
"""A Shapley value by definition looks at every set of sharers: 4,096 of them."""

Weight = int | Fraction
Cost = Callable[[frozenset[str]], int]
"""What a set of sharers would have cost, in pico-USD; nothing for nobody."""


class AllocationError(ValueError):
    """A pool that cannot be shared so, or a rule that cannot be used; the text says why."""


def allocate(pool: int, weights: Mapping[str, Weight]) -> dict[str, int]:
    """The pool's pico-USD by weight, exactly (largest remainder, ties by owner id).

    Without any weight it stays with `@platform`: nobody used it. A tenant of weight zero gets
    nothing, and changes nobody's share. A negative pool (a credit) is shared the same way.

    Raises:
        AllocationError: for a negative weight.
    """
    if any(weight < 0 for weight in weights.values()):
        raise AllocationError("a weight is negative")
    positive = {owner: weight for owner, weight in weights.items() if weight > 0}
    return split(pool, positive) if positive else {PLATFORM: pool}


def shapley(sharers: frozenset[str], cost: Cost) -> dict[str, Fraction]:
    """The Shapley value of each sharer, by definition; they add up to the cost of all.

    Raises:
        AllocationError: for more sharers than `SHARERS_MAX`: use activity, or a closed form.
    """
    if len(sharers) > SHARERS_MAX:
        raise AllocationError(
            f"{len(sharers)} sharers: an exact Shapley value is computed for at most {SHARERS_MAX}."
            " Use activity, or the airport game, which has a closed form for any number"
        )
    known: dict[frozenset[str], int] = {
        frozenset(some): cost(frozenset(some))
        for size in range(1, len(sharers) + 1)
        for some in combinations(sorted(sharers), size)
    }
    known[frozenset()] = 0
    values: dict[str, Fraction] = {}
    for owner in sorted(sharers):
        value = Fraction(0)
        for some, without in known.items():
            if owner not in some:
                orders = len(sharers) * comb(len(sharers) - 1, len(some))
                value += Fraction(known[some | {owner}] - without, orders)
        values[owner] = value
    return values


def shapley_airport(needs: Mapping[str, int]) -> dict[str, Fraction]:
    """The Shapley value where all together cost the greatest need (pico-USD), in closed form.

    Each stretch between two needs is shared evenly by those who need it.

    Raises:
        AllocationError: for a negative need.
    """
    if any(need < 0 for need in needs.values()):
        raise AllocationError("a need is negative")
    values: dict[str, Fraction] = {}
    reached, share = 0, Fraction(0)
    ordered = sorted(needs, key=lambda owner: (needs[owner], owner))
    for at, owner in enumerate(ordered):
        if needs[owner] > reached:
            share += Fraction(needs[owner] - reached, len(ordered) - at)
            reached = needs[owner]
        values[owner] = share
    return values


def shapley_prompt_cache(
    premiums: Mapping[str, int], reads: Mapping[str, int]
) -> dict[str, Fraction]:
    """The Shapley value of tenants whose prompts begin alike, in closed form (pico-USD).

    Args:
        premiums: What writing a tenant's prefix costs above reading it: prefixes are nested, so
            together they pay the greatest premium once (an airport game).
        reads: What reading its prefix costs a tenant for all its uses, whoever wrote it.

    Raises:
        AllocationError: for a negative premium, or reads of who has no prefix.
    """
    if strangers := reads.keys() - premiums.keys():
        raise AllocationError(f"{min(strangers)!r} reads a prefix, and no premium is known for it")
    values = shapley_airport(premiums)
    return {owner: values[owner] + reads.get(owner, 0) for owner in premiums}
