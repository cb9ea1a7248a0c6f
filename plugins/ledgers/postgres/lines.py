"""The lines of the books by number: each is named once, and what is posted on it adds up there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.line_rows import NAMES, Key, line_of, names_of
from costspan.plugins.ledgers.postgres.database import Database

_LINES_MAX = 50_000
_WANTED = ", ".join(f"wanted.{name}" for name in NAMES.split(", "))
_COLUMNS: dict[str, str] = {name: "text" for name in NAMES.split(", ")}


class Lines:
    """Line -> its number, remembered for this ledger, up to a bound."""

    def __init__(self) -> None:
        self._numbers: dict[Key, int] = {}

    def forget(self) -> None:
        """After a rollback, or somebody's rebuild: a line that was numbered may not be there."""
        self._numbers.clear()

    def numbers(self, db: Database, keys: Collection[Key]) -> Mapping[Key, int]:
        """The numbers of these lines, and perhaps of others; those that are new are made."""
        if len(self._numbers) >= _LINES_MAX:
            self._numbers.clear()
        missing = [key for key in dict.fromkeys(keys) if key not in self._numbers]
        if missing:
            self._find(db, missing)
            if new := [key for key in missing if key not in self._numbers]:
                self._make(db, new)
        return self._numbers

    def _find(self, db: Database, keys: Sequence[Key]) -> None:
        source, bound = db.load("wanted", _COLUMNS, [names_of(key) for key in keys])
        sql = f"SELECT {_WANTED}, id FROM {source} JOIN lines USING ({NAMES})"  # noqa: S608
        for row in db.rows(sql, *bound):
            self._numbers[line_of(row[:-1])] = row[-1]

    def _make(self, db: Database, keys: Sequence[Key]) -> None:
        rows = [(*names, checksum(*names)) for names in map(names_of, keys)]
        source, bound = db.load("named", {**_COLUMNS, "crc": "bigint"}, rows)
        sql = f"""
            INSERT INTO lines ({NAMES}, crc) SELECT {NAMES}, crc FROM {source}
            RETURNING {NAMES}, id"""  # noqa: S608
        for row in db.rows(sql, *bound):
            self._numbers[line_of(row[:-1])] = row[-1]
