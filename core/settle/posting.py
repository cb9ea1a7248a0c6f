"""What should stand in the books for an event, and the entries that bring it there."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from costspan.core.decide import Decision
from costspan.core.join import Event
from costspan.core.periods import NO_PERIOD, is_period, month_after
from costspan.core.settle.entries import Amount, Line, Posted, Posting

_NOTHING = Amount(0, 0)
_NS_PER_DAY = 86_400 * 10**9
_days: dict[int, str] = {}
_DAYS_MAX = 4096


def target_of(event: Event, decision: Decision | None) -> Posted:
    """What should stand for an event: nothing while it is open, no money, or of unknown cost."""
    if decision is None or decision.cost is None or not decision.is_money:
        return ()
    period, day = effective_of(event, decision)
    model = event.facts.executed_model or event.facts.requested_model or ""
    lines = [
        (
            Line(share.owner, share.bucket, share.pool, period, day, model),
            Amount(share.cost, share.charge),
        )
        for share in decision.shares
    ]
    return tuple(lines if len(lines) < 2 else sorted(lines, key=_line_order))


def would_be(event: Event, decision: Decision) -> Line:
    """The line that an event of unknown cost would stand on."""
    period, day = effective_of(event, decision)
    model = event.facts.executed_model or event.facts.requested_model or ""
    return Line(decision.owner, decision.bucket, None, period, day, model)


def counts_at(event: Event, decision: Decision | None) -> int | None:
    """When an event counts (ns UTC): when it started, a batch when it was completed."""
    cause = event.facts.cause if decision is None else decision.cause
    if cause == "batch":
        return event.facts.ended_at or event.at_ns
    return event.at_ns


def effective_of(event: Event, decision: Decision | None) -> tuple[str, str]:
    """(period, day) an event belongs to, UTC."""
    facts = event.facts
    at = counts_at(event, decision)
    day = "" if at is None else day_of(at)
    for said in (facts.effective_period, day[:7], facts.period):
        if said and is_period(said):
            return said, day
    return NO_PERIOD, day


def day_of(at_ns: int) -> str:
    """The day of a moment (ns UTC), YYYY-MM-DD."""
    number = at_ns // _NS_PER_DAY
    day = _days.get(number)
    if day is None:
        if len(_days) >= _DAYS_MAX:
            _days.clear()
        day = _days[number] = datetime.fromtimestamp(number * 86_400, UTC).date().isoformat()
    return day


def entries_of(
    event: Event, posted: Posted, target: Posted, closed_until: str | None
) -> list[Posting]:
    """Target - posted, line by line; a line that comes or goes is an entry even at zero."""
    if posted == target:
        return []
    said = said_period(event)
    was, now = dict(posted), dict(target)
    entries: list[Posting] = []
    for line in was.keys() | now.keys() if posted else now:
        old, new = was.get(line), now.get(line)
        if old != new:
            less, more = old or _NOTHING, new or _NOTHING
            change = Amount(more.cost - less.cost, more.charge - less.charge)
            stands = (new is not None) - (old is not None)
            period = posted_period(said or line.effective_period, closed_until)
            entries.append(Posting(event.id, line, period, change, stands))
    if len(entries) > 1:
        entries.sort(key=lambda entry: _line_order((entry.line, entry.amount)))
    return entries


def withdrawal_of(
    event_id: str, posted: Posted, said: str | None, closed_until: str | None
) -> Iterable[Posting]:
    """The entries that take back what was posted for an event that is none any more."""
    for line, amount in posted:
        period = posted_period(said or line.effective_period, closed_until)
        yield Posting(event_id, line, period, Amount(-amount.cost, -amount.charge), -1)


def said_period(event: Event) -> str | None:
    """The period that an import says the event's entries were posted in."""
    said = event.facts.period
    return said if said is not None and is_period(said) else None


def posted_period(period: str, closed_until: str | None) -> str:
    """The period an entry is posted in: its own, or the first that is open after it."""
    if closed_until is None or period > closed_until:
        return period
    return month_after(closed_until)


def _line_order(item: tuple[Line, Amount]) -> tuple[str, ...]:
    line = item[0]
    return (line.owner, line.bucket, line.pool or "", line.effective_period, line.day, line.model)
