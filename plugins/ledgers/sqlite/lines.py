"""The lines of the books by number: each is named once, and what is posted on it adds up there."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence

from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.line_rows import NAMES, Key, line_of, names_of

_LINES_MAX = 50_000
_LINES_PER_SELECT = 100
_WANTED = ", ".join(f"wanted.{name}" for name in NAMES.split(", "))


class Lines:
    """Line -> its number, remembered for this connection, up to a bound."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._numbers: dict[Key, int] = {}

    def forget(self) -> None:
        """After a rollback: a line that was numbered may not be there."""
        self._numbers.clear()

    def numbers(self, keys: Collection[Key]) -> Mapping[Key, int]:
        """The numbers of these lines, and perhaps of others; those that are new are made."""
        if len(self._numbers) >= _LINES_MAX:
            self._numbers.clear()
        missing = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        if missing:
            self._find(missing)
            new = [key for key in missing if key not in self._numbers]
            self._db.executemany(
                f"INSERT INTO lines ({NAMES}, cost_usd, cost_pico, charge_usd, charge_pico,"  # noqa: S608
                " events, crc) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, ?)",
                [(*names, checksum(*names)) for names in map(names_of, new)],
            )
            self._find(new)
        return self._numbers

    def _find(self, keys: Sequence[Key]) -> None:
        for at in range(0, len(keys), _LINES_PER_SELECT):
            some = [names_of(key) for key in keys[at : at + _LINES_PER_SELECT]]
            rows = ",".join(["(?, ?, ?, ?, ?, ?, ?, ?)"] * len(some))
            # A join in this order looks each line up; `IN (VALUES …)` would read all there are.
            sql = f"""
                WITH wanted ({NAMES}) AS (VALUES {rows})
                SELECT {_WANTED}, id FROM wanted CROSS JOIN lines USING ({NAMES})"""  # noqa: S608
            for row in self._db.execute(sql, [name for names in some for name in names]):
                self._numbers[line_of(row[:-1])] = row[-1]
