"""Many rows, twice: the same books, from a file and from LiteLLM's own table.

`COSTSPAN_BACKFILL_ROWS=100000` makes it the long run.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from desk import Desk
from exports import ndjson
from psycopg import sql

Row = dict[str, Any]
ROWS = int(os.environ.get("COSTSPAN_BACKFILL_ROWS", "2000"))
_COLUMNS = {
    "request_id": "text PRIMARY KEY",
    **dict.fromkeys(("call_type", "api_key"), "text NOT NULL DEFAULT ''"),
    "spend": "double precision NOT NULL DEFAULT 0",
    **dict.fromkeys(("total_tokens", "prompt_tokens", "completion_tokens"), "integer DEFAULT 0"),
    **dict.fromkeys(("startTime", "endTime", "completionStartTime"), "timestamp(3)"),
    **dict.fromkeys(("model", "model_id", "model_group", "custom_llm_provider"), "text"),
    **dict.fromkeys(("api_base", "user", "cache_hit", "cache_key", "team_id"), "text"),
    **dict.fromkeys(("organization_id", "end_user", "session_id", "status"), "text"),
    **dict.fromkeys(("metadata", "request_tags", "messages", "response"), "jsonb DEFAULT '{}'"),
    "litellm_call_id": "text",
}
"""Of LiteLLM's schema.prisma, as Prisma makes them in PostgreSQL."""


def many(rows: list[Row]) -> list[Row]:
    """LiteLLM's own rows again and again, with ids, teams, times and tokens of their own."""
    random = Random(6)
    began = datetime(2025, 11, 1, tzinfo=UTC)
    made: list[Row] = []
    for number in range(ROWS):
        row = dict(random.choice(rows))
        metadata = json.loads(row["metadata"])
        usage = metadata.get("usage_object") or {}
        if row["status"] == "success" and usage.get("completion_tokens"):
            more = random.randrange(500)
            usage["completion_tokens"] += more
            row["completion_tokens"] = usage["completion_tokens"]
            row["spend"] = (row["spend"] or 0) * random.choice([1, 1, 0, 1.5])
        started = began + timedelta(seconds=random.randrange(365 * 86_400))
        made.append(
            row
            | {
                "request_id": f"chatcmpl-{number}",
                "litellm_call_id": f"call-{number}" if number % 3 else None,
                "team_id": random.choice(["acme", "globex", "initech", ""]),
                "startTime": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "endTime": (started + timedelta(seconds=1)).isoformat(timespec="milliseconds"),
                "completionStartTime": None,
                "metadata": json.dumps({**metadata, "litellm_call_id": None}),
            }
        )
    return made


def books(desk: Desk) -> Any:
    return [
        desk.run("report", "--json", "--by", by).json for by in ("owner,bucket", "period", "model")
    ]


def fill(url: str, rows: list[Row]) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        columns = sql.SQL(", ").join(
            sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))  # type: ignore[arg-type]
            for name, kind in _COLUMNS.items()
        )
        connection.execute(sql.SQL('CREATE TABLE "LiteLLM_SpendLogs" ({})').format(columns))
        names = [name for name in rows[0] if name in _COLUMNS]
        copy = sql.SQL('COPY "LiteLLM_SpendLogs" ({}) FROM STDIN').format(
            sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with connection.cursor() as cursor, cursor.copy(copy) as stream:
            for row in rows:
                spend = {**row, "spend": row["spend"] or 0}
                stream.write_row([spend[name] for name in names])


def test_twice_is_once(desk: Desk, rows: list[Row]) -> None:
    path = ndjson(desk.folder / "many.ndjson", many(rows))
    first = desk.run("ingest", "litellm-spendlogs", path, "--json").json
    assert (first["rows"], first["new"], first["rejected"]) == (ROWS, ROWS, [])
    assert sum(each["rows"] for each in first["differences"]) == ROWS
    assert first["unmatched"] == []
    before = books(desk)
    assert before[0]["balanced"]
    again = desk.run("ingest", "litellm-spendlogs", path, "--json").json
    assert (again["new"], again["duplicates"], again["conflicts"]) == (0, ROWS, 0)
    assert again["settled"]["postings"] == 0
    assert again["differences"] == first["differences"]
    assert books(desk) == before
    theirs = [sum_of(first["differences"], name) for name in ("theirs", "ours", "difference")]
    assert theirs == [sum_of([first["totals"]], n) for n in ("theirs", "ours", "difference")]


def sum_of(rows: list[Row], name: str) -> int:
    return sum(int(row[name].replace(".", "")) for row in rows)


def test_from_its_own_table(
    desk: Desk, rows: list[Row], server: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = [{**row, "spend": row["spend"] or 0} for row in many(rows)[:1500]]
    url = server.database()
    fill(url, made)
    ran = desk.run("ingest", "litellm-spendlogs", url, "--json")
    assert (ran.code, ran.json["new"], ran.json["rejected"]) == (0, len(made), [])
    before = books(desk)
    # The file of the same rows, and into the same database's own ledger: the same books.
    path = ndjson(desk.folder / "many.ndjson", made)
    file = desk.run("ingest", "litellm-spendlogs", path, "--json").json
    assert (file["new"], file["conflicts"], file["duplicates"]) == (0, 0, len(made))
    assert books(desk) == before
    monkeypatch.setenv("COSTSPAN_LEDGER", f"{url}&schema=books")
    assert desk.run("ingest", "litellm-spendlogs", url, "--json").json["new"] == len(made)
    found = books(desk)
    assert [each["rows"] for each in found] == [each["rows"] for each in before]
    server.drop(url)


def test_a_database_without_the_table(desk: Desk, server: Any) -> None:
    url = server.database()
    ran = desk.run("ingest", "litellm-spendlogs", url)
    assert ran.code == 2
    assert "LiteLLM_SpendLogs" in ran.err
    gone = "postgresql://someone:secret@/none?host=/nowhere"
    ran = desk.run("ingest", "litellm-spendlogs", gone)
    assert ran.code == 2
    assert "secret" not in ran.err
    server.drop(url)
