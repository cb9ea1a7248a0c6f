"""Books whose first months were pruned, and whose persons were erased, verify still."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from full_books import NOW, call, fresh, full, keep

from costspan.core.privacy.erasure import erase
from costspan.core.rebuild import nets
from costspan.core.retention import prune, restore
from costspan.core.schema import Observation
from costspan.core.settle.close import close_period
from costspan.core.verify import Problem, verify

MARCH = 1_773_000_000 * 10**9


def test_pruned_books_verify(tmp_path: Path) -> None:
    with closing(full(tmp_path / "ledger.db")) as ledger:
        done = prune(ledger, "2026-04", tmp_path / "archive", by="ann", reason="kept", now_ns=NOW)
        assert done is not None
        assert done.observations > 5
        assert [each.what for each in verify(ledger) if isinstance(each, Problem)] == []
        erase(ledger, user="person-1", by="ann", reason="asked to be", now_ns=NOW)
        keep(ledger, call(40, "2026-02-10", attempt_id="a1", layer="provider"))
        assert [each.what for each in verify(ledger) if isinstance(each, Problem)] == []


def test_another_payload_under_an_oid_cannot_take_an_archived_event_over(tmp_path: Path) -> None:
    """It names the event, and what the event was merged from is not here: it waits for that."""
    archive = tmp_path / "archive"
    with closing(fresh(tmp_path / "ledger.db")) as ledger:
        keep(ledger, call(1, "2026-02-05"))
        close_period(ledger, "2026-02", "ann", "month's end", NOW)
        keep(ledger, Observation(oid="v:1", writer="v", seq=1, flat_cost="7", recorded_at=MARCH))
        before = nets(ledger)
        assert prune(ledger, "2026-03", archive, by="ann", reason="kept", now_ns=NOW) is not None
        for number in range(5):  # some of them has the smaller hash
            keep(
                ledger,
                Observation(oid="v:1", writer="v", seq=1, attempt_id="a1", name=f"n{number}"),
            )
            assert [each.what for each in verify(ledger) if isinstance(each, Problem)] == []
        sealed = {key: sums for key, sums in before.items() if key[2] == "2026-02"}
        assert nets(ledger) == sealed
        restore(ledger, archive)
        assert nets(ledger) == sealed
        assert [each.what for each in verify(ledger) if isinstance(each, Problem)] == []
