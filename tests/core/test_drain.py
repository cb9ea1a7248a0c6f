"""The drain: what is settled together, what stays in the spool, and why nothing waits for it."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from costspan.core import drain as draining
from costspan.core.config import Config
from costspan.core.drain import Drained, drain
from costspan.core.journal import spool
from costspan.core.journal.files import SYSTEM
from costspan.core.journal.frames import MAGIC, frame
from costspan.core.journal.records import Counts, control_payload, encode_body, observation_payload
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.schema import Observation
from costspan.core.settle import Report
from costspan.core.settle.ledger import open_url

TOO_MUCH = 2**63 + 7
"""A number that no ledger's column holds: its record cannot be settled."""


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    (tmp_path / "spool").mkdir()
    return Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")


def segment(folder: Path, number: int, *payloads: bytes, head: bytes = MAGIC) -> Path:
    """A whole segment of a writer that is gone."""
    path = folder / f"{spool.segment_name(number, f'w{number}', 0)}.seg"
    path.write_bytes(head + b"".join(map(frame, payloads)))
    return path


def record(number: int, **fields: Any) -> bytes:
    """The payload of an observation of an attempt of its own, the `number`th of its writer."""
    attempt = f"a{next(_attempts):06d}"
    seen = Observation(attempt_id=attempt, tenant="acme", flat_cost="0.5", **fields)
    return observation_payload(number, encode_body(seen))


_attempts = itertools.count()


def journal(settings: Config) -> list[str]:
    with closing(open_url(settings.ledger_url, create=False)) as ledger:
        return sorted(each.oid or "" for each in ledger.journal())


def test_small_segments_are_settled_together(settings: Config) -> None:
    for number in range(100):
        segment(settings.spool, number, record(1), record(2))
    settlements: list[int] = []
    done = drain(settings, progress=lambda so_far: settlements.append(so_far.segments))
    assert settlements == [64, 100]
    assert (done.segments, done.settled.observations) == (100, 200)
    assert not spool.segments(settings.spool)


def test_a_large_segment_goes_only_with_its_last_record(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "RECORDS_PER_SETTLEMENT", 10)
    segment(settings.spool, 1, *map(record, range(1, 4)))
    segment(settings.spool, 2, *map(record, range(1, 26)))
    segment(settings.spool, 3, *map(record, range(1, 4)))
    left: list[tuple[int, int]] = []

    def tell(so_far: Drained) -> None:
        left.append((so_far.settled.observations, len(spool.segments(settings.spool))))

    done = drain(settings, progress=tell)
    assert left == [(10, 2), (20, 2), (30, 1), (31, 0)]
    assert done.settled.observations == 31


def test_a_folder_full_of_large_records_does_not_fill_the_memory(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "BATCH_BYTES_MAX", 10_000)
    for number in range(6):
        segment(settings.spool, number, record(1, agent="x" * 6_000))
    settlements: list[int] = []
    drain(settings, progress=lambda so_far: settlements.append(so_far.segments))
    assert settlements == [2, 4, 6, 6]


def test_what_cannot_be_settled_stays_and_holds_up_nothing(settings: Config) -> None:
    """Found among its neighbours of one settlement, whichever segment it came from."""
    segment(settings.spool, 1, *map(record, range(1, 8)))
    bad = segment(settings.spool, 2, record(1), record(2, started_at=TOO_MUCH), record(3))
    segment(settings.spool, 3, *map(record, range(1, 8)))
    for _ in range(2):
        done = drain(settings)
        assert done.unreadable == 1
        assert spool.segments(settings.spool) == [bad]
        expected = {f"w{n}:{k}" for n in (1, 3) for k in range(1, 8)} | {"w2:1", "w2:3"}
        assert set(journal(settings)) == expected


def test_of_many_that_cannot_be_settled_only_the_segments_are_found(settings: Config) -> None:
    """Nothing that is sound waits behind them for ever, and no drain looks for each of them."""
    bad: list[Path] = []
    for number in range(40):
        oversized = number % 4 != 0  # sound ones lie among them, and one comes last
        payloads = [record(1), record(2, started_at=TOO_MUCH if oversized else 1), record(3)]
        path = segment(settings.spool, number, *payloads)
        if oversized:
            bad.append(path)
    segment(settings.spool, 99, record(1))
    done = drain(settings)
    assert spool.segments(settings.spool) == bad
    assert {"w36:1", "w36:2", "w36:3", "w99:1"} <= set(journal(settings))
    assert draining.UNSETTLED_MAX < done.unreadable <= 3 * len(bad)
    assert (done.why or "").startswith("OverflowError: ")


def test_what_a_newer_version_wrote_stays_where_it_is(settings: Config) -> None:
    newer = segment(settings.spool, 1, record(1), head=MAGIC[:-1] + bytes((MAGIC[-1] + 1,)))
    kind = segment(settings.spool, 2, b"\x7fa kind of record to come", record(2))
    field = segment(settings.spool, 3, b"\x02" + b"\x81\xa4type\xa6splurg", record(3))
    done = drain(settings)
    assert (done.newer, done.unreadable, done.segments) == (1, 2, 2)
    assert spool.segments(settings.spool) == [newer, kind, field]
    assert not spool.quarantined(settings.spool)
    assert journal(settings) == ["w2:2", "w3:3"]


def test_control_records_come_to_the_ledger(settings: Config) -> None:
    for times in (3, 7, 5):  # cumulative: the greatest holds
        segment(settings.spool, times, control_payload(Counts("w", {"ladder:beside": times}, 0)))
    drain(settings)
    with closing(open_url(settings.ledger_url, create=False)) as ledger:
        told = [each.counts for each in ledger.controls() if isinstance(each, Counts)]
    assert told == [{"ladder:beside": 7}]


def test_a_folder_that_cannot_be_read_holds_up_no_other(settings: Config) -> None:
    no_folder = settings.spool / "file"
    no_folder.write_text("", "utf-8")
    segment(settings.spool, 1, record(1))
    done = drain(settings, [no_folder, settings.spool])
    assert (done.failed, done.segments) == (1, 1)


class Files:
    """The operating system's, but that files cannot be removed."""

    def __getattr__(self, name: str) -> Any:
        return getattr(SYSTEM, name)

    def unlink(self, path: Path) -> None:
        raise OSError(5, "Input/output error", str(path))


def test_committed_and_not_removed_is_settled_once(settings: Config) -> None:
    path = segment(settings.spool, 1, record(1), record(2))
    done = drain(settings, files=Files())
    assert (done.settled.observations, spool.segments(settings.spool)) == (2, [path])
    done = drain(settings)
    assert (done.settled.observations, done.settled.duplicates) == (0, 2)
    assert not spool.segments(settings.spool)


def test_a_locked_ledger_leaves_everything_where_it_is(settings: Config) -> None:
    segment(settings.spool, 1, record(1))
    drain(settings)
    path = segment(settings.spool, 2, record(1))
    with closing(sqlite3.connect(settings.ledger, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerBusy, match="the records stay in the spool"):
            drain(settings, timeout_seconds=0)
    assert spool.segments(settings.spool) == [path]
    assert drain(settings).settled.observations == 1


def test_a_ledger_that_is_locked_meanwhile(
    settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is gone from the spool; the rest is as it was, none of it blamed."""
    monkeypatch.setattr(draining, "RECORDS_PER_SETTLEMENT", 2)
    segment(settings.spool, 1, record(1), record(2))
    left = segment(settings.spool, 2, record(1), record(2))
    with closing(sqlite3.connect(settings.ledger, isolation_level=None)) as other:

        def lock(_: Drained) -> None:
            other.execute("BEGIN IMMEDIATE")

        with pytest.raises(LedgerBusy) as raised:
            drain(settings, timeout_seconds=0, progress=lock)
        other.execute("ROLLBACK")
    assert spool.segments(settings.spool) == [left]
    with spool.claim(left) as content:
        assert content is not None, "its lock is free again, though the error is still held"
    assert "the records stay in the spool" in str(raised.value)
    assert drain(settings).settled == Report(observations=2, events=2, postings=2)


@pytest.mark.parametrize("when", ["before", "while"])
def test_a_broken_ledger_leaves_everything_where_it_is(settings: Config, when: str) -> None:
    segment(settings.spool, 1, record(1))
    drain(settings)
    path = segment(settings.spool, 2, record(1))
    if when == "before":
        Path(settings.ledger).write_bytes(b"SQLite format 3\0" + bytes(5000))
    else:
        with closing(sqlite3.connect(settings.ledger)) as ledger, ledger:
            ledger.execute("DROP TABLE journal")
    with pytest.raises(LedgerError) as raised:
        drain(settings)
    assert settings.ledger in str(raised.value)
    assert spool.segments(settings.spool) == [path]
