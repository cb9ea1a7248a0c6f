"""Which events a sheet is about, and which of its rows each belongs to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from costspan.core.money import format_usd
from costspan.core.periods import is_period
from costspan.core.read.directory import Directory
from costspan.core.schema import FIELDS
from costspan.core.settle.entries import Line, Settled
from costspan.core.settle.free import LAST_DAY
from costspan.core.settle.posting import counts_at, day_of, effective_of

LINE_FIELDS = ("owner", "bucket", "pool", "period", "day", "model")
"""Where an amount stands; `model` is the executed model, `period` the effective one."""
DECISION_FIELDS = ("cause", "initiator", "outcome", "driver")
DIRECTORY_FIELDS = ("cost_centre", "parent_tenant")
"""What the tenant directory says of an owner; `parent` is another thing: that of an event."""
LABEL = "label:"
_NS_PER_DAY = 86_400 * 10**9
_DAYS_END_NS = 2_932_897 * _NS_PER_DAY  # of the year 9999

Key = tuple[str, ...]


def check_period(text: str) -> str:
    """A period as it is written, YYYY-MM.

    Raises:
        ValueError: if it is none.
    """
    if not is_period(text):
        raise ValueError(f"{text!r} is no period: write YYYY-MM, such as 2026-11")
    return text


class Selection(NamedTuple):
    """Which events: an effective period (YYYY-MM) and a half-open span of time (ns UTC).

    The time of an event is that of its day in the books: its start, a batch's completion.
    """

    period: str | None = None
    since: int | None = None
    until: int | None = None

    @property
    def days(self) -> tuple[str | None, str | None] | None:
        """(first day, day after the last), None where open; None if the span cuts through days."""
        found: list[str | None] = []
        for at in (self.since, self.until):
            if at is not None and (at % _NS_PER_DAY or not 0 <= at < _DAYS_END_NS):
                return None
            found.append(None if at is None else day_of(at))
        return found[0], found[1]

    def has_free(self, line: Line) -> bool:
        """Whether a line of free postings is within the span: without a day, as its month ends."""
        day = line.day or line.effective_period + LAST_DAY
        if self.since is not None and day < day_of(self.since):
            return False
        return self.until is None or day < day_of(self.until)

    def has(self, each: Settled) -> bool:
        """Whether an event is selected. One that nobody gave a time was before all others."""
        if self.since is not None or self.until is not None:
            at = counts_at(each.event, each.decision)
            if self.since is not None and (at is None or at < self.since):
                return False
            if self.until is not None and at is not None and at >= self.until:
                return False
        return self.period is None or self.period == effective_of(each.event, each.decision)[0]


class Group(msgspec.Struct):
    """The sums of a group in pico-USD; `unpriced` events are of unknown cost and in no sum."""

    cost: int = 0
    charge: int = 0
    events: int = 0
    unpriced: int = 0


class Grouping:
    """The fields that the rows of a sheet are by.

    Those of the directory are what it says of an owner on the last day of an amount's effective
    period. `@platform` and `@unattributed` are in no directory: there they stand by themselves.

    Raises:
        ValueError: for a field that does not exist, or one of a directory that is not there.
    """

    def __init__(self, fields: tuple[str, ...], directory: Directory | None = None) -> None:
        fields = tuple("owner" if field == "tenant" else field for field in map(str.strip, fields))
        for field in fields:
            if field in DIRECTORY_FIELDS and directory is None:
                raise ValueError(f"{field} is of the tenant directory, and none is given here")
            known = field in (*LINE_FIELDS, *DIRECTORY_FIELDS, *DECISION_FIELDS, *FIELDS) or (
                field.startswith(LABEL) and len(field) > len(LABEL)
            )
            if not known:
                raise ValueError(
                    f"there is no field {field!r} to group by: use {', '.join(LINE_FIELDS)},"
                    f" {', '.join(DIRECTORY_FIELDS)}, {', '.join(DECISION_FIELDS)}, any field of"
                    " the schema, or label:KEY"
                )
        self.fields = fields
        self._values = [_value_of(field, directory) for field in fields]
        self._of_line = [_of_line(field, directory) for field in fields]

    @property
    def of_line(self) -> tuple[str, ...] | None:
        """What must be known of a line, as `Line` names it; None if a line does not tell all."""
        if not set(self.fields) <= {*LINE_FIELDS, *DIRECTORY_FIELDS}:
            return None
        names = [name for field in self.fields for name in _names_of(field)]
        return tuple(dict.fromkeys(names))

    def key_of_line(self, said: Mapping[str, str]) -> Key:
        """The row that a line belongs to, by what it says of each name in `of_line`."""
        return tuple([value(said) for value in self._of_line])

    def key(self, each: Settled, line: Line) -> Key:
        """The row that an event belongs to on one of its lines."""
        return tuple([value(each, line) for value in self._values])

    def rows(self, groups: dict[Key, Group]) -> Iterator[tuple[dict[str, Any], int]]:
        """(row, events of unknown cost that belong to it), sorted by key."""
        for key, group in sorted(groups.items()):
            row: dict[str, Any] = dict(zip(self.fields, key, strict=True))
            if group.events or group.cost or group.charge:
                row["cost"], row["charge"] = format_usd(group.cost), format_usd(group.charge)
                yield {**row, "events": group.events}, group.unpriced
            elif group.unpriced:
                row |= {"cost": None, "charge": None, "events": group.unpriced}
                yield row, group.unpriced


def _name_of(field: str) -> str:
    return "effective_period" if field == "period" else field


def _names_of(field: str) -> tuple[str, ...]:
    return ("owner", "effective_period") if field in DIRECTORY_FIELDS else (_name_of(field),)


def _of_line(field: str, directory: Directory | None) -> Callable[[Mapping[str, str]], str]:
    """What reads a field off what is known of a line."""
    if field in DIRECTORY_FIELDS and directory is not None:
        said_by = directory
        return lambda said: _placed(said_by, field, said["owner"], said["effective_period"])
    name = _name_of(field)
    return lambda said: said[name]


def _placed(directory: Directory, field: str, owner: str, period: str) -> str:
    if owner.startswith("@"):
        return owner
    entry = directory.at(owner, period + LAST_DAY)
    if entry is None:
        return ""
    return (entry.cost_centre if field == "cost_centre" else entry.parent) or ""


def _value_of(field: str, directory: Directory | None) -> Callable[[Settled, Line], str]:
    """What reads a field off an event on one of its lines, as text."""
    if field in DIRECTORY_FIELDS and directory is not None:
        said_by = directory
        return lambda _, line: _placed(said_by, field, line.owner, line.effective_period)
    if field in LINE_FIELDS:
        name = _name_of(field)
        return lambda _, line: getattr(line, name) or ""
    if field.startswith(LABEL):
        label = field.removeprefix(LABEL)
        return lambda each, _: (each.event.facts.labels or {}).get(label, "")
    if field == "flags":
        return lambda each, _: ", ".join(sorted({*_decided(each), *each.event.facts.flags}))
    if field in DECISION_FIELDS:
        return lambda each, _: getattr(each.decision or each.event.facts, field) or ""
    return lambda each, _: _text(getattr(each.event.facts, field))


def _decided(each: Settled) -> Sequence[str]:
    return () if each.decision is None else each.decision.flags


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
