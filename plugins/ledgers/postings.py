"""What is read of the postings and their lines, and how a question about lines is narrowed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from costspan.core.settle.entries import Amount, Line, Posted, Posting
from costspan.core.settle.free import FREE_BUCKETS, LAST_DAY
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.controls import ControlTables
from costspan.plugins.ledgers.line_rows import NAMES, line_of
from costspan.plugins.ledgers.queries import Row

LINE_COLUMNS = 8
IN_ORDER = "ORDER BY owner, bucket, pool, effective_period, day, model, posted_period"
_FREE = ", ".join(f"'{bucket}'" for bucket in sorted(FREE_BUCKETS))
_DAY = f"""(CASE WHEN day = '' AND bucket IN ({_FREE})
    THEN effective_period || '{LAST_DAY}' ELSE day END)"""
_IF_FURTHER = """
    ON CONFLICT (sink) DO UPDATE SET posting = excluded.posting, crc = excluded.crc
    WHERE excluded.posting > cursors.posting"""


class PostingLookUps(ControlTables):
    """The entries as they stand, and the cursors of those who take them."""

    def _posted_for(self, event_ids: Collection[str]) -> dict[str, Posted]:
        """Event id -> what its postings sum up to on each line that is left."""
        sums: dict[str, dict[Line, list[int]]] = {}
        for row in self._ask.among(_entries("event_id IN ({keys})"), event_ids):
            _, each = _posting(row)
            total = sums.setdefault(each.event_id, {}).setdefault(each.line, [0, 0, 0])
            total[0] += each.amount.cost
            total[1] += each.amount.charge
            total[2] += each.events
        return {event_id: _left(of) for event_id, of in sums.items()}

    def find_postings(
        self, where: str, *bound: Any, at_most: int = -1
    ) -> list[tuple[int, Posting]]:
        """(number, posting) in order of number; `where` is a condition of our own, values bound.

        So many at most, if that is not negative.
        """
        sql = _entries(where)
        if at_most >= 0:
            sql, bound = f"{sql} LIMIT ?", (*bound, at_most)
        return list(map(_posting, self._ask.rows(sql, *bound)))

    def each_posting(self, where: str, *bound: Any) -> Iterator[tuple[int, Posting]]:
        """As `find_postings`, of any number of them."""
        return map(_posting, self._ask.each(_entries(where), *bound))

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        return {row[0]: row[1] for row in self._ask.rows("SELECT sink, posting FROM cursors")}

    def move_cursor(self, sink: str, number: int) -> None:
        """Keep that a sink has taken every posting up to this number; it never goes back."""
        self._ask.insert("cursors", [(sink, number, checksum(sink, number))], _IF_FURTHER)


def of_lines(**only: str | None) -> tuple[str, list[str]]:
    """A condition on columns of our own naming, and the values to bind."""
    named = {column: value for column, value in only.items() if value is not None}
    return " AND ".join(["TRUE", *(f"{column} = ?" for column in named)]), list(named.values())


def of_days(
    by: Sequence[str], since_day: str | None, until_day: str | None, **only: str | None
) -> tuple[str, list[str]]:
    """The same, of days from one on and before another, for sums by some fields of `Line`.

    Raises:
        ValueError: if a line has no such field.
    """
    unknown = set(by) - set(Line.__struct_fields__)
    if unknown:
        raise ValueError(f"no fields of a line: {sorted(unknown)}")
    where, bound = of_lines(**only)
    for day, comparison in ((since_day, ">= ?"), (until_day, "< ?")):
        if day is not None:
            where += f" AND {_DAY} {comparison}"
            bound.append(day)
    return where, bound


def _entries(where: str) -> str:
    return f"""
        SELECT {NAMES}, postings.id, event_id, postings.cost, postings.charge, postings.events
        FROM postings JOIN lines ON lines.id = line WHERE {where} ORDER BY postings.id"""  # noqa: S608


def _posting(row: Row) -> tuple[int, Posting]:
    line, posted_period = line_of(row[:LINE_COLUMNS])
    number, event_id, cost, charge, events = row[LINE_COLUMNS:]
    return number, Posting(event_id, line, posted_period, Amount(cost, charge), events)


def _left(sums: dict[Line, list[int]]) -> Posted:
    lines = [
        (line, Amount(cost, charge))
        for line, (cost, charge, n) in sums.items()
        if n or (line.bucket in FREE_BUCKETS and (cost or charge))
    ]
    return tuple(sorted(lines, key=lambda item: [part or "" for part in _parts(item[0])]))


def _parts(line: Line) -> tuple[str | None, ...]:
    return (line.owner, line.bucket, line.pool, line.effective_period, line.day, line.model)
