"""The postings: appended, never changed, and added up on their lines in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from costspan.core.settle.entries import Posting, RollUp, Sum
from costspan.plugins.ledgers.line_rows import NAMES, line_of
from costspan.plugins.ledgers.postings import (
    IN_ORDER,
    LINE_COLUMNS,
    PostingLookUps,
    of_days,
    of_lines,
)
from costspan.plugins.ledgers.sqlite.journal import JournalTables
from costspan.plugins.ledgers.sqlite.lines import Lines

_PICO = 10**12


class PostingTables(JournalTables, PostingLookUps):
    """Entries and roll-ups; every write is in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection, lines: Lines) -> None:
        super().__init__(connection)
        self._lines = lines

    def post(self, postings: Collection[Posting]) -> None:
        """Append postings and roll them up, in this transaction."""
        self._append([(None, posting) for posting in postings])

    def copy_postings(self, numbered: Collection[tuple[int, Posting]]) -> None:
        """Append postings of another ledger under their own numbers, and roll them up."""
        self._append(numbered)
        self._db.executemany(
            "INSERT OR IGNORE INTO copied VALUES (?)", [(each.event_id,) for _, each in numbered]
        )
        # Only some were copied: from here on a number that is left out is no sign of damage.
        self._db.execute("UPDATE meta SET value = '1' WHERE key = 'rebuilt' AND value = '0'")

    def _append(self, numbered: Collection[tuple[int | None, Posting]]) -> None:
        keys = [(posting.line, posting.posted_period) for _, posting in numbered]
        numbers = self._lines.numbers(keys)
        rows: list[tuple[Any, ...]] = []
        sums: dict[int, list[int]] = {}
        for (number, posting), key in zip(numbered, keys, strict=True):
            line = numbers[key]
            cost, charge, events = posting.amount.cost, posting.amount.charge, posting.events
            rows.append((number, posting.event_id, line, cost, charge, events))
            total = sums.get(line)
            if total is None:
                sums[line] = [cost, charge, events]
            else:
                total[0] += cost
                total[1] += charge
                total[2] += events
        self._db.executemany("INSERT INTO postings VALUES (?, ?, ?, ?, ?, ?)", rows)
        # Remainders are kept in [0, 1 USD), so that equal sums are equal rows in any batching.
        self._db.executemany(
            """UPDATE lines SET
                 cost_usd = cost_usd + ? + (cost_pico + ?) / 1000000000000,
                 cost_pico = (cost_pico + ?) % 1000000000000,
                 charge_usd = charge_usd + ? + (charge_pico + ?) / 1000000000000,
                 charge_pico = (charge_pico + ?) % 1000000000000,
                 events = events + ?
               WHERE id = ?""",
            [
                (*divmod(cost, _PICO), cost % _PICO, *divmod(charge, _PICO), charge % _PICO,
                 events, line)
                for line, (cost, charge, events) in sorted(sums.items())
            ],
        )  # fmt: skip

    # --- reading -------------------------------------------------------------------------------

    def roll_ups(
        self, owner: str | None, period: str | None, posted_period: str | None
    ) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on; see the protocol."""
        where, bound = of_lines(owner=owner, effective_period=period, posted_period=posted_period)
        sql = f"""
            SELECT {NAMES}, cost_usd, cost_pico, charge_usd, charge_pico, events FROM lines
            WHERE {where} AND (events != 0 OR cost_usd != 0 OR cost_pico != 0
                               OR charge_usd != 0 OR charge_pico != 0)
            {IN_ORDER}"""  # noqa: S608
        for row in self._db.execute(sql, bound):
            line, posted_period = line_of(row[:LINE_COLUMNS])
            cost_usd, cost_pico, charge_usd, charge_pico, events = row[LINE_COLUMNS:]
            cost, charge = cost_usd * _PICO + cost_pico, charge_usd * _PICO + charge_pico
            yield RollUp(line, posted_period, cost, charge, events)

    def added_up(self) -> Iterator[RollUp]:
        """What `roll_ups` should say, added up from the postings themselves."""
        sql = f"""
            SELECT {NAMES}, added.* FROM (
                SELECT line, sum(events), {_wide("cost")}, {_wide("charge")}
                FROM postings GROUP BY line
            ) AS added JOIN lines ON id = line
            {IN_ORDER}"""  # noqa: S608
        for row in self._db.execute(sql):
            line, posted_period = line_of(row[:LINE_COLUMNS])
            events, cost, charge = _wide_sums(row[LINE_COLUMNS + 1 :])
            if events or cost or charge:
                yield RollUp(line, posted_period, cost, charge, events)

    def sums(
        self, by: Sequence[str], since_day: str | None, until_day: str | None, **only: str | None
    ) -> Iterator[tuple[tuple[str, ...], Sum]]:
        """The lines added up by some fields of `Line`; see the protocol."""
        where, bound = of_days(by, since_day, until_day, **only)
        keys = "".join(f"{name}, " for name in by)
        sql = f"""
            SELECT {keys} coalesce(sum(events), 0),
                   {_wide("cost_pico", "cost_usd")}, {_wide("charge_pico", "charge_usd")}
            FROM lines WHERE {where} {"GROUP BY " + ", ".join(by) if by else ""}"""  # noqa: S608
        for row in self._db.execute(sql, bound):
            events, cost, charge = _wide_sums(row[len(by) :])
            yield row[: len(by)], Sum(cost, charge, events)


def _wide(rest: str, usd: str = "0") -> str:
    """Sums that no integer overflows: whole USD, millionths, and pico below."""
    return (
        f"coalesce(sum({usd} + {rest} / 1000000000000), 0),"
        f" coalesce(sum({rest} % 1000000000000 / 1000000), 0), coalesce(sum({rest} % 1000000), 0)"
    )


def _wide_sums(row: tuple[int, ...]) -> tuple[int, int, int]:
    """(events, cost, charge) of the columns: events, then two times those of `_wide`."""
    events, usd, millionths, pico, charge_usd, charge_millionths, charge_pico = row
    return (
        events,
        usd * _PICO + millionths * 10**6 + pico,
        charge_usd * _PICO + charge_millionths * 10**6 + charge_pico,
    )
