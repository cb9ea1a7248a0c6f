"""Finance's page: what one tenant is charged for one month, from the roll-up alone.

A statement is what was posted in its month. What belongs to another month but came after that was
closed is an adjustment, so that every amount is on exactly one statement; so is what people and
invoices adjusted. Each is named: what it is, by whom, and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from costspan.core.money import format_usd
from costspan.core.read.amounts import CURRENCY, NOTHING, Amounts, sum_of
from costspan.core.read.corrected import Correction, corrections_of
from costspan.core.read.grouping import check_period
from costspan.core.settle.entries import RollUp
from costspan.core.settle.free import ADJUSTMENT, ALLOCATED, FREE_BUCKETS
from costspan.core.settle.ledger import Ledger

__all__ = ["NOTHING", "Amounts", "Correction", "Statement", "statement_of"]


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """direct + agent + allocated + adjustments = total, of one tenant and month (YYYY-MM, UTC).

    `buckets` holds all of the month itself, `models` and `days` what of it is calls (direct and
    agent), `pools` what is allocated; `adjustments` is what this month posted for others, by the
    month it belongs to. All are in order of their names. `corrections` are the adjustments one by
    one: they add up to `adjusted`.

    `above` is what was charged on lines (a day of a model, direct or agent) where the charge is
    more than the cost, by model: at least so much, for a line may have calls below cost too.
    `above_in` is the same by bucket, and of late ones by the month they belong to.
    `unknown` events of the month have no amount here: nobody knows what they cost.
    """

    tenant: str
    period: str
    buckets: dict[str, Amounts]
    models: dict[str, Amounts]
    days: dict[str, Amounts]
    adjustments: dict[str, Amounts]
    unknown: int
    pools: dict[str, Amounts] = {}
    above: dict[str, Amounts] = {}
    above_in: dict[str, Amounts] = {}
    corrections: tuple[Correction, ...] = ()

    @property
    def direct(self) -> Amounts:
        """The work that users asked for."""
        return self.buckets.get("direct", NOTHING)

    @property
    def agent(self) -> Amounts:
        """The work that agents added to it."""
        return self.buckets.get("agent", NOTHING)

    @property
    def allocated(self) -> Amounts:
        """The tenant's part of the platform's pools; nothing before the month is allocated."""
        return self.buckets.get(ALLOCATED, NOTHING)

    @property
    def adjusted(self) -> Amounts:
        """The sum of the adjustments: those of the month itself, and what came late for others."""
        return sum_of([self.buckets.get(ADJUSTMENT, NOTHING), *self.adjustments.values()])

    @property
    def total(self) -> Amounts:
        """What is billed for this month."""
        return sum_of([*self.buckets.values(), *self.adjustments.values()])

    @property
    def charged_above(self) -> int:
        """How much of the charge for calls is above their cost, at least (pico-USD)."""
        return -sum_of(self.above.values()).absorbed

    @property
    def above_by_hand(self) -> list[Correction]:
        """The adjustments by hand that charge more than they cost."""
        return [each for each in self.corrections if each.above_by_hand]

    @property
    def adjusted_above(self) -> int:
        """How much these charge above their cost (pico-USD)."""
        return sum(each.above_by_hand for each in self.above_by_hand)

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings of USD."""
        return {
            "tenant": self.tenant,
            "period": self.period,
            "currency": CURRENCY,
            "direct": self.direct.plain(),
            "agent": self.agent.plain(),
            "allocated": self.allocated.plain(),
            "adjustments": self.adjusted.plain(),
            "total": self.total.plain(),
            "by_model": _plain("model", self.models),
            "by_day": _plain("day", self.days),
            "by_pool": _plain("pool", self.pools),
            "by_adjusted_period": _plain("period", self.adjustments),
            "corrections": [each.plain() for each in self.corrections],
            "charged_above_cost": {
                "at_least": format_usd(self.charged_above),
                "by_model": _plain("model", self.above),
                "by_hand": format_usd(self.adjusted_above),
            },
            "unknown_events": self.unknown,
        }


def statement_of(ledger: Ledger, tenant: str, period: str) -> Statement:
    """The statement; it reads this tenant's lines and nothing of anybody else's.

    Raises:
        ValueError: for a period that is none, or an owner that is no tenant.
    """
    check_period(period)
    if tenant.startswith("@") or not tenant:
        raise ValueError(f"{tenant!r} is no tenant")
    own: list[RollUp] = []
    late: list[RollUp] = []
    for each in ledger.roll_ups(owner=tenant, posted_period=period):
        (own if each.line.effective_period == period else late).append(each)
    calls = [each for each in own if each.line.bucket not in FREE_BUCKETS]
    shares = [each for each in own if each.line.bucket == ALLOCATED]
    # A late line is a difference: one that only takes calls or cost away was charged for before.
    come = [*calls, *(each for each in late if each.events > 0 and each.cost >= 0)]
    above = [each for each in come if each.charge > each.cost]
    return Statement(
        tenant=tenant,
        period=period,
        buckets=_by([each.line.bucket for each in own], own),
        models=_by([each.line.model for each in calls], calls),
        days=_by([each.line.day for each in calls], calls),
        adjustments=_by([each.line.effective_period for each in late], late),
        unknown=ledger.unknown(tenant, period),
        pools=_by([each.line.pool or "" for each in shares], shares),
        above=_by([each.line.model for each in above], above),
        above_in=_by([_part_of(each, period) for each in above], above),
        corrections=corrections_of(ledger, tenant, period, own, late),
    )


def _part_of(each: RollUp, period: str) -> str:
    """Which part of the statement a line of calls is in: a bucket, or the month it is late for."""
    of_month = each.line.effective_period
    return each.line.bucket if of_month == period else of_month


def _by(names: Iterable[str], lines: Iterable[RollUp]) -> dict[str, Amounts]:
    sums: dict[str, list[int]] = {}
    for name, (_, _, cost, charge, events) in zip(names, lines, strict=True):
        total = sums.get(name)
        if total is None:
            sums[name] = [cost, charge, events]
        else:
            total[0] += cost
            total[1] += charge
            total[2] += events
    return {name: Amounts(*sums[name]) for name in sorted(sums)}


def _plain(name: str, parts: dict[str, Amounts]) -> list[dict[str, Any]]:
    return [{name: each, **amounts.plain()} for each, amounts in parts.items()]
