"""The adjustments of a statement one by one: what each is, by whom, and why.

They are read from the records that posted them, for one tenant only. A record may be about others
too: whatever it says of them stays out of this tenant's sight.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from costspan.core.journal.records import FreePostings
from costspan.core.read.amounts import Amounts, sum_of
from costspan.core.settle.entries import RollUp
from costspan.core.settle.free import ADJUSTMENT, FREE_BUCKETS
from costspan.core.settle.ledger import Ledger

LATE = "late"
"""Calls of a month that was closed, which came or were decided anew after that."""
_SAID = ("method", "invoice", "charged")
"""What of a record's `about` is for the tenant."""


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """One adjustment: its kind (of free postings, or `late`), the month it is of, and the amounts.

    `id` names the record, by which `costspan explain` finds it; `recorded_at` is ns UTC. A late
    correction of calls has none of these: each call has its own reasons.
    """

    kind: str
    period: str
    amounts: Amounts
    pool: str | None = None
    id: str | None = None
    by: str | None = None
    reason: str | None = None
    about: dict[str, str] = {}
    recorded_at: int | None = None

    @property
    def above_by_hand(self) -> int:
        """How much an adjustment by hand charges above its cost (pico-USD); 0 for other kinds."""
        return max(0, -self.amounts.absorbed) if self.kind == "adjustment" else 0

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings of USD."""
        said = {name: getattr(self, name) for name in ("kind", "period", "pool", "id", "by")}
        rest = {"reason": self.reason, "about": self.about, "recorded_at": self.recorded_at}
        return {**said, **rest, **self.amounts.plain()}


def corrections_of(
    ledger: Ledger, tenant: str, period: str, own: Sequence[RollUp], late: Sequence[RollUp]
) -> tuple[Correction, ...]:
    """The adjustments that the month's lines of a tenant add up to.

    `own` are the lines posted in the month that are of it, `late` those of other months. What no
    record accounts for is a correction of kind `unknown`: it is never left out.
    """
    free = [
        each
        for each in (*own, *late)
        if each.line.bucket == ADJUSTMENT or (each in late and each.line.bucket in FREE_BUCKETS)
    ]
    found = list(_late(each for each in late if each.line.bucket not in FREE_BUCKETS))
    if not free:
        return tuple(found)
    named: list[Correction] = []
    for month in sorted({each.line.effective_period for each in free}):
        wanted = {each.line.bucket for each in free if each.line.effective_period == month}
        for record in ledger.free_postings(month, tenant):
            named += _of_record(ledger, record, tenant, period, wanted)
    named.sort(key=lambda each: (each.period, each.recorded_at or 0, each.id or ""))
    rest = _less(_total(free), sum_of(each.amounts for each in named))
    if rest != Amounts():
        named.append(Correction(kind="unknown", period=period, amounts=rest))
    return (*found, *named)


def _late(lines: Iterable[RollUp]) -> Iterable[Correction]:
    sums: dict[str, list[Amounts]] = {}
    for each in lines:
        amounts = Amounts(each.cost, each.charge, each.events)
        sums.setdefault(each.line.effective_period, []).append(amounts)
    for month in sorted(sums):
        yield Correction(kind=LATE, period=month, amounts=sum_of(sums[month]))


def _of_record(
    ledger: Ledger, record: FreePostings, tenant: str, period: str, buckets: Collection[str]
) -> Iterable[Correction]:
    """What one record posted for the tenant in the month, by pool."""
    sums: dict[str | None, list[Amounts]] = {}
    for posting in ledger.postings(record.id):
        line = posting.line
        if line.owner == tenant and posting.posted_period == period and line.bucket in buckets:
            amounts = Amounts(posting.amount.cost, posting.amount.charge)
            sums.setdefault(line.pool, []).append(amounts)
    if not sums:
        return
    others = {line.owner for line in record.lines if line.owner[0] != "@"} - {tenant}
    for pool in sorted(sums, key=lambda name: name or ""):
        yield Correction(
            kind=record.kind,
            period=record.period,
            amounts=sum_of(sums[pool]),
            pool=pool,
            id=record.id,
            by=without(record.by, others),
            reason=without(record.reason, others),
            about={
                name: without(record.about[name], others) for name in _SAID if name in record.about
            },
            recorded_at=record.recorded_at,
        )


def without(text: str, names: Collection[str]) -> str:
    """A text in which no other tenant of the record is named."""
    if not any(name in text for name in names):
        return text
    longest_first = sorted(names, key=len, reverse=True)
    pattern = "|".join(rf"(?<!\w){re.escape(name)}(?!\w)" for name in longest_first)
    return re.sub(pattern, "another tenant", text)


def _total(lines: Iterable[RollUp]) -> Amounts:
    return sum_of(Amounts(each.cost, each.charge, each.events) for each in lines)


def _less(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(one.cost - other.cost, one.charge - other.charge, one.events - other.events)
