"""Opening a SQLite ledger: reading creates nothing, and what is no ledger is refused."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from costspan.core.ledger_errors import LedgerError, LedgerMissing
from costspan.core.settle.ledger import Ledger, open_url


def test_reading_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(LedgerMissing, match="costspan drain"):
        open_url(f"sqlite:///{tmp_path}/none/ledger.db", create=False)
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(LedgerMissing, match="no books of costspan"):
        open_url(f"sqlite:///{empty}", create=False)
    assert list(tmp_path.iterdir()) == [empty]
    assert empty.read_bytes() == b""


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("not a database, but long enough to be looked at" * 50)
    for create in (True, False):
        with pytest.raises(LedgerError, match="cannot be opened"):
            open_url(f"sqlite:///{tmp_path}/notes.db", create=create)
    with pytest.raises(LedgerError, match="cannot be opened"):
        open_url(f"sqlite:///{tmp_path}/notes.db/below/ledger.db", create=True)


def test_another_schema_version_is_refused_and_named(ledger: Ledger, path: Path) -> None:
    with closing(sqlite3.connect(path)) as foreign, foreign:
        foreign.execute("UPDATE meta SET value = '99' WHERE key = 'schema_version'")
    for create in (True, False):
        with pytest.raises(LedgerError, match="schema version 99, this costspan reads 3"):
            open_url(f"sqlite:///{path}", create=create)


@pytest.mark.parametrize("name", ["a b?c#d%e.db", "größe.db", "it's.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    for create in (True, False):
        open_url(f"sqlite:///{tmp_path / name}", create=create).close()
    assert name in os.listdir(tmp_path)
