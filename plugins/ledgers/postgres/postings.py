"""The postings: appended, never changed, and added up on their lines in the same statement."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from costspan.core.settle.entries import Amount, Line, Posted, Posting, RollUp, Sum
from costspan.core.settle.free import FREE_BUCKETS, LAST_DAY
from costspan.plugins.ledgers.postgres.database import Database, Row
from costspan.plugins.ledgers.postgres.journal import JournalTables
from costspan.plugins.ledgers.postgres.lines import Lines
from costspan.plugins.ledgers.postgres.rebuilding import begin_after, last_number
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.lines import NAMES, line_of

_LINE_COLUMNS = 8
_POSTINGS = {
    "id": "bigint", "event_id": "text", "line": "bigint", "cost": "bigint", "charge": "bigint",
    "events": "bigint",
}  # fmt: skip
_FREE = ", ".join(f"'{bucket}'" for bucket in sorted(FREE_BUCKETS))
_DAY = f"""(CASE WHEN day = '' AND bucket IN ({_FREE})
    THEN effective_period || '{LAST_DAY}' ELSE day END)"""
_IN_ORDER = "ORDER BY owner, bucket, pool, effective_period, day, model, posted_period"


class PostingTables(JournalTables):
    """Entries and roll-ups; every write is in the caller's transaction."""

    def __init__(self, db: Database, lines: Lines) -> None:
        super().__init__(db)
        self._lines = lines

    def post(self, postings: Collection[Posting]) -> None:
        """Append postings and roll them up, in this transaction."""
        self._append([(None, posting) for posting in postings])

    def copy_postings(self, numbered: Collection[tuple[int, Posting]]) -> None:
        """Append postings of another ledger under their own numbers, and roll them up."""
        self._append(numbered)
        sql = "INSERT INTO copied SELECT unnest(%b::text[]) ON CONFLICT DO NOTHING"
        self._db.run(sql, [each.event_id for _, each in numbered])
        begin_after(self._db, last_number(self._db))  # these numbers are taken

    def _append(self, numbered: Collection[tuple[int | None, Posting]]) -> None:
        if not numbered:
            return
        keys = [(posting.line, posting.posted_period) for _, posting in numbered]
        numbers = self._lines.numbers(self._db, keys)
        is_numbered = False
        rows: list[Row] = []
        for at, ((number, posting), key) in enumerate(zip(numbered, keys, strict=True)):
            is_numbered |= number is not None
            cost, charge = posting.amount.cost, posting.amount.charge
            rows.append(
                (at if number is None else number, posting.event_id, numbers[key], cost, charge,
                 posting.events)
            )  # fmt: skip
        source, bound = self._db.load("entries", _POSTINGS, rows)
        columns = list(_POSTINGS) if is_numbered else list(_POSTINGS)[1:]
        # What is rolled up is what was really inserted. Numbers are given in the order of `id`.
        sql = f"""
            WITH inserted AS (
                INSERT INTO postings ({", ".join(columns)})
                SELECT {", ".join(columns)} FROM {source} ORDER BY id
                RETURNING line, cost, charge, events
            ), added AS (
                SELECT line, sum(cost) AS cost, sum(charge) AS charge, sum(events) AS events
                FROM inserted GROUP BY line
            )
            UPDATE lines SET cost = lines.cost + added.cost, charge = lines.charge + added.charge,
                             events = lines.events + added.events
            FROM added WHERE lines.id = added.line"""  # noqa: S608
        self._db.run(sql, *bound)

    # --- reading -------------------------------------------------------------------------------

    def posted_for(self, event_id: str) -> Posted:
        """What an event's postings sum up to on each line that is left."""
        return self._posted_for([event_id]).get(event_id, ())

    def _posted_for(self, event_ids: Collection[str]) -> dict[str, Posted]:
        sums: dict[str, dict[Line, list[int]]] = {}
        where = "event_id = ANY(%b::text[])"
        for _, each in self.find_postings(where, list(event_ids)):
            total = sums.setdefault(each.event_id, {}).setdefault(each.line, [0, 0, 0])
            total[0] += each.amount.cost
            total[1] += each.amount.charge
            total[2] += each.events
        return {event_id: _left(of) for event_id, of in sums.items()}

    def find_postings(
        self, where: str, *bound: Any, at_most: int | None = None
    ) -> list[tuple[int, Posting]]:
        """(number, posting) in order of number; `where` is a condition of our own, values bound."""
        return [_posting(row) for row in self._db.rows(_entries(where), *bound, at_most)]

    def each_posting(self, where: str, *bound: Any) -> Iterator[tuple[int, Posting]]:
        """As `find_postings`, of any number."""
        return map(_posting, self._db.each(_entries(where), *bound, None))

    def roll_ups(
        self, owner: str | None, period: str | None, posted_period: str | None
    ) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on; see the protocol."""
        where, bound = _where(owner=owner, effective_period=period, posted_period=posted_period)
        sql = f"""
            SELECT {NAMES}, cost, charge, events FROM lines
            WHERE {where} AND (events != 0 OR cost != 0 OR charge != 0) {_IN_ORDER}"""  # noqa: S608
        # One owner's are few: no transaction is worth it.
        rows = self._db.rows if owner is not None else self._db.each
        return map(_roll_up, rows(sql, *bound))

    def added_up(self) -> Iterator[RollUp]:
        """What `roll_ups` should say, added up from the postings themselves."""
        sql = f"""
            SELECT {NAMES}, added.cost, added.charge, added.events FROM (
                SELECT line, sum(cost) AS cost, sum(charge) AS charge, sum(events) AS events
                FROM postings GROUP BY line
            ) AS added JOIN lines ON id = line
            WHERE added.events != 0 OR added.cost != 0 OR added.charge != 0 {_IN_ORDER}"""  # noqa: S608
        return map(_roll_up, self._db.each(sql))

    def sums(
        self, by: Sequence[str], since_day: str | None, until_day: str | None, **only: str | None
    ) -> Iterator[tuple[tuple[str, ...], Sum]]:
        """The lines added up by some fields of `Line`; see the protocol."""
        unknown = set(by) - set(Line.__struct_fields__)
        if unknown:
            raise ValueError(f"no fields of a line: {sorted(unknown)}")
        where, bound = _where(**only)
        for day, comparison in ((since_day, ">= %s"), (until_day, "< %s")):
            if day is not None:
                where += f" AND {_DAY} {comparison}"
                bound.append(day)
        keys = "".join(f"{name}, " for name in by)
        grouped = f"GROUP BY {', '.join(by)}" if by else ""
        sql = f"""
            SELECT {keys} coalesce(sum(cost), 0), coalesce(sum(charge), 0),
                   coalesce(sum(events), 0)
            FROM lines WHERE {where} {grouped}"""  # noqa: S608
        for row in self._db.each(sql, *bound):
            cost, charge, events = row[len(by) :]
            yield row[: len(by)], Sum(int(cost), int(charge), int(events))

    # --- sinks ---------------------------------------------------------------------------------

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        return {row[0]: row[1] for row in self._db.rows("SELECT sink, posting FROM cursors")}

    def move_cursor(self, sink: str, number: int) -> None:
        """Keep that a sink has taken every posting up to this number; it never goes back."""
        sql = """
            INSERT INTO cursors VALUES (%s, %s, %s)
            ON CONFLICT (sink) DO UPDATE SET posting = excluded.posting, crc = excluded.crc
            WHERE excluded.posting > cursors.posting"""
        self._db.run(sql, sink, number, checksum(sink, number))


def _entries(where: str) -> str:
    return f"""
        SELECT {NAMES}, postings.id, event_id, postings.cost, postings.charge, postings.events
        FROM postings JOIN lines ON lines.id = line WHERE {where}
        ORDER BY postings.id LIMIT %s::bigint"""  # noqa: S608


def _posting(row: Row) -> tuple[int, Posting]:
    line, posted_period = line_of(row[:_LINE_COLUMNS])
    number, event_id, cost, charge, events = row[_LINE_COLUMNS:]
    return number, Posting(event_id, line, posted_period, Amount(cost, charge), events)


def _roll_up(row: Row) -> RollUp:
    line, posted_period = line_of(row[:_LINE_COLUMNS])
    cost, charge, events = row[_LINE_COLUMNS:]
    return RollUp(line, posted_period, int(cost), int(charge), int(events))


def _left(sums: dict[Line, list[int]]) -> Posted:
    lines = [
        (line, Amount(cost, charge))
        for line, (cost, charge, n) in sums.items()
        if n or (line.bucket in FREE_BUCKETS and (cost or charge))
    ]
    return tuple(sorted(lines, key=lambda item: [part or "" for part in _parts(item[0])]))


def _where(**only: str | None) -> tuple[str, list[str]]:
    """A condition on columns of our own naming, and the values to bind."""
    named = {column: value for column, value in only.items() if value is not None}
    return " AND ".join(["TRUE", *(f"{column} = %s" for column in named)]), list(named.values())


def _parts(line: Line) -> tuple[str | None, ...]:
    return (line.owner, line.bucket, line.pool, line.effective_period, line.day, line.model)
