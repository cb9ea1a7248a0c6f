"""The rows of LiteLLM's own table, straight from its database: read only, a few at a time.

Only the columns that are used are asked for: prompts and replies never leave the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from costspan.plugins.backfill.litellm import COLUMNS
from costspan.plugins.backfill.sources import Placed, UnreadableSource

TABLE = "LiteLLM_SpendLogs"
_ROWS_AT_A_TIME = 2000
_TIMES = frozenset({"startTime", "endTime"})


def read(url: str, table: str = TABLE) -> Iterator[Placed]:
    """Every row of the table, by request id. One snapshot: what comes meanwhile comes next time.

    Raises:
        UnreadableSource: if the database or its table cannot be read; no password is repeated.
    """
    try:
        with psycopg.connect(url, options="-c TimeZone=UTC") as connection:
            connection.read_only = True
            found = _columns(connection, table)
            query = sql.SQL("SELECT {} FROM {} ORDER BY request_id").format(
                sql.SQL(", ").join(map(sql.Identifier, found)), sql.Identifier(table)
            )
            with connection.cursor("costspan_backfill") as cursor:
                cursor.itersize = _ROWS_AT_A_TIME
                cursor.execute(query)
                for values in cursor:
                    row = dict(zip(found, values, strict=True))
                    yield Placed(f"request_id {row['request_id']!r}", row)
    except psycopg.Error as error:
        said = str(error).strip().splitlines()
        raise UnreadableSource(
            f"the table {table} could not be read: {said[0] if said else type(error).__name__}"
        ) from error


def _columns(connection: psycopg.Connection[tuple[Any, ...]], table: str) -> list[str]:
    """The columns that this version of LiteLLM has."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped",
        (table,),
    )
    there = {str(name) for (name,) in rows}
    if "request_id" not in there or not there & _TIMES:
        raise UnreadableSource(f"there is no table {table} of LiteLLM's in the database")
    return [name for name in COLUMNS if name in there]
