"""LiteLLM's own table in a real PostgreSQL: its rows, its exports, and the URL that LiteLLM has."""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk
from exports import books
from table import NAME, as_json_lines, change, copied, fill

Row = dict[str, Any]


@pytest.fixture
def url(server: Any, rows: list[Row]) -> Any:
    """A database with the table, filled."""
    found = server.database()
    fill(found, rows)
    yield found
    server.drop(found)


def test_every_export_of_the_table_is_the_table(
    desk: Desk, url: str, rows: list[Row], tmp_path: Any
) -> None:
    first = desk.run("ingest", "litellm-spendlogs", url, "--json").json
    assert (first["rows"], first["new"], first["rejected"]) == (len(rows), len(rows) - 1, [])
    before = books(desk)
    files = [
        copied(url, tmp_path / "rows.csv"),
        copied(url, tmp_path / "rows.semicolon.csv", "CSV, HEADER, DELIMITER ';'"),
        copied(url, tmp_path / "rows.forced.csv", "CSV, HEADER, FORCE_QUOTE *"),
        as_json_lines(url, tmp_path / "rows.ndjson"),
    ]
    for path in files:
        again = desk.run("ingest", "litellm-spendlogs", path, "--json").json
        assert (again["new"], again["conflicts"], again["rejected"]) == (0, 0, []), path
        assert again["duplicates"] == first["new"]
        assert again["differences"] == first["differences"], path
        assert again["owners"] == first["owners"]
    assert books(desk) == before


def test_the_url_that_litellm_has(desk: Desk, server: Any, rows: list[Row]) -> None:
    url = server.database()
    fill(url, rows, schema="llm")
    missing = desk.run("ingest", "litellm-spendlogs", url)
    assert missing.code == 2
    assert "?schema=NAME" in missing.err
    prismas = f"{url}&schema=llm&connection_limit=5&pool_timeout=60&pgbouncer=true"
    ran = desk.run("ingest", "litellm-spendlogs", prismas, "--json")
    assert (ran.code, ran.json["new"]) == (0, len(rows) - 1)
    server.drop(url)


def test_a_moment_of_no_calendar_is_one_bad_row(desk: Desk, url: str, rows: list[Row]) -> None:
    first, second, *_ = (row["request_id"] for row in rows)
    change(url, first, startTime="infinity", endTime="infinity", completionStartTime="-infinity")
    change(url, second, spend="NaN")
    ran = desk.run("ingest", "litellm-spendlogs", url, "--json")
    assert ran.code == 1
    (bad,) = ran.json["rejected"]
    assert first in bad["where"]
    assert ran.json["flags"]["invalid:spend"] == 1
    assert ran.json["new"] == len(rows) - 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://someone:secret@/none?host=/nowhere",
        "postgresql://someone:sec@ret@nowhere/none",
        "postgresql://someone:%zzsecret@nowhere/none",
        "postgresql://someone:se:secret/x@nowhere/none",
        "POSTGRESQL://someone:secret@nowhere/none",
        "postgresql+psycopg2://someone:secret@nowhere/none",
    ],
)
def test_no_password_is_repeated(desk: Desk, url: str) -> None:
    pytest.importorskip("psycopg")
    for kind in (["litellm-spendlogs"], []):
        ran = desk.run("ingest", *kind, url)
        assert ran.code == 2
        assert "ret" not in ran.err.replace("interpreted", "")
        assert "Traceback" not in ran.err


def test_a_database_without_the_table(desk: Desk, server: Any) -> None:
    url = server.database()
    ran = desk.run("ingest", "litellm-spendlogs", url)
    assert ran.code == 2
    assert NAME in ran.err
    assert not desk.ledger.exists()
    server.drop(url)
