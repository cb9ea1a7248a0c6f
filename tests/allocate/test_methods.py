"""Allocation: exact, conserving, monotone; the hand-checked numbers, and Shapley's axioms."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costspan.core.allocate import (
    AllocationError,
    allocate,
    score,
    shapley,
    shapley_airport,
    shapley_prompt_cache,
)
from costspan.core.money import parse_usd, split

GOLDEN: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden" / "ownership.json").read_text("utf-8")
)["allocation"]
OWNERS = st.sampled_from(["acme", "globex", "initech", "umbrella", "ünïcode"])
WEIGHTS = st.dictionaries(OWNERS, st.integers(0, 10**15) | st.fractions(0, 10), max_size=5)
proving = settings(max_examples=200)


def pico(amounts: Mapping[str, str]) -> dict[str, int]:
    return {owner: parse_usd(amount) for owner, amount in amounts.items()}


@pytest.mark.parametrize("method", ["even", "activity", "weighted"])
def test_the_hand_checked_shares(method: str) -> None:
    said = GOLDEN["methods"][method]
    shares = allocate(parse_usd(GOLDEN["pool"]), said["weights"])
    assert shares == pico(said["shares"])
    found = score(shares, pico(GOLDEN["true_usage"]))
    assert found is not None
    assert round(found.wape, 6) == Fraction(said["wape"])


def test_the_hand_checked_airport() -> None:
    said = GOLDEN["methods"]["shapley_airport"]
    needs = pico(said["need"])
    values = shapley_airport(needs)
    assert split(max(needs.values()), values) == pico(said["shares"])
    assert shapley(frozenset(needs), lambda some: max(needs[each] for each in some)) == values


@proving
@given(st.integers(-(10**20), 10**20), WEIGHTS)
def test_what_goes_in_comes_out(pool: int, weights: dict[str, Any]) -> None:
    shares = allocate(pool, weights)
    assert sum(shares.values()) == pool
    assert shares == allocate(pool, dict(reversed(weights.items())))
    assert shares == allocate(pool, {**weights, "nobody": 0})
    assert {owner: -share for owner, share in shares.items()} == allocate(-pool, weights)
    whole = sum(weights.values())
    for owner, weight in weights.items():
        assert whole == 0 or abs(shares.get(owner, 0) - Fraction(pool * weight, whole)) < 1


@proving
@given(st.integers(0, 10**20), WEIGHTS, OWNERS, st.integers(1, 10**15))
def test_more_weight_is_never_less(
    pool: int, weights: dict[str, Any], owner: str, more: int
) -> None:
    before = allocate(pool, weights).get(owner, 0)
    assert allocate(pool, {**weights, owner: weights.get(owner, 0) + more})[owner] >= before


@proving
@given(st.dictionaries(OWNERS, st.integers(0, 10**15), min_size=1, max_size=5))
def test_the_closed_form_is_the_definition(needs: dict[str, int]) -> None:
    values = shapley_airport(needs)
    assert values == shapley(frozenset(needs), lambda some: max(needs[each] for each in some))
    assert sum(values.values()) == max(needs.values())


@proving
@given(st.dictionaries(OWNERS, st.integers(0, 10**6), min_size=1, max_size=5), st.integers(0, 99))
def test_a_shared_prefix_is_an_airport_game(tokens: dict[str, int], read: int) -> None:
    """Written once at 1.25 of the input rate by whoever comes, read by all the others at 0.1."""
    premiums = {owner: 115 * count for owner, count in tokens.items()}
    reads = {owner: read * count for owner, count in tokens.items()}

    def cost(some: frozenset[str]) -> int:
        return max(premiums[each] for each in some) + sum(reads[each] for each in some)

    assert shapley_prompt_cache(premiums, reads) == shapley(frozenset(tokens), cost)


def test_what_cannot_be_shared_is_refused() -> None:
    with pytest.raises(AllocationError, match="13 sharers"):
        shapley(frozenset(map(str, range(13))), len)
    with pytest.raises(AllocationError, match="weight is negative"):
        allocate(1, {"acme": 2, "globex": -1})
    with pytest.raises(AllocationError, match="need is negative"):
        shapley_airport({"acme": -1})
    assert allocate(7, {}) == allocate(7, {"acme": 0}) == {"@platform": 7}
    assert score({"acme": 1}, {}) is None


def test_the_worst_is_named() -> None:
    found = score({"acme": 60, "globex": 50}, {"acme": 70, "globex": 20, "initech": 10})
    assert found is not None
    # Below the average of 33 are globex (30 too much) and initech (10 too little).
    assert found == (Fraction(50, 100), Fraction(10, 100), Fraction(20, 100), "globex", 30)


def test_a_shared_prefix_by_hand() -> None:
    """20,000 tokens at 3 USD per million, written at 1.25 and read at 0.1 of that, used 1 and 9
    times: 0.069 above reading it, 0.006 for each use."""
    values = shapley_prompt_cache(
        {"acme": parse_usd("0.069"), "globex": parse_usd("0.069")},
        {"acme": parse_usd("0.006"), "globex": parse_usd("0.054")},
    )
    assert values == pico({"acme": "0.0405", "globex": "0.0885"})
    with pytest.raises(AllocationError, match="initech"):
        shapley_prompt_cache({"acme": 1}, {"initech": 1})
