"""What all ledgers ask, asked of SQLite: it binds no list, so each key has its own mark."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from typing import Any

from costspan.plugins.ledgers.queries import Queries, Row

_KEYS_PER_STATEMENT = 500
_MARKS = ",".join("?" * _KEYS_PER_STATEMENT)


def select_in(connection: sqlite3.Connection, sql: str, keys: Collection[Any]) -> Iterator[Row]:
    """The rows of `sql`, whose `{keys}` stands for bound placeholders, over all keys."""
    for marked, some in _with_marks(sql, keys):
        yield from connection.execute(marked, some).fetchall()


def _with_marks(sql: str, keys: Collection[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Only placeholders are put into the text; every value is bound."""
    ordered = list(keys)
    for at in range(0, len(ordered), _KEYS_PER_STATEMENT):
        some = ordered[at : at + _KEYS_PER_STATEMENT]
        marks = _MARKS if len(some) == _KEYS_PER_STATEMENT else ",".join("?" * len(some))
        yield sql.replace("{keys}", marks), some


class SqliteQueries(Queries):
    """Over a connection of `sqlite3`."""

    arrival = "rowid"
    person = "user"

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def each(self, sql: str, *bound: Any) -> Iterator[Row]:
        """See `Queries`."""
        return self._db.execute(sql, bound)

    def rows(self, sql: str, *bound: Any) -> list[Row]:
        """See `Queries`."""
        return self._db.execute(sql, bound).fetchall()

    def among(self, sql: str, keys: Collection[Any]) -> Iterator[Row]:
        """See `Queries`."""
        return select_in(self._db, sql, keys)

    def one(self, sql: str, *bound: Any) -> Row | None:
        """See `Queries`."""
        found: Row | None = self._db.execute(sql, bound).fetchone()
        return found

    def run(self, sql: str, *bound: Any) -> int:
        """See `Queries`."""
        return self._db.execute(sql, bound).rowcount

    def run_among(self, sql: str, keys: Collection[Any]) -> None:
        """See `Queries`."""
        for marked, some in _with_marks(sql, keys):
            self._db.execute(marked, some)

    def insert(self, table: str, rows: Collection[Row], otherwise: str = "") -> None:
        """See `Queries`."""
        if rows:
            marks = ",".join("?" * len(next(iter(rows))))
            sql = f"INSERT INTO {table} VALUES ({marks}) {otherwise}"  # noqa: S608
            self._db.executemany(sql, rows)

    def holds(self, column: str) -> str:
        """See `Queries`."""
        return f"instr({column}, ?)"
