"""Sums by any field, from what each event has in the books.

The same sums are taken from the roll-up of the postings, and every event's lines are compared with
its decision: where any of these differ, the books are not `balanced`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from costspan.core.decide.decision import PLATFORM, UNATTRIBUTED
from costspan.core.money import format_usd
from costspan.core.schema import FIELDS
from costspan.core.settle.ledger import Amount, Ledger, Line, Settled

LINE_FIELDS = ("owner", "bucket", "pool", "period", "day", "model")
"""Where an amount stands; `model` is the executed model, `period` the effective one."""
DECISION_FIELDS = ("cause", "initiator", "outcome", "driver")
LABEL = "label:"


class Selection(NamedTuple):
    """Which events: a period (YYYY-MM) and a half-open span of start times (ns UTC)."""

    period: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def is_span(self) -> bool:
        """Whether single events must be looked at."""
        return self.since is not None or self.until is not None

    def has(self, each: Settled) -> bool:
        """Whether an event is selected."""
        started = each.event.facts.started_at or each.event.facts.recorded_at or 0
        if self.since is not None and started < self.since:
            return False
        if self.until is not None and started >= self.until:
            return False
        if self.period is None:
            return True
        if each.posted:
            return any(line.effective_period == self.period for line, _ in each.posted)
        return _month(started) == self.period


def _month(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m")


class Sums(msgspec.Struct):
    """Totals in pico-USD and counts."""

    cost: int = 0
    charge: int = 0
    platform: int = 0
    unattributed: int = 0
    unpriced: int = 0
    open: int = 0
    balanced: bool = True


class Grouping:
    """Sums of lines by some fields.

    Raises:
        ValueError: for a field that does not exist.
    """

    def __init__(self, fields: tuple[str, ...]) -> None:
        fields = tuple("owner" if field == "tenant" else field for field in fields)
        for field in fields:
            known = field in (*LINE_FIELDS, *DECISION_FIELDS, *FIELDS) or (
                field.startswith(LABEL) and len(field) > len(LABEL)
            )
            if not known:
                raise ValueError(
                    f"there is no field {field!r} to group by: use {', '.join(LINE_FIELDS)},"
                    f" {', '.join(DECISION_FIELDS)}, any field of the schema, or label:KEY"
                )
        self.fields = fields

    def of(self, ledger: Ledger, selection: Selection) -> tuple[list[dict[str, Any]], Sums]:
        """(rows sorted by key, totals). `events` counts an event once in every row it stands in."""
        sums = Sums()
        groups: dict[tuple[str, ...], list[int]] = {}
        for each in ledger.events():
            if not selection.has(each):
                continue
            _count(each, sums)
            seen: set[tuple[str, ...]] = set()
            for line, amount in each.posted:
                if selection.period in (None, line.effective_period):
                    key = self._key(each, line)
                    _add(groups, key, line, amount, key not in seen, sums)
                    seen.add(key)
        if not selection.is_span:
            rolled = [0, 0]
            for roll_up in ledger.roll_ups(selection.period):
                rolled[0] += roll_up.cost
                rolled[1] += roll_up.charge
            sums.balanced = sums.balanced and rolled == [sums.cost, sums.charge]
        return list(self._rows(groups)), sums

    def _key(self, each: Settled, line: Line) -> tuple[str, ...]:
        return tuple(self._value(each, line, field) for field in self.fields)

    def _value(self, each: Settled, line: Line, field: str) -> str:
        if field in LINE_FIELDS:
            return _of_line(line, field)
        if field.startswith(LABEL):
            labels = each.event.facts.labels or {}
            return labels.get(field.removeprefix(LABEL), "")
        if field in DECISION_FIELDS and each.decision is not None:
            return getattr(each.decision, field) or ""
        value = getattr(each.event.facts, field)
        if value is None:
            return ""
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    def _rows(self, groups: dict[tuple[str, ...], list[int]]) -> Iterator[dict[str, Any]]:
        for key, (cost, charge, events) in sorted(groups.items()):
            if events or cost or charge:
                yield {
                    **dict(zip(self.fields, key, strict=True)),
                    "cost": format_usd(cost),
                    "charge": format_usd(charge),
                    "events": events,
                }


def _of_line(line: Line, field: str) -> str:
    name = "effective_period" if field == "period" else field
    return getattr(line, name) or ""


def _count(each: Settled, sums: Sums) -> None:
    decision = each.decision
    if decision is None:
        sums.open += 1
        return
    if decision.cost is None:
        sums.unpriced += 1
    posted_cost = sum(amount.cost for _, amount in each.posted)
    if decision.is_money and decision.cost is not None and posted_cost != decision.cost:
        sums.balanced = False


def _add(
    groups: dict[tuple[str, ...], list[int]],
    key: tuple[str, ...],
    line: Line,
    amount: Amount,
    is_new: bool,
    sums: Sums,
) -> None:
    group = groups.setdefault(key, [0, 0, 0])
    group[0] += amount.cost
    group[1] += amount.charge
    group[2] += is_new
    sums.cost += amount.cost
    sums.charge += amount.charge
    if line.owner == PLATFORM:
        sums.platform += amount.cost
    elif line.owner == UNATTRIBUTED:
        sums.unattributed += amount.cost
