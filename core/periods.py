"""Billing periods: months of UTC, half-open, written YYYY-MM, which sort as texts do."""

from __future__ import annotations

import re
from datetime import UTC, datetime

NO_PERIOD = "0000-00"
"""The period of an event that nobody gave a time: before all others."""

# Not the first and the last year of dates: every month has a month before and one after.
_PERIOD = re.compile(r"(?!0000|9999)[0-9]{4}-(?:0[1-9]|1[0-2])")


def is_period(text: str) -> bool:
    """Whether this is a month, YYYY-MM."""
    return _PERIOD.fullmatch(text) is not None


def month_after(period: str) -> str:
    """The month after one."""
    year, month = int(period[:4]), int(period[5:])
    return f"{year + month // 12:04}-{month % 12 + 1:02}"


def month_before(period: str) -> str:
    """The month before one."""
    year, month = int(period[:4]), int(period[5:])
    return f"{year - (month == 1):04}-{(month - 2) % 12 + 1:02}"


def month_of(at_ns: int) -> str:
    """The month of a moment (ns UTC)."""
    return datetime.fromtimestamp(at_ns // 10**9, UTC).strftime("%Y-%m")
