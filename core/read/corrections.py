"""What was posted for an event, what was corrected by hand, by whom and why."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import msgspec

from costspan.core.join import Event
from costspan.core.journal.records import POLICY_BOOKS, Assignment, Close, Restatement
from costspan.core.money import format_usd
from costspan.core.settle.corrections import names_of
from costspan.core.settle.entries import Posting, Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.posting import effective_of


class Entry(msgspec.Struct, frozen=True):
    """A posting, amounts as decimal strings of USD.

    `is_closed`: the month it was posted in is sealed. `is_late`: it is posted in another month than
    the one it belongs to, because that was closed already.
    """

    owner: str
    bucket: str
    pool: str | None
    effective_period: str
    posted_period: str
    cost: str
    charge: str
    is_closed: bool
    is_late: bool


class Correction(msgspec.Struct, frozen=True):
    """A hand that changed what an event's evidence would have given.

    `in_force`: of several of a kind the latest counts. `recorded_at` is ns UTC.
    """

    kind: Literal["assignment", "restatement"]
    what: str
    by: str
    reason: str
    recorded_at: int
    in_force: bool


class Months:
    """Which months are sealed."""

    def __init__(self, closes: Sequence[Close]) -> None:
        self.until = max((close.period for close in closes), default="")

    def is_closed(self, period: str) -> bool:
        """Whether a close has sealed what is posted in this month."""
        return period <= self.until


def entry_of(posting: Posting, months: Months) -> Entry:
    """A posting for people."""
    line = posting.line
    return Entry(
        line.owner,
        line.bucket,
        line.pool,
        line.effective_period,
        posting.posted_period,
        format_usd(posting.amount.cost),
        format_usd(posting.amount.charge),
        months.is_closed(posting.posted_period),
        posting.posted_period != line.effective_period,
    )


class Corrections:
    """The assignments and restatements of a ledger that speak of some events."""

    def __init__(self, ledger: Ledger, events: Collection[Settled]) -> None:
        reading = ledger.reading()
        names = {name for each in events for name in names_of(each.event)}
        periods = {effective_of(each.event, None)[0] for each in events}
        corrected = bool(reading.assignments(names)) if reading.has_assignments() else False
        if reading.has_restatements():
            corrected = corrected or bool(reading.restatements(names | periods))
        # Their history is in the control records, which are read only where there is one.
        self._records: list[Assignment | Restatement] = []
        if corrected:
            self._records = [
                each
                for each in ledger.controls()
                if (isinstance(each, Assignment) and each.event in names)
                or (
                    isinstance(each, Restatement) and (each.event or each.period) in names | periods
                )
            ]

    def of(self, each: Settled) -> tuple[Correction, ...]:
        """Those that speak of one event, oldest first."""
        if not self._records:
            return ()
        names = names_of(each.event)
        period = effective_of(each.event, None)[0]
        mine = sorted(
            (
                record
                for record in self._records
                if record.event in names
                or (isinstance(record, Restatement) and record.period == period)
            ),
            key=lambda record: record.recorded_at,
        )
        return tuple(_told(mine, each.event))


def _told(records: Sequence[Assignment | Restatement], event: Event) -> Iterable[Correction]:
    last = {type(record): record for record in records}
    for record in records:
        if isinstance(record, Assignment):
            said = f"assigned to {record.tenant}"
            if record is last[Assignment] and event.facts.tenant != record.tenant:
                said += " (another of the same moment stands)"
            kind: Literal["assignment", "restatement"] = "assignment"
        else:
            said, kind = _restated(record), "restatement"
        yield Correction(
            kind, said, record.by, record.reason, record.recorded_at, record is last[type(record)]
        )


def _restated(record: Restatement) -> str:
    what = f"all of {record.period}" if record.event is None else "this event"
    parts: list[str] = []
    if record.rules is not None:
        parts.append(f"rules {record.rules[:12]}")
    if record.books is not None:
        said = ["those of the policy" if s == POLICY_BOOKS else s[:12] for s in record.books]
        parts.append(f"price books {', '.join(said)}")
    if record.charges is not None:
        parts.append(f"charge book {record.charges[:12]}")
    if not parts:
        return f"{what} decided by the policy in force again"
    return f"{what} decided again with {' and '.join(parts)}"
