"""The postings: appended, never changed, and added up on their lines in the same statement."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from costspan.core.settle.entries import Posting, RollUp, Sum
from costspan.plugins.ledgers.line_rows import NAMES, line_of
from costspan.plugins.ledgers.postgres.database import Database, Row
from costspan.plugins.ledgers.postgres.journal import JournalTables
from costspan.plugins.ledgers.postgres.lines import Lines
from costspan.plugins.ledgers.postgres.rebuilding import begin_after, last_number
from costspan.plugins.ledgers.postings import (
    IN_ORDER,
    LINE_COLUMNS,
    PostingLookUps,
    of_days,
    of_lines,
)

_POSTINGS = {
    "id": "bigint", "event_id": "text", "line": "bigint", "cost": "bigint", "charge": "bigint",
    "events": "bigint",
}  # fmt: skip


class PostingTables(JournalTables, PostingLookUps):
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

    def roll_ups(
        self, owner: str | None, period: str | None, posted_period: str | None
    ) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on; see the protocol."""
        where, bound = of_lines(owner=owner, effective_period=period, posted_period=posted_period)
        sql = f"""
            SELECT {NAMES}, cost, charge, events FROM lines
            WHERE {where} AND (events != 0 OR cost != 0 OR charge != 0) {IN_ORDER}"""  # noqa: S608
        # One owner's are few: no transaction is worth it.
        rows = self._ask.rows if owner is not None else self._ask.each
        return map(_roll_up, rows(sql, *bound))

    def added_up(self) -> Iterator[RollUp]:
        """What `roll_ups` should say, added up from the postings themselves."""
        sql = f"""
            SELECT {NAMES}, added.cost, added.charge, added.events FROM (
                SELECT line, sum(cost) AS cost, sum(charge) AS charge, sum(events) AS events
                FROM postings GROUP BY line
            ) AS added JOIN lines ON id = line
            WHERE added.events != 0 OR added.cost != 0 OR added.charge != 0 {IN_ORDER}"""  # noqa: S608
        return map(_roll_up, self._ask.each(sql))

    def sums(
        self, by: Sequence[str], since_day: str | None, until_day: str | None, **only: str | None
    ) -> Iterator[tuple[tuple[str, ...], Sum]]:
        """The lines added up by some fields of `Line`; see the protocol."""
        where, bound = of_days(by, since_day, until_day, **only)
        keys = "".join(f"{name}, " for name in by)
        grouped = f"GROUP BY {', '.join(by)}" if by else ""
        sql = f"""
            SELECT {keys} coalesce(sum(cost), 0), coalesce(sum(charge), 0),
                   coalesce(sum(events), 0)
            FROM lines WHERE {where} {grouped}"""  # noqa: S608
        for row in self._ask.each(sql, *bound):
            cost, charge, events = row[len(by) :]
            yield row[: len(by)], Sum(int(cost), int(charge), int(events))


def _roll_up(row: Row) -> RollUp:
    line, posted_period = line_of(row[:LINE_COLUMNS])
    cost, charge, events = row[LINE_COLUMNS:]
    return RollUp(line, posted_period, int(cost), int(charge), int(events))
