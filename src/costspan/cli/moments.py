"""Times as people write and read them: UTC, to and from nanoseconds, without a float."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from costspan.cli.exits import UsageError
from costspan.core.read.grouping import check_period
from costspan.core.read.words import day, lasted, when

__all__ = ["age", "day", "lasted", "moment_ns", "period", "span", "when"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_SECONDS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def moment_ns(text: str) -> int:
    """The ns UTC of an ISO date or datetime; one without a zone is UTC.

    Raises:
        UsageError: if it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{text!r} is no date: write 2026-11-01 or 2026-11-01T12:30:00Z (UTC unless said)"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def period(text: str) -> str:
    """A period as it is written, YYYY-MM.

    Raises:
        UsageError: if it is none.
    """
    try:
        return check_period(text)
    except ValueError as error:
        raise UsageError(str(error)) from error


def span(start_ns: int | None, end_ns: int | None) -> str:
    """A half-open span of price validity, in days."""
    if start_ns is None and end_ns is None:
        return "any date"
    start = "" if start_ns is None else day(start_ns)
    end = "" if end_ns is None else day(end_ns)
    return f"{start}..{end}"


def age(ns: int) -> str:
    """A length of time in its largest whole unit."""
    seconds = max(0, ns // 10**9)
    for name, length in _UNITS_SECONDS:
        if seconds >= length:
            count = seconds // length
            return f"{count} {name}{'s' if count > 1 else ''}"
    return "less than a second"
