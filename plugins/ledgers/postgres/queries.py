"""What all ledgers ask, asked of PostgreSQL: a list is bound as an array."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.queries import Queries, Row

_KINDS: dict[type, str] = {str: "text", int: "bigint", bytes: "bytea"}


class PostgresQueries(Queries):
    """Over a connection of ours."""

    events = "(events JOIN places USING (n))"

    def __init__(self, db: Database) -> None:
        self._db = db

    def each(self, sql: str, *bound: Any) -> Iterator[Row]:
        """See `Queries`."""
        return self._db.each(_marked(sql), *bound)

    def rows(self, sql: str, *bound: Any) -> list[Row]:
        """See `Queries`."""
        return self._db.rows(_marked(sql), *bound)

    def among(self, sql: str, keys: Collection[Any]) -> Iterator[Row]:
        """See `Queries`."""
        return iter(self._db.rows(_with_array(sql, keys), list(keys)) if keys else ())

    def one(self, sql: str, *bound: Any) -> Row | None:
        """See `Queries`."""
        return self._db.one(_marked(sql), *bound)

    def run(self, sql: str, *bound: Any) -> int:
        """See `Queries`."""
        return self._db.run(_marked(sql), *bound)

    def run_among(self, sql: str, keys: Collection[Any]) -> None:
        """See `Queries`."""
        if keys:
            self._db.run(_with_array(sql, keys), list(keys))

    def insert(self, table: str, rows: Collection[Row], otherwise: str = "") -> None:
        """See `Queries`."""
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            arrays = ", ".join(f"%b::{_kind(column)}[]" for column in columns)
            sql = f"INSERT INTO {table} SELECT * FROM unnest({arrays}) {otherwise}"  # noqa: S608
            self._db.run(sql, *columns)

    def holds(self, column: str) -> str:
        """See `Queries`."""
        return f"position(? IN {column}) > 0"

    def may_read(self, table: str) -> bool:
        """See `Queries`."""
        return bool(self._db.rows("SELECT has_table_privilege(%s, 'SELECT')", table)[0][0])


def _marked(sql: str) -> str:
    """With the marks of psycopg."""
    return sql.replace("%", "%%").replace("?", "%s")


def _with_array(sql: str, keys: Collection[Any]) -> str:
    """A list behind a subquery: a server that knew how long it is might read the whole table."""
    array = f"= ANY(ARRAY(SELECT unnest(%b::{_kind(keys)}[])))"
    return _marked(sql).replace("IN ({keys})", array)


def _kind(values: Collection[Any]) -> str:
    """The type of a column that has these values."""
    return _KINDS[type(next((value for value in values if value is not None), ""))]
