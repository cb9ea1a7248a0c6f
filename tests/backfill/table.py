"""LiteLLM's own table in a real PostgreSQL, and what its exports look like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

Row = dict[str, Any]
NAME = "LiteLLM_SpendLogs"
COLUMNS: Mapping[str, str] = {
    "request_id": "text NOT NULL",
    "call_type": "text NOT NULL",
    "api_key": "text NOT NULL DEFAULT ''",
    "spend": "double precision NOT NULL DEFAULT 0.0",
    **dict.fromkeys(
        ("total_tokens", "prompt_tokens", "completion_tokens"), "integer NOT NULL DEFAULT 0"
    ),
    **dict.fromkeys(("startTime", "endTime"), "timestamp(3) without time zone NOT NULL"),
    "completionStartTime": "timestamp(3) without time zone",
    "model": "text NOT NULL DEFAULT ''",
    **dict.fromkeys(
        (
            *("model_id", "model_group", "custom_llm_provider", "api_base", "user"),
            *("cache_hit", "cache_key"),
        ),
        "text DEFAULT ''",
    ),
    "metadata": "jsonb DEFAULT '{}'",
    "request_tags": "jsonb DEFAULT '[]'",
    **dict.fromkeys(("messages", "response", "proxy_server_request"), "jsonb DEFAULT '{}'"),
    **dict.fromkeys(
        (
            *("team_id", "organization_id", "end_user", "requester_ip_address", "session_id"),
            *("status", "mcp_namespaced_tool_name", "agent_id", "billing_agent_id"),
            "litellm_call_id",
        ),
        "text",
    ),
    "request_duration_ms": "integer",
    **dict.fromkeys(
        ("created_at", "updated_at"),
        "timestamp(3) without time zone NOT NULL DEFAULT CURRENT_TIMESTAMP",
    ),
}
"""As LiteLLM's migrations make them (test_proxy.py compares)."""


def make(connection: psycopg.Connection[Any], schema: str = "public") -> None:
    """Make the empty table."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # type: ignore[arg-type]
        for name, kind in COLUMNS.items()
    )
    connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
    connection.execute(
        sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY (request_id))").format(
            sql.Identifier(schema, NAME), columns
        )
    )


def fill(url: str, rows: Sequence[Mapping[str, Any]], schema: str = "public") -> None:
    """Make the table and put the rows into it, as Prisma does: moments are UTC without a zone."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        make(connection, schema)
        names = [name for name in rows[0] if name in COLUMNS]
        copy = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(schema, NAME), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with connection.cursor() as cursor, cursor.copy(copy) as stream:
            for row in rows:
                stream.write_row([row[name] for name in names])


def copied(url: str, path: Path, what: str = "CSV, HEADER") -> Path:
    r"""The file that `\copy "LiteLLM_SpendLogs" TO 'rows.csv' CSV HEADER` makes."""
    statement = sql.SQL("COPY {} TO STDOUT WITH (FORMAT {})").format(
        sql.Identifier(NAME),
        sql.SQL(what),  # type: ignore[arg-type]  # options, not values: a test's own
    )
    with (
        psycopg.connect(url) as connection,
        path.open("wb") as file,
        connection.cursor() as cursor,
        cursor.copy(statement) as stream,
    ):
        for part in stream:
            file.write(part)
    return path


def as_json_lines(url: str, path: Path) -> Path:
    """The file of `SELECT row_to_json(t) FROM ...`."""
    with psycopg.connect(url) as connection:
        query = sql.SQL("SELECT row_to_json(t) FROM {} t").format(sql.Identifier(NAME))
        found = connection.execute(query).fetchall()
    path.write_text("".join(f"{json.dumps(row)}\n" for (row,) in found), "utf-8")
    return path


def change(url: str, request_id: str, **values: str) -> None:
    """Write other values into a row, as PostgreSQL reads them."""
    with psycopg.connect(url) as connection:
        for name, value in values.items():
            connection.execute(
                sql.SQL("UPDATE {} SET {} = {} WHERE request_id = {}").format(
                    sql.Identifier(NAME),
                    sql.Identifier(name),
                    sql.Literal(value),
                    sql.Literal(request_id),
                )
            )
