"""Allocating a period: what each pool comes to, whose it should be, and the entries between.

What was allocated already is in the books; what is posted is the difference. So to run it again
posts nothing, a pool that changed since posts what it changed by, and to share out nothing takes
everything back. An entry never names an event, and no row but those of bucket `allocated` changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from costspan.core.allocate.activity import Measured, measured, own_costs
from costspan.core.allocate.invoice import POOL, BroughtIn, brought_in
from costspan.core.allocate.methods import AllocationError
from costspan.core.allocate.plan import (
    Allocation,
    allocated_before,
    allocated_pools,
    allocation_of,
    pools_of,
)
from costspan.core.allocate.rule import AllocationRule
from costspan.core.allocate.weights import needs_measuring
from costspan.core.decide.decision import PLATFORM
from costspan.core.journal.records import FreeKind, FreeLine, FreePostings
from costspan.core.periods import is_period
from costspan.core.settle.free import ADJUSTMENT, ALLOCATED, AMOUNT_PICO_MAX, free_postings
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settle import settle
from costspan.core.settle.settlement import Settlement

LINES_MAX = 10_000
"""So many tenants stand in one record: a million of them are a hundred records, not one."""


class Allocated(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a period's pools, and how many entries that took (0: all stood already)."""

    period: str
    rule: AllocationRule
    allocations: tuple[Allocation, ...]
    invoices: tuple[BroughtIn, ...]
    posted: int = 0


class _Hand(msgspec.Struct, frozen=True):
    """Whose hand moves money, why, when (ns UTC), and in which period."""

    period: str
    by: str
    reason: str
    now_ns: int

    def record(self, kind: FreeKind, lines: list[FreeLine], about: dict[str, str]) -> FreePostings:
        return free_postings(
            kind=kind, period=self.period, lines=lines, about=about, by=self.by,
            reason=self.reason, recorded_at=self.now_ns,
        )  # fmt: skip


def allocate_period(
    ledger: Ledger,
    period: str,
    rule: AllocationRule,
    *,
    by: str,
    reason: str,
    now_ns: int,
    tell: Callable[[int], None] | None = None,
    dry_run: bool = False,
    at_most: int | None = None,
    timeout_seconds: int = 30,
) -> Allocated:
    """Share out the pools of a period (YYYY-MM) as a rule says, and post what that changes.

    The events are only read (one at a time; `tell` hears how many) where the rule asks for what
    the roll-up does not have. Pools and earlier shares are read while nobody else can settle. A
    dry run posts nothing, and needs neither `by` nor `reason`. `at_most` is how many parts of a
    pool are told of (the largest); all are posted.

    Raises:
        AllocationError: for a period that is none, or a pool that cannot be shared so.
        FreePostingError: without `by` or `reason`.
        LedgerBusy: if another settler holds the lease longer than this.
    """
    known = measured_for(ledger, period, rule, tell)
    with ledger.snapshot() if dry_run else ledger.settling(timeout_seconds) as settlement:
        return allocate_in(
            ledger, settlement, period, rule, known,
            by=by, reason=reason, now_ns=now_ns, at_most=at_most,
        )  # fmt: skip


def measured_for(
    ledger: Ledger,
    period: str,
    rule: AllocationRule,
    tell: Callable[[int], None] | None = None,
) -> Measured | None:
    """What a rule asks of the events themselves; None if it asks for nothing.

    It may take long, so it is read before the lease is taken.

    Raises:
        AllocationError: for a period that is none.
    """
    if not is_period(period):
        raise AllocationError(f"{period!r} is no period: write YYYY-MM, such as 2026-11")
    with ledger.snapshot():
        if not needs_measuring(rule, pools_of(ledger, period)):
            return None
        return measured(ledger, period, tell)


def allocate_in(
    ledger: Ledger,
    settlement: Settlement | None,
    period: str,
    rule: AllocationRule,
    known: Measured | None,
    *,
    by: str,
    reason: str,
    now_ns: int,
    at_most: int | None = None,
    tell: Callable[[int], None] = lambda posted: None,
) -> Allocated:
    """`allocate_period` in a transaction that is open already; without one nothing is posted.

    `known` is what `measured_for` found; `tell` hears how many entries are posted so far. Whoever
    leaves the transaction with an error takes the entries back with everything else in it.

    Raises:
        AllocationError: for a pool that cannot be shared so.
        FreePostingError: without `by` or `reason`.
    """
    hand = _Hand(period, by, reason, now_ns)
    allocations: list[Allocation] = []
    posted = 0

    def post(records: Iterable[FreePostings]) -> None:
        nonlocal posted
        if settlement is None:
            return
        for record in records:
            posted += settle(settlement, [], [record]).postings
            tell(posted)

    invoices = tuple(brought_in(ledger, period, rule, known))
    # One pool after another: what is at hand is one share a tenant, however many pools.
    for allocation in _allocations(ledger, period, rule, known, invoices):
        post(_records_of(allocation, rule, hand))
        allocations.append(allocation if at_most is None else allocation.largest(at_most))
    post(_records_of_invoices(invoices, hand))
    return Allocated(
        period=period,
        rule=rule,
        allocations=tuple(allocations),
        invoices=invoices,
        posted=posted,
    )


def _allocations(
    ledger: Ledger,
    period: str,
    rule: AllocationRule,
    known: Measured | None,
    invoices: tuple[BroughtIn, ...],
) -> Iterator[Allocation]:
    pools = pools_of(ledger, period)
    for each in invoices:
        pools[POOL] = pools.get(POOL, 0) + each.missing
    own = own_costs(ledger, period)
    earlier = allocated_pools(ledger, period)
    for pool in sorted(pools.keys() | earlier):
        if known is None and pools.get(pool) and needs_measuring(rule, (pool,)):
            known = measured(ledger, period)  # a pool that came just now
        was = allocated_before(ledger, period, pool) if pool in earlier else {}
        yield allocation_of(pool, pools.get(pool, 0), rule, own, known, was)


def _records_of_invoices(invoices: tuple[BroughtIn, ...], hand: _Hand) -> Iterator[FreePostings]:
    """What the books lack of the invoices."""
    for each in invoices:
        for number, (cost, _) in enumerate(_pieces(each.missing, 0), 1):
            line = FreeLine(PLATFORM, ADJUSTMENT, POOL, "", "", cost, 0)
            yield hand.record("invoice_adjust", [line], {**each.about, "part": str(number)})


def _records_of(
    allocation: Allocation, rule: AllocationRule, hand: _Hand
) -> Iterator[FreePostings]:
    """What brings the books to an allocation, in records of a bounded size."""
    about = {
        "pool": allocation.pool,
        "method": allocation.said,
        "charged": "yes" if allocation.is_charged else "no",
        "rule": rule.name,
        "rule_sha256": rule.sha256,
    }
    # Numbered: two parts that say the same would be one record, by its content.
    for number, lines in enumerate(_in_parts(allocation), 1):
        yield hand.record("allocation", lines, {**about, "part": str(number)})


def _in_parts(allocation: Allocation) -> Iterator[list[FreeLine]]:
    """Lines of tenants and one of the pool's owner that balances them: each part adds up to 0."""
    owner, pool = allocation.owner, allocation.line_pool
    lines: list[FreeLine] = []
    moved = 0

    def balanced() -> list[FreeLine]:
        out = -sum(line.cost for line in lines)
        return [FreeLine(owner, ALLOCATED, pool, "", "", out, 0), *lines]

    for part in filter(lambda each: each.is_changed, allocation.parts):
        for cost, charge in _pieces(part.more_cost, part.more_charge):
            size = max(abs(cost), abs(charge))
            if lines and (len(lines) >= LINES_MAX or moved + size > AMOUNT_PICO_MAX):
                yield balanced()
                lines, moved = [], 0
            lines.append(FreeLine(part.tenant, ALLOCATED, pool, "", "", cost, charge))
            moved += size
    if lines:
        yield balanced()


def _pieces(cost: int, charge: int) -> Iterator[tuple[int, int]]:
    """An amount in pieces that a posting can hold."""
    while cost or charge:
        piece = (_held(cost), _held(charge))
        yield piece
        cost, charge = cost - piece[0], charge - piece[1]


def _held(amount: int) -> int:
    return max(-AMOUNT_PICO_MAX, min(AMOUNT_PICO_MAX, amount))
