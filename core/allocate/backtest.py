"""The back-test: hide whose the known money is, allocate it, and see how far off each method is.

The truth is the direct and agent cost of a period by tenant. A method may look at what one would
still know without that cost: how many there are, what they called, and what was agreed before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Literal, NamedTuple

import msgspec

from costspan.core.allocate.activity import Measured, Own, measured, own_costs
from costspan.core.allocate.methods import AllocationError, Weight, allocate, shapley_airport
from costspan.core.allocate.rule import AllocationRule
from costspan.core.allocate.score import Score, score
from costspan.core.periods import is_period, month_before
from costspan.core.settle.ledger import Ledger

Proxy = Literal["even", "requests", "tokens", "sessions", "weighted", "shapley"]
PROXIES: dict[Proxy, str] = {
    "even": "everybody the same",
    "requests": "activity: requests",
    "tokens": "activity: tokens",
    "sessions": "activity: sessions",
    "weighted": "fixed weights: the rule's, else last month's cost",
    "shapley": "Shapley: airport game of tokens",
}
"""Method -> what it goes by."""


class Tried(NamedTuple):
    """A method, what it went by, and its score; without one, why it could not be tried."""

    method: Proxy
    said: str
    score: Score | None
    why: str


class BackTest(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of a period, best first. `cost` is what was hidden (pico-USD)."""

    period: str
    tenants: int
    cost: int
    tried: tuple[Tried, ...]


def backtest(
    ledger: Ledger,
    period: str,
    methods: tuple[Proxy, ...] = tuple(PROXIES),
    rule: AllocationRule | None = None,
    tell: Callable[[int], None] | None = None,
) -> BackTest:
    """Score methods on a period (YYYY-MM); fixed weights are those of the rule's `every`, if any.

    Raises:
        AllocationError: for a period that is none, or has no cost that is known to be a tenant's.
    """
    if not is_period(period):
        raise AllocationError(f"{period!r} is no period: write YYYY-MM, such as 2026-11")
    with ledger.snapshot():
        own = own_costs(ledger, period)
        before = own_costs(ledger, month_before(period)) if "weighted" in methods else {}
        wants_events = {"tokens", "sessions", "shapley"} & set(methods)
        known = measured(ledger, period, tell) if wants_events else Measured()
    truth = {tenant: each.cost for tenant, each in own.items()}
    cost = sum(truth.values())
    if not any(truth.values()):
        raise AllocationError(
            f"{period} has no cost that is known to be a tenant's: nothing to hide"
        )
    tried = [_try(method, truth, _weights(method, own, known, before, rule)) for method in methods]
    tried.sort(key=_order)
    return BackTest(period=period, tenants=len(truth), cost=cost, tried=tuple(tried))


def _order(each: Tried) -> tuple[bool, Fraction, str]:
    wape = Fraction(0) if each.score is None else each.score.wape
    return each.score is None, wape, each.method


def _weights(
    method: Proxy,
    own: Mapping[str, Own],
    known: Measured,
    before: Mapping[str, Own],
    rule: AllocationRule | None,
) -> Mapping[str, Weight]:
    if method == "even":
        return dict.fromkeys(own, 1)
    if method == "requests":
        return {tenant: each.requests for tenant, each in own.items()}
    if method == "tokens":
        return {tenant: known.tokens.get(tenant, 0) for tenant in own}
    if method == "sessions":
        return {tenant: known.sessions.get(tenant, 0) for tenant in own}
    if method == "shapley":
        return shapley_airport({tenant: known.tokens.get(tenant, 0) for tenant in own})
    if rule is not None and rule.every.weights:
        return rule.every.fixed_weights()
    return {tenant: max(0, each.cost) for tenant, each in before.items()}


_WHY: dict[Proxy, str] = {
    "weighted": "no weights in a rule, and no cost in the month before",
    "sessions": "no call says its session",
}


def _try(method: Proxy, truth: Mapping[str, int], weights: Mapping[str, Weight]) -> Tried:
    said = PROXIES[method]
    if not any(weights.values()):
        return Tried(method, said, None, _WHY.get(method, "nobody has any weight"))
    return Tried(method, said, score(allocate(sum(truth.values()), weights), truth), "")
