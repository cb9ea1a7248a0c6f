"""What should stand in bucket `allocated` for each pool of a period, and what stands there."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from costspan.core.allocate.activity import Measured, Own
from costspan.core.allocate.methods import Weight, allocate
from costspan.core.allocate.rule import OTHER, UNATTRIBUTED_POOL, AllocationRule
from costspan.core.allocate.weights import Unit, Weights, weights_of
from costspan.core.decide.decision import PLATFORM, UNATTRIBUTED
from costspan.core.settle.free import ALLOCATED
from costspan.core.settle.ledger import Ledger

Shares = dict[str, tuple[int, int]]
"""Tenant -> (cost, charge) in pico-USD."""


class Part(NamedTuple):
    """A tenant's part of a pool: its weight, and what it comes to in pico-USD.

    `more_cost` and `more_charge` are what is not in the books yet.
    """

    tenant: str
    weight: Weight
    cost: int
    charge: int
    more_cost: int
    more_charge: int

    @property
    def is_changed(self) -> bool:
        """Whether it is not in the books as it should be."""
        return bool(self.more_cost or self.more_charge)


class Allocation(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of one pool. Amounts are pico-USD; `cost` = Σ of the parts + `kept`, exactly.

    `owner` bears it without an allocation; `said` is the method in words, `unit` what a weight
    counts (weights of unit USD are pico-USD). `kept` stays with `owner`, `why` says for what
    reason. `was` is what was allocated of it before. `parts` are all `tenants` of them, or the
    largest, in order of tenant; `out` and `charge` are their sums, `changed` how many of them are
    not in the books as they should be.
    """

    pool: str
    owner: str
    method: str
    said: str
    unit: Unit
    is_charged: bool
    cost: int
    out: int
    charge: int
    kept: int
    why: str
    was: int
    tenants: int
    changed: int
    parts: tuple[Part, ...]

    def largest(self, at_most: int) -> Allocation:
        """The same with no more than so many parts: the largest."""
        if len(self.parts) <= at_most:
            return self
        kept = heapq.nsmallest(at_most, self.parts, key=lambda part: (-abs(part.cost), part.tenant))
        return msgspec.structs.replace(self, parts=tuple(sorted(kept)))

    @property
    def line_pool(self) -> str | None:
        """The pool's name on lines of the books."""
        return None if self.pool == OTHER else self.pool


def pools_of(ledger: Ledger, period: str) -> dict[str, int]:
    """What the platform bears by pool, and what is nobody's, before any allocation (pico-USD)."""
    pools: dict[str, int] = {}
    of_platform = ledger.sums(("bucket", "pool"), period=period, owner=PLATFORM)
    for (bucket, pool), (cost, _, _) in of_platform:
        if bucket != ALLOCATED:
            pools[pool or OTHER] = pools.get(pool or OTHER, 0) + cost
    for (bucket,), (cost, _, _) in ledger.sums(("bucket",), period=period, owner=UNATTRIBUTED):
        if bucket != ALLOCATED:
            pools[UNATTRIBUTED_POOL] = pools.get(UNATTRIBUTED_POOL, 0) + cost
    return pools


def allocated_before(ledger: Ledger, period: str, pool: str) -> Shares:
    """The tenants' shares of a pool as they stand in the books."""
    lines = ledger.sums(("owner", "bucket", "pool"), period=period)
    return {
        owner: (cost, charge)
        for (owner, bucket, name), (cost, charge, _) in lines
        if bucket == ALLOCATED
        and (name or OTHER) == pool
        and not owner.startswith("@")
        and (cost or charge)
    }


def allocated_pools(ledger: Ledger, period: str) -> set[str]:
    """The pools of which something was allocated already."""
    lines = ledger.sums(("bucket", "pool"), period=period)
    return {pool or OTHER for (bucket, pool), _ in lines if bucket == ALLOCATED}


def allocation_of(
    pool: str,
    cost: int,
    rule: AllocationRule,
    own: Mapping[str, Own],
    known: Measured | None,
    was: Shares,
) -> Allocation:
    """What becomes of a pool of so many pico-USD.

    Raises:
        AllocationError: if its rule cannot be applied: see `weights_of`.
    """
    of = rule.of(pool)
    if not cost:  # nobody needs a weight to get nothing, or to give back what it got
        weights = Weights({}, "", "nothing to share out")
    elif of.method == "none":
        weights = Weights({}, "", "none")
    else:
        weights = weights_of(pool, of, own, known)
    shares = allocate(cost, weights.of)
    kept = shares.pop(PLATFORM, 0)
    is_charged = rule.is_charged(pool)
    parts = tuple(_parts(weights.of, shares, was, is_charged=is_charged))
    why = "the rule shares it out to nobody" if of.method == "none" else "nobody has any weight"
    return Allocation(
        pool=pool,
        owner=UNATTRIBUTED if pool == UNATTRIBUTED_POOL else PLATFORM,
        method=of.method,
        said=weights.said,
        unit=weights.unit,
        is_charged=is_charged,
        cost=cost,
        out=sum(part.cost for part in parts),
        charge=sum(part.charge for part in parts),
        kept=kept,
        why=why if kept else "",
        was=sum(earlier for earlier, _ in was.values()),
        tenants=len(parts),
        changed=sum(1 for part in parts if part.is_changed),
        parts=parts,
    )


def _parts(
    weights: Mapping[str, Weight], shares: Mapping[str, int], was: Shares, *, is_charged: bool
) -> Iterator[Part]:
    """In order of tenant; also those who had a share before and have none now."""
    for tenant in sorted(shares.keys() | was.keys()):
        cost = shares.get(tenant, 0)
        charge = cost if is_charged else 0
        cost_was, charge_was = was.get(tenant, (0, 0))
        more = (cost - cost_was, charge - charge_was)
        if cost or any(more):
            yield Part(tenant, weights.get(tenant, 0), cost, charge, *more)
