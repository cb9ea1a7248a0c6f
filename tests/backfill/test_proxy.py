"""A real LiteLLM proxy: the rows that it writes, the table that it makes, and the same calls live.

Only where the proxy is installed (or `COSTSPAN_PROXY_PYTHON` names a Python that has it).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
from desk import Desk
from exports import causes, ingest, owners
from table import COLUMNS, NAME, make

from costspan.conformance.drivers.proxy_process import ProxyDied, interpreter
from costspan.conformance.provider import LoopbackProvider

try:
    PYTHON = interpreter()
except ProxyDied as reason:
    pytest.skip(str(reason), allow_module_level=True)

pytestmark = pytest.mark.timeout(600)  # the first test waits for the proxy to import itself
Row = dict[str, Any]


class Made(NamedTuple):
    """What the proxy left: its rows, what our callback recorded, what the provider bills."""

    rows: list[Row]
    spool: Path
    billed: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("proxy")
    script = Path(__file__).with_name("spend_logs.py")
    with LoopbackProvider() as provider:
        command = [PYTHON, "-W", "ignore", str(script), provider.url, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        billed = sum(row.cost_pico for row in provider.truth)
    assert done.returncode == 0, done.stderr[-3000:]
    return Made(json.loads((folder / "rows.json").read_text("utf-8")), folder / "spool", billed)


def drained(desk: Desk, made: Made) -> None:
    """What was recorded live goes into the books."""
    shutil.copytree(made.spool, desk.spool)
    assert desk.run("drain").code == 0


def sheet(desk: Desk) -> dict[str, tuple[str | None, int]]:
    """The tenants' books. (Of the platform's, an event each for retries that no row tells of.)"""
    return {owner: said for owner, said in owners(desk).items() if not owner.startswith("@")}


def test_its_rows_are_what_the_tests_have(desk: Desk, rows: list[Row], made: Made) -> None:
    assert [set(row) for row in made.rows] == [set(row) for row in rows]
    kept = [set(json.loads(row["metadata"])) for row in rows]
    assert [set(json.loads(row["metadata"])) for row in made.rows] == kept
    before = causes(ingest(desk, rows, "--json"))
    desk.ledger.unlink()
    assert causes(ingest(desk, made.rows, "--json")) == before


def test_live_before_after_or_alone_the_tenants_have_the_same_books(
    desk: Desk, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drained(desk, made)
    live = sheet(desk)
    ran = ingest(desk, made.rows, "--json")
    assert ran.json["met"] == 21  # all but the one that the proxy refused: it has no attempt
    assert sheet(desk) == live
    everything = owners(desk)

    monkeypatch.setenv("COSTSPAN_LEDGER", str(tmp_path / "after.db"))
    alone = ingest(desk, made.rows, "--json").json
    assert alone["met"] == 0
    assert sheet(desk) == live
    shutil.rmtree(desk.spool)
    drained(desk, made)
    assert owners(desk) == everything
    again = ingest(desk, made.rows, "--json").json
    assert (again["met"], again["new"]) == (21, 0)
    assert owners(desk) == everything


def test_what_it_cost_is_what_the_provider_bills(desk: Desk, made: Made) -> None:
    ours = ingest(desk, made.rows, "--json").json["totals"]["ours"]
    # But for the answer that came without usage: 100 in and 9 out, billed all the same.
    assert int(ours.replace(".", "")) == made.billed - (100 * 150_000 + 9 * 600_000)


def test_the_table_is_the_one_that_its_migrations_make(server: Any) -> None:
    where = "import litellm_proxy_extras, os; print(os.path.dirname(litellm_proxy_extras.__file__))"
    command = [PYTHON, "-c", where]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    url = server.database()
    with psycopg.connect(url, autocommit=True) as connection:
        for file in sorted(Path(found, "migrations").glob("*/migration.sql")):
            for statement in file.read_text("utf-8").split(";"):
                if f'TABLE "{NAME}"' in statement or f'EXISTS "{NAME}" (' in statement:
                    connection.execute(statement.encode())
        theirs = _columns(connection, "public")
        make(connection, "ours")
        assert _columns(connection, "ours") == theirs
    assert set(COLUMNS) == set(theirs)
    server.drop(url)


def _columns(connection: psycopg.Connection[Any], schema: str) -> dict[str, tuple[str, str, str]]:
    rows = connection.execute(
        "SELECT column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_name = %s AND table_schema = %s",
        (NAME, schema),
    )
    return {name: (kind, nullable, default) for name, kind, nullable, default in rows}
