"""A ledger of every version that was released is read, brought up to date, and settled into.

`freeze.py` freezes a version: its tables and books as SQL, and what its readers were answered.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from freeze import FOLDER, VERSIONS, answers
from full_books import call, keep

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerError
from costspan.core.money import PICO
from costspan.core.rebuild import copy_books, nets
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

FROZEN = sorted(path.stem for path in FOLDER.glob("*.sql"))
Made = Callable[[str], str]


def version_of(frozen: str) -> tuple[str, int]:
    kind, _, version = frozen.partition("-")
    return kind, int(version)


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Made:
    """Makes the ledger that was frozen under a name, and says its URL."""

    def make(frozen: str) -> str:
        statements = (FOLDER / f"{frozen}.sql").read_text("utf-8")
        if version_of(frozen)[0] == "postgres":
            url: str = request.getfixturevalue("url")
            with psycopg.connect(url) as connection:
                connection.execute(statements.encode())
            return url
        with closing(sqlite3.connect(tmp_path / "books.db")) as connection:
            connection.executescript(statements)
        return f"sqlite:///{tmp_path / 'books.db'}"

    return make


def said_of(frozen: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{frozen}.json").read_text("utf-8"))
    return found


def opened(url: str, frozen: str) -> Ledger:
    """The ledger as whoever owns it opens it."""
    kind, version = version_of(frozen)
    if version == VERSIONS[kind]:
        open_url(url, create=False).close()
    else:
        with pytest.raises(LedgerError, match=f"has schema version {version}, this costspan reads"):
            open_url(url, create=False)
    return open_url(url, create=True)


@pytest.mark.parametrize("kind", VERSIONS)
def test_the_version_of_today_is_frozen(kind: str) -> None:
    """Else nothing would show that a later one still reads it."""
    name = f"{kind}-{VERSIONS[kind]:04}"
    assert name in FROZEN, "freeze it: python tests/ledgers/freeze.py"


@pytest.mark.parametrize("frozen", FROZEN)
def test_what_was_released_is_read_and_settled_into(made: Made, frozen: str) -> None:
    said = said_of(frozen)
    with closing(opened(made(frozen), frozen)) as ledger:
        now = json.loads(json.dumps(answers(ledger)))
        assert {name: now[name] for name in said} == said
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []
        before, counts = nets(ledger), ledger.counts()
        keep(ledger, call(1), call(32, "2026-04-02"))  # they are there already
        assert (nets(ledger), ledger.counts()) == (before, counts)
        # Late evidence about a call in a closed month, and calls that are new.
        keep(ledger, call(9000, "2026-02-03", tenant="globex"), call(9001, tenant="later"))
        after = nets(ledger)
        assert {key for key in after if key not in before or after[key] != before[key]} == {
            ("globex", "direct", "2026-02"), ("later", "direct", "2026-02")
        }  # fmt: skip
        assert after["later", "direct", "2026-02"] == (35 * PICO // 10_000, 35 * PICO // 10_000)
        assert list(ledger.roll_ups()) == list(ledger.added_up())
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
        assert nets(ledger) == after
        assert [each for each in verify(ledger) if isinstance(each, Problem)] == []


@pytest.mark.parametrize("frozen", [each for each in FROZEN if each.startswith("postgres")])
def test_tables_brought_up_to_date_are_those_that_are_made_anew(made: Made, frozen: str) -> None:
    """Also: a version that was frozen is never changed in place."""
    url = made(frozen)
    for at in (url, f"{url}&schema=anew"):
        open_url(at, create=True).close()
    assert shape(url, "costspan") == shape(url, "anew"), (
        f"the tables of {frozen} are others now. Before the first release: python"
        " tests/ledgers/freeze.py --again; after it: leave the file as it was and add a further one"
    )


@pytest.mark.parametrize("frozen", [each for each in FROZEN if each.startswith("sqlite")])
def test_a_file_of_the_version_of_today_has_the_tables_of_today(made: Made, frozen: str) -> None:
    if version_of(frozen)[1] != VERSIONS["sqlite"]:
        pytest.skip("an earlier version: what it is brought to is looked at above")
    sql = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY 1, 2"
    frozen_at = made(frozen)
    tables = []
    for url in (frozen_at, f"{frozen_at}.anew"):
        open_url(url, create=True).close()
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            tables.append(connection.execute(sql).fetchall())
    assert tables[0] == tables[1], (
        f"the tables of {frozen} are others now. Before the first release: python"
        " tests/ledgers/freeze.py --again; after it: give the schema another version"
    )


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_a_version_before_the_first_release_is_left_alone(
    made: Made, tmp_path: Path, version: int
) -> None:
    """Nobody has one but who ran costspan from its sources: it says what to do, loses nothing."""
    url = made(max(each for each in FROZEN if each.startswith("sqlite")))
    path = Path(url.removeprefix("sqlite:///"))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'schema_version'", [str(version)])
    spool = tmp_path / "spool"
    writer = Recorder(spool)
    writer.record(call(1))
    writer.rotate()
    with pytest.raises(LedgerError, match=f"version {version}, .*: use the version of costspan"):
        drain(Config(ledger=url, spool=spool))
    assert len(list(spool.glob("*.seg"))) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone() == (18,)


def shape(url: str, schema: str) -> dict[str, set[tuple[Any, ...]]]:
    """The columns, indexes, constraints, triggers and functions of a schema."""
    asked = {
        "columns": "SELECT relname, attname, format_type(atttypid, atttypmod), attnotnull,"
        " attidentity, pg_get_expr(adbin, adrelid), collname FROM pg_attribute"
        " JOIN pg_class AS c ON c.oid = attrelid"
        " LEFT JOIN pg_collation AS l ON l.oid = attcollation"
        " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
        " WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND relnamespace = {}",
        "settings": "SELECT relname, reloptions FROM pg_class WHERE relkind = 'r'"
        " AND relnamespace = {}",
        "indexes": "SELECT pg_get_indexdef(c.oid) FROM pg_class AS c WHERE relkind = 'i'"
        " AND relnamespace = {}",
        "constraints": "SELECT conrelid::regclass::text, pg_get_constraintdef(oid)"
        " FROM pg_constraint WHERE connamespace = {} AND contype != 'n'",
        "triggers": "SELECT pg_get_triggerdef(t.oid), tgenabled FROM pg_trigger AS t"
        " JOIN pg_class AS c ON c.oid = tgrelid WHERE relnamespace = {} AND NOT tgisinternal",
        "functions": "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = {}",
    }
    with psycopg.connect(url) as connection:
        connection.execute(f"SET search_path = {schema}".encode())
        return {
            name: {
                tuple(
                    each.replace(f"{schema}.", "").replace(f"'{schema}'", "").replace(schema, "")
                    if isinstance(each, str) else repr(each)
                    for each in row
                )
                for row in connection.execute(sql.format(f"'{schema}'::regnamespace").encode())
            }
            for name, sql in asked.items()
        }  # fmt: skip
