"""The rows of LiteLLM's own table, straight from its database: read only, a few at a time.

Only the columns that are used are asked for: prompts and replies never leave the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import psycopg
from psycopg import conninfo, sql

from costspan.core.ledger_urls import ENCODED, joined, pieces_of, secrets_of, split_url
from costspan.plugins.backfill.litellm import COLUMNS
from costspan.plugins.backfill.placed import Placed, UnreadableSource

TABLE = "LiteLLM_SpendLogs"
_ROWS_AT_A_TIME = 2000
_TIMES = frozenset({"startTime", "endTime", "completionStartTime"})
_PRISMAS: Final = frozenset(
    {
        *("schema", "connection_limit", "pool_timeout", "pgbouncer", "statement_cache_size"),
        *("socket_timeout", "sslidentity", "sslpassword", "sslaccept", "single_use_connections"),
    }
)
"""What LiteLLM's DATABASE_URL may say that only Prisma, LiteLLM's client, understands."""


def read(url: str, table: str = TABLE) -> Iterator[Placed]:
    """Every row of the table, by request id. One snapshot: what comes meanwhile comes next time.

    Args:
        url: The database's, as LiteLLM's own DATABASE_URL has it, `?schema=` included.
        table: The table's name.

    Raises:
        UnreadableSource: if the database or its table cannot be read; no password is repeated.
    """
    address, schema = _for_psycopg(url)
    try:
        with psycopg.connect(address) as connection:
            connection.read_only = True
            connection.execute("SET LOCAL TimeZone = 'UTC'")
            if schema is not None:
                connection.execute(
                    "SELECT set_config('search_path', quote_ident(%s), true)", [schema]
                )
            found = _columns(connection, table)
            query = sql.SQL("SELECT {} FROM {} ORDER BY request_id").format(
                sql.SQL(", ").join(map(_shown, found)), sql.Identifier(table)
            )
            with connection.cursor("costspan_backfill") as cursor:
                cursor.itersize = _ROWS_AT_A_TIME
                cursor.execute(query)
                for values in cursor:
                    row = dict(zip(found, values, strict=True))
                    yield Placed(f"request_id {row['request_id']!r}", row)
    except psycopg.Error as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        for secret in secrets_of(url):
            said = said.replace(secret, "***")
        raise UnreadableSource(f"the table {table} could not be read: {said}") from None


def _for_psycopg(url: str) -> tuple[str, str | None]:
    """The address without Prisma's own words, and the schema that it names."""
    parts = split_url(url)
    if parts is None:
        raise UnreadableSource(f"the URL of the database is not clear: {ENCODED}")
    pieces = pieces_of(parts.query)
    kept = "&".join(piece for piece, name, _ in pieces if name not in _PRISMAS)
    address = joined(parts._replace(query=kept))
    try:
        conninfo.conninfo_to_dict(address)
    except psycopg.Error:
        raise UnreadableSource(f"the URL of the database cannot be read: {ENCODED}") from None
    schemas = [unquote(value) for _, name, value in pieces if name == "schema"]
    return address, schemas[-1] if schemas else None


def _shown(column: str) -> sql.Composable:
    # As text: a moment that no calendar has (`infinity`) is one bad row, not the end of all.
    name = sql.Identifier(column)
    return sql.SQL("{}::text").format(name) if column in _TIMES else name


def _columns(connection: psycopg.Connection[tuple[Any, ...]], table: str) -> list[str]:
    """The columns that this version of LiteLLM has."""
    rows = connection.execute(
        "SELECT attname FROM pg_attribute"
        " WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0 AND NOT attisdropped",
        (table,),
    )
    there = {str(name) for (name,) in rows}
    if "request_id" not in there or not there & _TIMES:
        raise UnreadableSource(
            f"there is no table {table} of LiteLLM's in the database"
            " (in another schema? say ?schema=NAME)"
        )
    return [name for name in COLUMNS if name in there]
