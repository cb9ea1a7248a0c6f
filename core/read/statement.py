"""Finance's page: what one tenant is charged for one month, from the roll-up alone.

A statement is what was posted in its month. What belongs to another month but came after that was
closed is an adjustment, so that every amount is on exactly one statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from costspan.core.money import format_usd
from costspan.core.read.grouping import check_period
from costspan.core.settle.entries import RollUp
from costspan.core.settle.ledger import Ledger


class Amounts(msgspec.Struct, frozen=True):
    """Sums of lines: pico-USD, signed, and how many events stand on them.

    Events may be fewer than none among adjustments: an event that a closed month counted is taken
    back in a later one.
    """

    cost: int = 0
    charge: int = 0
    events: int = 0

    @property
    def absorbed(self) -> int:
        """What the platform bears itself (pico-USD)."""
        return self.cost - self.charge

    def plain(self) -> dict[str, Any]:
        """As plain values; amounts are decimal strings of USD."""
        return {
            "cost": format_usd(self.cost),
            "charge": format_usd(self.charge),
            "absorbed": format_usd(self.absorbed),
            "events": self.events,
        }


NOTHING = Amounts()


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """direct + agent + allocated + adjustments = total, of one tenant and month (YYYY-MM, UTC).

    `buckets`, `models` and `days` each hold all of the month itself, `adjustments` what this month
    posted for others, by the month it belongs to. All are in order of their names.

    `unknown` events of the month have no amount here: nobody knows what they cost.
    """

    tenant: str
    period: str
    buckets: dict[str, Amounts]
    models: dict[str, Amounts]
    days: dict[str, Amounts]
    adjustments: dict[str, Amounts]
    unknown: int

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
        return self.buckets.get("allocated", NOTHING)

    @property
    def adjusted(self) -> Amounts:
        """The sum of the adjustments."""
        return _sum(self.adjustments.values())

    @property
    def total(self) -> Amounts:
        """What is billed for this month."""
        return _sum([*self.buckets.values(), *self.adjustments.values()])

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings of USD."""
        return {
            "tenant": self.tenant,
            "period": self.period,
            "direct": self.direct.plain(),
            "agent": self.agent.plain(),
            "allocated": self.allocated.plain(),
            "adjustments": self.adjusted.plain(),
            "total": self.total.plain(),
            "by_model": _plain("model", self.models),
            "by_day": _plain("day", self.days),
            "by_adjusted_period": _plain("period", self.adjustments),
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
    return Statement(
        tenant=tenant,
        period=period,
        buckets=_by([each.line.bucket for each in own], own),
        models=_by([each.line.model for each in own], own),
        days=_by([each.line.day for each in own], own),
        adjustments=_by([each.line.effective_period for each in late], late),
        unknown=ledger.unknown(tenant, period),
    )


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


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    cost = charge = events = 0
    for each in amounts:
        cost += each.cost
        charge += each.charge
        events += each.events
    return Amounts(cost, charge, events)


def _plain(name: str, parts: dict[str, Amounts]) -> list[dict[str, Any]]:
    return [{name: each, **amounts.plain()} for each, amounts in parts.items()]
