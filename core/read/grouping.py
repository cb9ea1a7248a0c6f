"""Sums by any field, from what each event has in the books.

The same sums are taken from the roll-up of the postings, and every event's lines are compared with
its decision: where any of these differ, the books are not `balanced`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from costspan.core.decide.decision import PLATFORM, UNATTRIBUTED, Decision
from costspan.core.money import format_usd
from costspan.core.schema import FIELDS
from costspan.core.settle.ledger import Amount, Ledger, Line, Settled

LINE_FIELDS = ("owner", "bucket", "pool", "period", "day", "model")
"""Where an amount stands; `model` is the executed model, `period` the effective one."""
DECISION_FIELDS = ("cause", "initiator", "outcome", "driver")
LABEL = "label:"
_PERIOD = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])", re.ASCII)


def check_period(text: str) -> str:
    """A period as it is written, YYYY-MM.

    Raises:
        ValueError: if it is none.
    """
    if not _PERIOD.fullmatch(text):
        raise ValueError(f"{text!r} is no period: write YYYY-MM, such as 2026-11")
    return text


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
        return _day(started)[:7] == self.period


def _day(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m-%d")


class Group(msgspec.Struct):
    """The sums of a group in pico-USD; `unpriced` events are of unknown cost and in no sum."""

    cost: int = 0
    charge: int = 0
    events: int = 0
    unpriced: int = 0


class Sums(msgspec.Struct):
    """Totals in pico-USD and counts; `unpriced` counts the swept ones of unknown cost too."""

    cost: int = 0
    charge: int = 0
    platform: int = 0
    unattributed: int = 0
    unpriced: int = 0
    open: int = 0
    swept: int = 0
    balanced: bool = True


class Grouping:
    """Sums of lines by some fields.

    Raises:
        ValueError: for a field that does not exist.
    """

    def __init__(self, fields: tuple[str, ...]) -> None:
        fields = tuple("owner" if field == "tenant" else field for field in map(str.strip, fields))
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

    def of(
        self, ledger: Ledger, selection: Selection
    ) -> tuple[list[tuple[dict[str, Any], int]], Sums]:
        """(rows sorted by key, each with how many events of unknown cost belong to it; totals).

        `events` counts an event once in every row it stands in. A row of nothing but events of
        unknown cost counts them, and its amounts are None.
        """
        sums = Sums()
        groups: dict[tuple[str, ...], Group] = {}
        for each in ledger.events():
            if not selection.has(each):
                continue
            _count(each, sums)
            if each.decision is not None and each.decision.cost is None:
                line = _would_be(each, each.decision)
                groups.setdefault(self._key(each, line), Group()).unpriced += 1
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
        if field == "flags":
            decided = () if each.decision is None else each.decision.flags
            return ", ".join(sorted({*decided, *each.event.facts.flags}))
        if field in DECISION_FIELDS and each.decision is not None:
            return getattr(each.decision, field) or ""
        value = getattr(each.event.facts, field)
        if value is None:
            return ""
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()

    def _rows(self, groups: dict[tuple[str, ...], Group]) -> Iterator[tuple[dict[str, Any], int]]:
        for key, group in sorted(groups.items()):
            row: dict[str, Any] = dict(zip(self.fields, key, strict=True))
            if group.events or group.cost or group.charge:
                row["cost"], row["charge"] = format_usd(group.cost), format_usd(group.charge)
                yield {**row, "events": group.events}, group.unpriced
            elif group.unpriced:
                yield (
                    {**row, "cost": None, "charge": None, "events": group.unpriced},
                    group.unpriced,
                )


def _of_line(line: Line, field: str) -> str:
    name = "effective_period" if field == "period" else field
    return getattr(line, name) or ""


def _would_be(each: Settled, decision: Decision) -> Line:
    """The line an event of unknown cost would stand on."""
    facts, at_ns = each.event.facts, each.event.at_ns
    if decision.cause == "batch":
        at_ns = facts.ended_at or at_ns
    model = facts.executed_model or facts.requested_model or ""
    day = "" if at_ns is None else _day(at_ns)
    period = facts.effective_period or day[:7]
    return Line(decision.owner, decision.bucket, None, period, day, model)


def _count(each: Settled, sums: Sums) -> None:
    decision = each.decision
    sums.swept += each.event.is_swept
    if decision is None:
        sums.open += 1
        return
    if decision.cost is None:
        sums.unpriced += 1
    posted_cost = sum(amount.cost for _, amount in each.posted)
    if decision.is_money and decision.cost is not None and posted_cost != decision.cost:
        sums.balanced = False


def _add(
    groups: dict[tuple[str, ...], Group],
    key: tuple[str, ...],
    line: Line,
    amount: Amount,
    is_new: bool,
    sums: Sums,
) -> None:
    group = groups.setdefault(key, Group())
    group.cost += amount.cost
    group.charge += amount.charge
    group.events += is_new
    sums.cost += amount.cost
    sums.charge += amount.charge
    if line.owner == PLATFORM:
        sums.platform += amount.cost
    elif line.owner == UNATTRIBUTED:
        sums.unattributed += amount.cost
