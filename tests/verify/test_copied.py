"""Books that were copied into another ledger verify there: sealed entries keep their numbers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from full_books import NOW, call, fresh, full, keep

from costspan.core.rebuild import copy_books, nets
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify


def problems(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]


def numbers(ledger: Ledger) -> list[int]:
    return [number for number, _ in ledger.postings_after(0, -1)]


def test_a_copy_of_closed_books_verifies(tmp_path: Path) -> None:
    """The open month's entries stood between the closed one's: their numbers are left out."""
    with (
        closing(fresh(tmp_path / "old.db")) as old,
        closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new,
    ):
        keep(old, call(1, "2026-02-10"))
        keep(old, call(2, "2026-03-10"))
        keep(old, call(3, "2026-02-20"))
        close_period(old, "2026-02", "ann", "month's end", NOW)
        assert problems(old) == []
        copy_books(old, new)
        assert numbers(old) == [1, 2, 3]
        assert numbers(new) == [1, 3, 4]
        assert nets(new) == nets(old)
        assert problems(new) == []
        keep(new, call(4, "2026-03-11"))  # and it is a ledger like any other from here on
        assert problems(new) == []
    with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=False)) as new:
        assert problems(new) == []


def test_a_copy_of_full_books_verifies(tmp_path: Path) -> None:
    with (
        closing(full(tmp_path / "old.db")) as old,
        closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new,
    ):
        copy_books(old, new)
        assert nets(new) == nets(old)
        assert problems(new) == []


def test_where_nothing_was_copied_a_missing_number_is_found(tmp_path: Path) -> None:
    with closing(fresh(tmp_path / "old.db")) as ledger:
        keep(ledger, call(1))
        keep(ledger, call(2))
        keep(ledger, call(3))
    with closing(sqlite3.connect(tmp_path / "old.db")) as db:
        db.execute("DROP TRIGGER postings_no_delete")
        db.execute("DELETE FROM postings WHERE id = 2")
        db.commit()
    with closing(open_url(f"sqlite:///{tmp_path / 'old.db'}", create=False)) as ledger:
        assert "postings 3: follows 1; a number is missing, or was changed" in problems(ledger)
