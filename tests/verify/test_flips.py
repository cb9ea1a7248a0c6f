"""One flipped byte anywhere is found, and what is found names the place."""

# ruff: noqa: S608 -- names of tables and columns, which cannot be bound

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flipping import TABLES, cells, flip
from full_books import full

from costspan.core.ledger_errors import LedgerError
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

NAMED_BY = {
    "writers": "journal",  # whose records these are: the records do not match their checksums
    "events": "event ",
    "postings": "event ",  # nothing but what stands for an event says what its posting was
    "lines": "line",
}
MEANS_NOTHING = {
    # How often the books were rebuilt: another number makes connections look up their lines anew.
    ("meta", "value", "rebuilt"),
}
EMPTY = {"archived", "charge_books", "copied", "reviews"}
FLIPS = 100
HEADER = 100


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("books") / "ledger.db"
    with closing(full(path)) as ledger:
        ledger.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[attr-defined]
    return path


@pytest.fixture(scope="module")
def ledger(path: Path) -> Iterator[Any]:
    with closing(open_url(f"sqlite:///{path}", create=False)) as opened:
        yield opened


def found(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]


def test_sound_books_verify(ledger: Any) -> None:
    assert found(ledger) == []


def test_every_table_has_something_to_flip(ledger: Any) -> None:
    db = ledger.connection
    names = [row[0] for row in db.execute(TABLES)]
    empty = {name for name in names if not db.execute(f"SELECT 1 FROM {name}").fetchone()}
    assert empty <= EMPTY


def test_a_flipped_byte_of_any_column_is_named(ledger: Any) -> None:
    flips = 0
    for table, column, key, row in list(cells(ledger.connection)):
        with flip(ledger.connection, table, column, key, row) as is_flipped:
            if not is_flipped or (table, column, row[0]) in MEANS_NOTHING:
                continue
            flips += 1
            what = found(ledger)
            names = (table, NAMED_BY.get(table, table))
            assert any(name in text for text in what for name in names), (table, column, row, what)
    assert flips > 150
    assert found(ledger) == []


def test_a_flipped_byte_of_the_file_is_found_or_means_nothing(path: Path, tmp_path: Path) -> None:
    """What is not found is in no row, no index and no statement: free space, or a counter."""
    whole = path.read_bytes()
    used = [at for at in range(HEADER, len(whole)) if whole[at]]  # what was never used is zeros
    offsets = [*range(0, HEADER, 3), *random.Random(5).sample(used, FLIPS)]
    copy = tmp_path / "ledger.db"
    content = dumped(path)
    silent: list[int] = []
    for offset in offsets:
        copy.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0x10]) + whole[offset + 1 :])
        for beside in ("-wal", "-shm"):
            copy.with_name(copy.name + beside).unlink(missing_ok=True)
        try:
            with closing(open_url(f"sqlite:///{copy}", create=False)) as ledger:
                what = found(ledger)
        except (LedgerError, sqlite3.DatabaseError):
            continue  # nobody takes it for a ledger: found
        if not what:
            silent.append(offset)
            assert dumped(copy) == content, offset
    assert len([offset for offset in silent if offset >= HEADER]) < FLIPS // 10


def dumped(path: Path) -> list[str]:
    """Every row and statement of a ledger, and how each index finds the rows."""
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        db.text_factory = bytes
        names = [row[0].decode() for row in db.execute("SELECT name FROM sqlite_master")]
        tables = [row[0].decode() for row in db.execute(TABLES)]
        rows = [repr(db.execute(f"SELECT * FROM {each} ORDER BY 1").fetchall()) for each in tables]
        return [*sorted(names), *rows, repr(db.execute("SELECT sql FROM sqlite_master").fetchall())]


def test_a_trigger_that_is_gone_is_named(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "ledger.db"
    shutil.copy(path, copy)
    with closing(sqlite3.connect(copy)) as db:
        db.execute("DROP TRIGGER postings_no_update")
    with closing(open_url(f"sqlite:///{copy}", create=False)) as ledger:
        assert found(ledger) == ["the schema: the trigger postings_no_update is gone"]


def test_rows_that_are_gone_are_missed(path: Path, tmp_path: Path) -> None:
    for table in ("journal", "controls", "events", "postings", "keys", "lines", "directory"):
        copy = tmp_path / f"{table}.db"
        shutil.copy(path, copy)
        with closing(sqlite3.connect(copy)) as db, db:
            db.execute("DROP TRIGGER postings_no_delete")
            first = db.execute(f"SELECT * FROM {table}").description[0][0]
            db.execute(f"DELETE FROM {table} WHERE {first} = (SELECT min({first}) FROM {table})")
        with closing(open_url(f"sqlite:///{copy}", create=False)) as ledger:
            assert len(found(ledger)) > 1, table  # the trigger is one
