"""What a process counted reaches the journal, and does not keep the disk busy by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FaultyFiles
from reading import counts, read

from costspan.core import counters
from costspan.core.journal import records, spool
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation

CALL = Observation(attempt_id="a")
SECOND = 10**9


@pytest.fixture(autouse=True)
def counted_from_zero() -> Iterator[None]:
    counters.after_fork()
    yield
    counters.after_fork()


def told(folder: Path) -> list[dict[str, int]]:
    return [each.counts for each in read(folder) if isinstance(each, records.Counts)]


def test_all_counters_are_told_when_a_segment_ends(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    counters.count("jwt_refused:expired", 2)
    writer.record(CALL)
    counters.count("carrier_key")
    writer.rotate()
    assert told(tmp_path) == [{"jwt_refused:expired": 2, "carrier_key": 1}]
    (record,) = [each for each in read(tmp_path) if isinstance(each, records.Counts)]
    assert record.writer == writer.writer


def test_nothing_is_told_twice(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    counters.count("carrier_key")
    for _ in range(3):
        writer.record(CALL)
        writer.rotate()
    assert told(tmp_path) == [{"carrier_key": 1}]
    writer.rotate()
    counters.count("carrier_key")
    writer.rotate()  # there is no segment, and a rotation opens none
    assert len(told(tmp_path)) == 1


def test_a_process_that_records_nothing_tells_ever_more_rarely(tmp_path: Path) -> None:
    """Each drain that fails is counted: telling that must not go on filling the spool."""
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    for _ in range(24 * 3600):
        counters.count("drain_failed:LedgerBusy")
        writer.sync()
        files.now_ns += SECOND
    assert 5 < len(spool.segments(tmp_path)) < 40
    writer.record(CALL)
    writer.rotate()
    assert told(tmp_path)[-1] == {"drain_failed:LedgerBusy": 24 * 3600}


def test_while_records_come_it_is_told_every_few_seconds(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    for _ in range(60):
        counters.count("carrier_key")
        writer.record(CALL)
        writer.sync()
        files.now_ns += SECOND
    writer.rotate()
    assert 12 <= len(told(tmp_path)) <= 26
    assert told(tmp_path)[-1] == {"carrier_key": 60}


def test_a_process_tells_in_one_name_whatever_writers_it_has(tmp_path: Path) -> None:
    """Else the counts of two recorders, one after another, would be added up."""
    first, second = (Recorder(tmp_path / name, files=FaultyFiles()) for name in ("one", "two"))
    for writer in (first, second):
        counters.count("carrier_key")
        writer.record(CALL)
        writer.rotate()
    names = {
        r.writer for r in read(tmp_path / "one", tmp_path / "two") if type(r) is records.Counts
    }
    assert names == {first.writer}


def test_a_child_counts_for_itself(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    counters.count("carrier_key")
    writer.record(CALL)
    if (pid := os.fork()) == 0:
        counters.after_fork()
        writer.after_fork()
        counters.count("plugin:failed")
        writer.record(CALL)
        writer.rotate()
        os._exit(0)
    os.waitpid(pid, 0)
    writer.rotate()
    assert sorted(map(sorted, told(tmp_path))) == [["carrier_key"], ["plugin:failed"]]
    assert counts(tmp_path)
