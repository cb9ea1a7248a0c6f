"""Pruning: what is sealed goes into an archive and comes back, and nothing is posted twice."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journals import GATEWAY, Journal, journals, settled
from shelf import at, call, close_month, keep, shelf

from costspan.core.config import Config
from costspan.core.journal.records import Assignment, Pruned, Restatement
from costspan.core.ledger_errors import LedgerError
from costspan.core.read.books import Books
from costspan.core.rebuild import nets, rebuild
from costspan.core.retention import RetentionError, prune, restore
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import broken_seals
from costspan.core.settle.ledger import Ledger, open_url

DOLLAR = 10**12
NOVEMBER, DECEMBER = "2026-11-05", "2026-12-05"


def pruned(ledger: Ledger, folder: Path, before: str = "2026-12") -> Pruned | None:
    return prune(ledger, before, folder, "ops", "old", 7)


def everything(ledger: Ledger) -> Any:
    """The books, what stands for each event, and every entry."""
    events = list(ledger.events())
    postings = [ledger.postings(each.event.id) for each in events]
    return nets(ledger), list(ledger.roll_ups()), events, postings


def two_months(path: Path) -> Ledger:
    """November is sealed; a call of December is below one of November."""
    ledger = shelf(path)
    keep(ledger, *(call(n, NOVEMBER, user="ann") for n in range(1, 6)))
    keep(ledger, call(7, DECEMBER), call(8, DECEMBER, parent="a000001", tenant=None))
    close_month(ledger, "2026-11")
    return ledger


def test_what_is_sealed_goes_and_every_reader_sees_what_it_saw(tmp_path: Path) -> None:
    with closing(two_months(tmp_path / "l.db")) as ledger:
        before, totals = everything(ledger), Books(ledger).totals(("owner", "session"))
        record = pruned(ledger, tmp_path / "archive")
        assert record is not None
        assert record.observations == 5
        assert [seen.oid for seen in ledger.journal()] == ["w:7", "w:8"]
        assert everything(ledger) == before
        assert Books(ledger).totals(("owner", "session")) == totals
        assert Books(ledger).is_balanced()
        assert broken_seals(ledger) == []
        assert ledger.counts("observations") == {"observations": 7}
        assert ledger.controls()[-1] == record
    (file,) = (tmp_path / "archive").iterdir()
    head, *lines = gzip.decompress(file.read_bytes()).splitlines()
    assert json.loads(head)["before"] == "2026-12"
    assert [json.loads(line)["oid"] for line in lines] == [f"w:{n}" for n in range(1, 6)]
    assert b"ann" not in b"".join(lines)


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    with closing(two_months(tmp_path / "l.db")) as ledger:
        before, journal = everything(ledger), list(ledger.journal())
        pruned(ledger, tmp_path / "archive")
        done = restore(ledger, tmp_path / "archive")
        assert (done.observations, done.late) == (5, 0)
        assert list(ledger.journal()) == journal
        assert everything(ledger) == before
        assert ledger.archive.count() == 0
        assert pruned(ledger, tmp_path / "archive") is not None
    assert len(list((tmp_path / "archive").iterdir())) == 1  # the same content is the same file


def test_a_rebuild_needs_the_archive_and_gives_the_same_books(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    config = Config(ledger=str(path), spool=tmp_path / "spool")
    with closing(two_months(path)) as ledger:
        before = everything(ledger)
        pruned(ledger, tmp_path / "archive")
    with pytest.raises(LedgerError, match="rebuild --archive"):
        rebuild(config)
    with closing(open_url(f"sqlite:///{path}", create=False)) as ledger:
        restore(ledger, tmp_path / "archive")
    rebuild(config)
    with closing(open_url(f"sqlite:///{path}", create=False)) as ledger:
        assert everything(ledger) == before
        assert broken_seals(ledger) == []


def test_a_month_that_is_not_sealed_is_refused(tmp_path: Path) -> None:
    with closing(two_months(tmp_path / "l.db")) as ledger:
        with pytest.raises(RetentionError, match="only the months to 2026-11"):
            pruned(ledger, tmp_path, "2027-01")
        with pytest.raises(RetentionError, match="YYYY-MM"):
            pruned(ledger, tmp_path, "2026-13")
    with closing(shelf()) as ledger, pytest.raises(RetentionError, match="no month"):
        pruned(ledger, tmp_path)


def test_a_damaged_or_missing_archive_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    with closing(two_months(tmp_path / "l.db")) as ledger:
        pruned(ledger, folder)
        before, journal = everything(ledger), list(ledger.journal())
        with pytest.raises(RetentionError, match="lacks costspan-2026-12"):
            restore(ledger, tmp_path)
        (file,) = folder.iterdir()
        whole = file.read_bytes()
        file.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        with pytest.raises(RetentionError, match="hash differs"):
            restore(ledger, folder)
        assert (everything(ledger), list(ledger.journal())) == (before, journal)
        file.write_bytes(whole)
        assert restore(ledger, folder).observations == 5


def test_an_archive_that_cannot_be_read_back_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from costspan.core import retention

    def without_the_last(*found: Any) -> Any:
        return list(whole(*found))[:-1]

    whole = retention.read
    monkeypatch.setattr(retention, "read", without_the_last)
    with closing(two_months(tmp_path / "l.db")) as ledger:
        with pytest.raises(RetentionError, match="holds 4 of 5"):
            pruned(ledger, tmp_path / "archive")
        assert len(list(ledger.journal())) == 7
        assert ledger.archive.count() == 0


# --- what comes late ---------------------------------------------------------------------------


def test_the_same_again_is_a_duplicate_and_another_payload_a_conflict(tmp_path: Path) -> None:
    with closing(two_months(tmp_path / "l.db")) as ledger:
        pruned(ledger, tmp_path)
        before = everything(ledger)
        with ledger.settling(1) as settlement:
            report = settle(settlement, [call(1, NOVEMBER, user="ann"), call(2, flat_cost="9")])
        assert (report.duplicates, report.conflicts, report.postings) == (1, 1, 0)
        assert everything(ledger) == before
        assert ledger.counts("conflict") == {"conflict": 1}


def test_the_same_payload_wins_as_if_nothing_had_been_archived(tmp_path: Path) -> None:
    for cost in ("2", "3", "4", "5"):  # the smaller hash wins: some of these have one
        other = call(1, NOVEMBER, user="ann", flat_cost=cost)
        with (
            closing(two_months(tmp_path / f"l{cost}.db")) as ledger,
            closing(two_months(tmp_path / f"m{cost}.db")) as whole,
        ):
            pruned(ledger, tmp_path / cost)
            for each in (ledger, whole):
                keep(each, other)
            restore(ledger, tmp_path / cost)
            assert nets(ledger) == nets(whole)
            assert ledger.counts("conflict") == whole.counts("conflict") == {"conflict": 1}


def test_an_event_that_something_unmatched_could_be_joined_with_stays(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        loose = {"attempt_id": None, "tenant": None, "tenant_source": None, "flat_cost": None}
        keep(
            ledger,
            call(1, NOVEMBER, response_id="r"),
            call(2, DECEMBER, response_id="r"),
            call(3, NOVEMBER, response_id="r", **loose),
        )
        assert ledger.counts("unmatched") == {"unmatched": 1}
        close_month(ledger, "2026-11")
        assert pruned(ledger, tmp_path / "archive") is None


def test_late_evidence_about_an_archived_event_waits_and_posts_once(tmp_path: Path) -> None:
    late = call(20, attempt_id="a000001", flat_cost="5", layer="provider")
    with closing(two_months(tmp_path / "l.db")) as ledger:
        with closing(two_months(tmp_path / "m.db")) as other:
            keep(other, late)
            expected = nets(other), list(other.roll_ups())
        pruned(ledger, tmp_path / "archive")
        before = nets(ledger)
        keep(ledger, late, call(21, DECEMBER))
        keep(ledger, late)
        assert ledger.problems() == [("archived", "w:20", "a000001")]
        assert ledger.counts("archived") == {"archived": 1}
        only_new = {key: sums for key, sums in nets(ledger).items() if before.get(key) != sums}
        assert only_new == {("acme", "direct", "2026-12"): (3 * DOLLAR, 3 * DOLLAR)}
        done = restore(ledger, tmp_path / "archive")
        assert (done.observations, done.late) == (5, 1)
        assert ledger.problems() == []
        assert Books(ledger).is_balanced()
        assert broken_seals(ledger) == []
        keep(ledger, late)
    with closing(two_months(tmp_path / "n.db")) as another:
        keep(another, late, call(21, DECEMBER))
        assert expected[0] != nets(another)
        with closing(open_url(f"sqlite:///{tmp_path / 'l.db'}", create=False)) as ledger:
            assert nets(ledger) == nets(another)
            assert list(ledger.roll_ups()) == list(another.roll_ups())


def test_an_assignment_and_a_restatement_need_no_observation(tmp_path: Path) -> None:
    hand: dict[str, Any] = {"by": "ann", "reason": "why", "recorded_at": 9}
    said: list[Assignment | Restatement] = [
        Assignment("a000001", "globex", **hand),
        Restatement(None, "2026-11", None, None, **hand),
    ]
    found: list[Any] = []
    for is_pruned in (False, True):
        with closing(two_months(tmp_path / f"{is_pruned}.db")) as ledger:
            if is_pruned:
                assert pruned(ledger, tmp_path) is not None
            with ledger.settling(1) as settlement:
                settle(settlement, [], said)
            found.append((nets(ledger), list(ledger.roll_ups())))
            assert Books(ledger).is_balanced()
    assert found[0] == found[1]
    assert any(owner == "globex" for owner, _, _ in found[0][0])


def test_what_is_open_swept_or_shared_with_a_later_month_stays(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        both = {"attempt_id": None, "operation_ids": ("litellm:1",), "flat_cost": None}
        start = msgspec.structs.replace(call(1, NOVEMBER, flat_cost=None), phase="start")
        keep(
            ledger,
            start,
            call(2, NOVEMBER, operation_ids=("litellm:1",)),
            call(3, DECEMBER, operation_ids=("litellm:1",)),
            call(4, NOVEMBER, layer="framework", started_at=None, feature="x", **both),
            call(5, NOVEMBER),
            call(6, NOVEMBER, operation_ids=("litellm:6",)),
            call(7, DECEMBER, parent="w:6"),
        )
        close_month(ledger, "2026-11")
        record = pruned(ledger, tmp_path / "archive")
        assert record is not None
        assert record.observations == 1
        assert {seen.oid for seen in ledger.journal()} == {f"w:{n}" for n in (1, 2, 3, 4, 6, 7)}
        before = everything(ledger)
        keep(ledger, call(8, DECEMBER, attempt_id="a000003", name="again", flat_cost=None))
        assert [e.posted for e in ledger.events()] == [e.posted for e in before[2]]


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(journals(most=14), st.integers(0, 6))
def test_pruned_in_the_middle_and_brought_back_it_is_the_same_books(
    tmp_path: Path, journal: Journal, cut: int
) -> None:
    """Whatever comes after: nothing is posted twice, and the archive's return mends all."""
    ahead, behind = Journal(journal.batches[:cut]), journal.batches[cut:]
    folder = tmp_path / "archive"
    with closing(settled(ahead)) as ledger, closing(settled(ahead)) as other:
        for each in (ledger, other):
            close_month(each, "2026-02")
        record = pruned(ledger, folder, "2026-03")
        for each in (ledger, other):
            for batch in behind:
                seen = [record for record in batch if isinstance(record, Observation)]
                said = [record for record in batch if not isinstance(record, Observation)]
                with each.settling(1) as settlement:
                    settle(settlement, seen, said, (GATEWAY,))
            assert Books(each).is_balanced()
        assert broken_seals(ledger) == []
        if record is not None:
            restore(ledger, folder, (GATEWAY,))
        assert nets(ledger) == nets(other)
        assert [each.event for each in ledger.events()] == [each.event for each in other.events()]
        assert Books(ledger).is_balanced()
        assert ledger.counts("archived") == {"archived": 0}
        assert ledger.problems() == other.problems()


def test_before_is_a_moment_of_its_own(tmp_path: Path) -> None:
    with closing(shelf(tmp_path / "l.db")) as ledger:
        keep(ledger, call(1, "2026-10-31T23:59:59"), call(2, "2026-11-01"))
        close_month(ledger, "2026-11")
        record = pruned(ledger, tmp_path / "archive", "2026-11")
        assert record is not None
        assert record.observations == 1
        assert [seen.started_at for seen in ledger.journal()] == [at("2026-11-01")]
        assert pruned(ledger, tmp_path / "archive", "2026-11") is None
