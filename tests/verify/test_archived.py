"""Books whose first months were pruned, and whose persons were erased, verify still."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from full_books import NOW, call, full, keep

from costspan.core.privacy.erasure import erase
from costspan.core.retention import prune
from costspan.core.verify import Problem, verify


def test_pruned_books_verify(tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as ledger:
        done = prune(ledger, "2026-04", tmp_path / "archive", by="ann", reason="kept", now_ns=NOW)
        assert done is not None
        assert done.observations > 5
        assert [each.what for each in verify(ledger) if isinstance(each, Problem)] == []
        erase(ledger, user="person-1", by="ann", reason="asked to be", now_ns=NOW)
        keep(ledger, call(40, "2026-02-10", attempt_id="a1", layer="provider"))
        assert [each.what for each in verify(ledger) if isinstance(each, Problem)] == []
