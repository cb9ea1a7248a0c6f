"""Each rung of the ladder, down and up again: the spool, the folder beside it, memory, refusal."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FaultyFiles, Interrupt, fails, nothing
from reading import acked, check_no_gap, observations, oids

from costspan.core import counters
from costspan.core.config import Config
from costspan.core.journal import beside, ring, spool
from costspan.core.recorder import Ack, Held, Recorder, Refused
from costspan.core.schema import Observation

SECOND = 10**9


@pytest.fixture(autouse=True)
def counted_from_zero() -> Iterator[None]:
    counters.after_fork()
    yield
    counters.after_fork()


def call(number: int) -> Observation:
    return Observation(attempt_id=str(number))


def in_folder(folder: Path) -> list[str | None]:
    return [each.attempt_id for each in observations(folder)]


def test_down_and_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "RECORDS_MAX", 1)
    one, two = tmp_path / "spool", tmp_path / "beside"
    files = FaultyFiles()
    writer = Recorder(one, beside=two, files=files)
    answers = [writer.record(call(0))]
    files.room_bytes[one] = 0
    answers.append(writer.record(call(1)))
    files.room_bytes[two] = 0
    answers += [writer.record(call(number)) for number in (2, 3, 4)]
    assert [type(each) for each in answers] == [Ack, Ack, Held, Held, Refused]
    del files.room_bytes[two]
    answers.append(writer.record(call(5)))  # nothing else is to be had: tried at once
    del files.room_bytes[one]
    answers.append(writer.record(call(6)))  # the folder beside does: the spool has its rest
    files.now_ns += 2 * SECOND
    answers.append(writer.record(call(7)))
    writer.rotate()
    assert in_folder(one) == ["0", "7"]
    assert in_folder(two) == ["1", "2", "3", "5", "6"]
    assert acked(answers) == [f"{writer.writer}:{n}" for n in (1, 2, 5, 6, 7)]
    check_no_gap(one, two)
    assert counters.snapshot() == {
        "breaker:spool:disk:28": 1, "breaker:beside:disk:28": 1,
        "ladder:beside": 5, "ladder:held": 2, "ladder:late": 2, "refused:disk:28": 1,
    }  # fmt: skip


def test_a_folder_that_fails_rests_longer_every_time(tmp_path: Path) -> None:
    """1 s, 2 s, 4 s, ... 60 s; and 1 s again after it took a record."""
    one = tmp_path / "spool"
    files = FaultyFiles()
    writer = Recorder(one, beside=tmp_path / "beside", files=files)
    files.room_bytes[one] = 0
    for rest in (1, 2, 4, 8, 16, 32, 60, 60):
        writer.record(call(0))
        tried = files.folders.count(one)
        files.now_ns += rest * SECOND - 1
        writer.record(call(0))
        assert files.folders.count(one) == tried, "it rests"
        files.now_ns += 1
    del files.room_bytes[one]
    writer.record(call(1))
    files.room_bytes[one] = 0
    files.now_ns += 6 * SECOND  # a new segment is due, and has no room
    writer.record(call(2))
    del files.room_bytes[one]
    files.now_ns += SECOND
    writer.record(call(3))
    writer.rotate()
    assert in_folder(one) == ["1", "3"]


@pytest.mark.parametrize("has_beside", [True, False])
def test_a_slow_write_trips_the_breaker(tmp_path: Path, has_beside: bool) -> None:
    """It is acknowledged; the next ones go elsewhere, and wait for no disk."""
    one, two = tmp_path / "spool", tmp_path / "beside"
    files = FaultyFiles()
    writer = Recorder(one, beside=two if has_beside else None, files=files)
    writer.record(call(0))

    def slow(name: str) -> None:
        files.now_ns += 51_000_000 if name == "write" else 0

    files.before = slow
    assert isinstance(writer.record(call(1)), Ack)
    files.before = nothing
    tried = len(files.calls)
    answers = [writer.record(call(number)) for number in (2, 3)]
    if has_beside:
        assert len(acked(answers)) == 2
    else:
        assert answers == [Held("slow"), Held("slow")]
        assert files.calls[tried:] == [], "one that is slow is not tried before its time"
    files.now_ns += SECOND
    assert isinstance(writer.record(call(4)), Ack)
    writer.rotate()
    assert in_folder(one) == (["0", "1", "4"] if has_beside else ["0", "1", "2", "3", "4"])
    assert in_folder(two) == (["2", "3"] if has_beside else [])
    assert counters.snapshot()["breaker:spool:slow"] == 1


def test_a_write_of_49_ms_trips_nothing(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path / "spool", beside=tmp_path / "beside", files=files)

    def slow(name: str) -> None:
        files.now_ns += 49_000_000 if name == "write" else 0

    writer.record(call(0))
    files.before = slow
    assert len(acked([writer.record(call(number)) for number in range(5)])) == 5
    assert not (tmp_path / "beside").exists()


def test_nobody_waits_for_a_write_that_is_stuck(tmp_path: Path) -> None:
    """Another thread's: the record goes to memory, and to the disk right after it."""
    stuck, may_end = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        if name == "write":
            stuck.set()
            assert may_end.wait(60)

    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    writer.record(call(0))
    files.before = slow
    answers: list[Ack | Held | Refused] = []
    thread = threading.Thread(target=lambda: answers.append(writer.record(call(1))))
    thread.start()
    assert stuck.wait(60)
    held = [writer.record(call(number)) for number in (2, 3)]
    writer.sync()
    files.before = nothing
    may_end.set()
    thread.join()
    assert held == [Held("busy"), Held("busy")]
    last = writer.record(call(4))
    writer.rotate()
    assert in_folder(tmp_path) == ["0", "1", "2", "3", "4"]
    assert acked([*answers, last]) == [f"{writer.writer}:2", f"{writer.writer}:5"]


def test_what_is_held_is_written_by_a_sync_and_by_a_rotation(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    for step in (writer.sync, writer.rotate):
        files.room_bytes[tmp_path] = 0
        assert isinstance(writer.record(call(1)), Held)
        assert isinstance(writer.record(call(2)), Held)
        files.room_bytes.clear()
        files.now_ns += SECOND
        step()
        assert writer.held == 0
    assert in_folder(tmp_path) == ["1", "2", "1", "2"]
    check_no_gap(tmp_path)


@pytest.mark.parametrize("at", range(60))
def test_an_interrupt_while_held_records_are_written_doubles_and_loses_none(
    tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any call that the recovery makes, before or after its effect."""
    monkeypatch.setattr("costspan.core.journal.ladder._BATCH_BYTES", 40)
    files = FaultyFiles()
    files.room_bytes[tmp_path] = 0
    writer = Recorder(tmp_path, files=files)
    for number in range(9):
        assert isinstance(writer.record(call(number)), Held)
    files.room_bytes.clear()
    steps = iter(range(10**6))

    def interrupt(name: str) -> None:
        if next(steps) == at:
            raise Interrupt

    files.before = files.after = interrupt
    try:
        writer.record(call(9))
    except Interrupt:
        writer.record(call(10))
    files.before = files.after = nothing
    writer.rotate()
    once = {each.oid: each.attempt_id for each in observations(tmp_path, torn=True)}
    kept = list(once.values())
    assert kept[:9] == [str(number) for number in range(9)]
    assert kept[9:] in (["9"], ["10"], ["9", "10"])
    check_no_gap(tmp_path)


def test_a_segment_that_somebody_removed_is_counted(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    writer.record(call(0))
    (path,) = spool.segments(tmp_path)
    path.unlink()
    writer.rotate()
    assert counters.snapshot()["segment_gone"] == 1


def test_a_segment_is_given_up_when_it_is_old(tmp_path: Path) -> None:
    """By the next record, or by the thread where none comes."""
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    writer.record(call(0))
    files.now_ns += 5 * SECOND
    writer.record(call(1))
    assert len(spool.segments(tmp_path)) == 2
    writer.sync()
    assert len(spool.segments(tmp_path)) == 2
    files.now_ns += 5 * SECOND
    writer.sync()
    assert in_folder(tmp_path) == ["0", "1"]


@pytest.fixture
def default_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default folder beside the spool, in a shared place of this test's own."""
    (tmp_path / "shared").mkdir(mode=0o777)
    monkeypatch.setattr(beside, "_SHARED_MEMORY", tmp_path / "shared")
    return beside.folder_for(tmp_path / "spool")


def test_the_default_folder_is_this_users_alone(tmp_path: Path, default_beside: Path) -> None:
    config = Config(ledger="l", spool=tmp_path / "spool", spool_beside=default_beside)
    assert spool.folders_of(config) == (config.spool,), "it is not there"
    files = FaultyFiles()
    files.room_bytes[config.spool] = 0
    writer = Recorder(config.spool, beside=default_beside, files=files)
    assert isinstance(writer.record(call(0)), Ack)
    for folder in (default_beside, default_beside.parent):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert spool.folders_of(config) == (config.spool, default_beside)
    writer.rotate()
    assert oids(default_beside) == [f"{writer.writer}:1"]


@pytest.mark.parametrize("which", ["folder", "parent", "link"])
def test_a_default_folder_of_others_is_neither_written_nor_read(
    tmp_path: Path, default_beside: Path, which: str
) -> None:
    """Whoever made it first could read our records, or have us read theirs."""
    if which == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        default_beside.parent.mkdir(mode=0o700)
        default_beside.symlink_to(tmp_path / "theirs")
    else:
        default_beside.mkdir(parents=True)
        default_beside.parent.chmod(0o755 if which == "parent" else 0o700)
        default_beside.chmod(0o777 if which == "folder" else 0o700)
    config = Config(ledger="l", spool=tmp_path / "spool", spool_beside=default_beside)
    files = FaultyFiles()
    files.room_bytes[config.spool] = 0
    writer = Recorder(config.spool, beside=default_beside, files=files)
    assert writer.record(call(0)) == Held(f"disk:{errno.ENOSPC}")
    assert counters.snapshot()[f"breaker:beside:disk:{errno.EPERM}"] == 1
    assert list(default_beside.iterdir()) == []
    assert spool.folders_of(config) == (config.spool,)


def test_two_spools_share_no_folder(tmp_path: Path) -> None:
    """Else a drain would bring one's records into the other's books."""
    one, two = beside.folder_for(tmp_path / "one"), beside.folder_for(tmp_path / "two")
    assert one != two
    (tmp_path / "link").symlink_to(tmp_path / "one")
    assert beside.folder_for(tmp_path / "link") == one
    assert one.parent.name == f"costspan-{os.getuid()}"


def test_a_folder_that_was_named_is_the_operators_choice(tmp_path: Path) -> None:
    config = Config(ledger="l", spool=tmp_path / "one", spool_beside=tmp_path / "two")
    assert spool.folders_of(config) == (tmp_path / "one", tmp_path / "two")
    assert spool.folders_of(Config(ledger="l", spool=tmp_path)) == (tmp_path,)


def test_every_call_of_a_record_goes_through_the_seam(tmp_path: Path) -> None:
    """What a simulator does not see, it cannot fail."""
    files = FaultyFiles()
    files.before = fails(number=errno.EROFS)
    writer = Recorder(tmp_path / "spool", beside=tmp_path / "beside", files=files)
    assert writer.record(call(0)) == Held(f"disk:{errno.EROFS}")
    writer.sync()
    writer.rotate()
    assert list(tmp_path.iterdir()) == []
