"""What `doctor` shows of the writers: where they run, their lag, gaps, refusals, what waits."""

from __future__ import annotations

from collections import Counter
from itertools import compress
from typing import Any

import msgspec

from costspan.cli.finding import most
from costspan.cli.moments import age, when
from costspan.cli.printing import Column, Page, counted
from costspan.core.read.writers import Writer

SHOWN_MAX = 12
"""Writers are as many as processes ever were: the table has those to look at, and the latest."""
_COLUMNS = (
    Column("writer", whole=True),
    Column("host"),
    Column("pid", is_number=True),
    Column("last record"),
    Column("records", is_number=True),
    Column("missing", is_number=True),
    Column("waiting", is_number=True),
    Column("live", is_number=True),
    Column("refused"),
)


def plain_writer(each: Writer, now_ns: int) -> dict[str, Any]:
    """A writer as plain JSON values."""
    plain: dict[str, Any] = msgspec.to_builtins(each)
    plain["last_at"] = None if each.last_at is None else when(each.last_at)
    return {**plain, "lag_seconds": each.lag_seconds(now_ns)}


def print_writers(page: Page, writers: list[Writer], now_ns: int) -> None:
    """For people: those with gaps or refusals first, then those last heard of."""
    if not writers:
        return
    # Sorting keeps the order of the rest: the latest first.
    ordered = sorted(writers, key=lambda each: not (each.missing or each.refused))
    troubled = sum(bool(each.missing or each.refused) for each in writers)
    live = sum(bool(each.live) for each in writers)
    said = f"{counted(len(writers), 'writer')}: {live} live here, {troubled} with gaps or refusals"
    page.line(said)
    rows = [_row(each, now_ns) for each in ordered[:SHOWN_MAX]]
    # A terminal is narrow: there a column that says nothing has no place.
    wanted = [any(row[at] for row in rows) or not page.is_terminal for at in range(len(_COLUMNS))]
    page.table([*compress(_COLUMNS, wanted)], ([*compress(row, wanted)] for row in rows))
    if (more := len(ordered) - SHOWN_MAX) > 0:
        page.line(f"and {more:,} more: doctor --json has them all", "dim")
    page.line()


def _row(each: Writer, now_ns: int) -> list[str]:
    lag = "unknown" if each.last_at is None else f"{age(now_ns - each.last_at)} ago"
    return [
        each.writer,
        each.host or "unknown",
        "unknown" if each.pid is None else str(each.pid),
        lag,
        f"{each.records:,}",
        f"{each.missing:,}" if each.missing else "",
        f"{each.waiting:,}" if each.waiting else "",
        f"{each.live:,}" if each.live else "",
        most(Counter(each.refused)) if each.refused else "",
    ]
