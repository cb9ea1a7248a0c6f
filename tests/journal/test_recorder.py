"""`record()`: an ack survives, a refusal is counted, nothing raises and nothing hangs."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faulty import FaultyFiles, Interrupt, fails, nothing
from reading import Answer, acked, check_no_gap, counts, oids

from costspan.core import counters
from costspan.core.journal import rung, spool
from costspan.core.journal.frames import PAYLOAD_BYTES_MAX
from costspan.core.recorder import Ack, Held, Recorder, Refused
from costspan.core.schema import Observation

CALL = Observation(attempt_id="a", tenant="acme", usage={"input": 7})


def test_every_ack_is_in_the_spool_in_order_and_without_a_gap(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    acks = [writer.record(CALL) for _ in range(20)]
    writer.rotate()
    assert acks == [Ack(f"{writer.writer}:{seq}") for seq in range(1, 21)]
    assert oids(tmp_path) == [ack.oid for ack in acks if isinstance(ack, Ack)]


def test_threads_share_one_writer(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    answers: list[Answer] = []

    def work() -> None:
        answers.extend(writer.record(CALL) for _ in range(300))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.rotate()
    assert not any(isinstance(each, Refused) for each in answers)
    assert set(acked(answers)) <= set(map(str, oids(tmp_path)))
    assert oids(tmp_path) == [f"{writer.writer}:{seq}" for seq in range(1, 1801)]


def test_a_full_segment_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rung, "SEGMENT_BYTES_MAX", 500)
    writer = Recorder(tmp_path, files=FaultyFiles())
    for _ in range(50):
        writer.record(CALL)
    assert len(spool.segments(tmp_path)) > 3
    writer.rotate()
    assert oids(tmp_path) == [f"{writer.writer}:{seq}" for seq in range(1, 51)]


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (Observation(attributes={"x": object()}), "unencodable:TypeError"),
        (Observation(started_at=2**70), "unencodable:OverflowError"),
        (Observation(name="\ud800"), "unencodable:UnicodeEncodeError"),
        (Observation(attributes={"x": "y" * PAYLOAD_BYTES_MAX}), "too_large"),
    ],
)
def test_what_cannot_be_written_is_refused_counted_and_told(
    tmp_path: Path, observation: Observation, reason: str
) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    before = counters.snapshot().get(f"refused:{reason}", 0)
    assert [writer.record(observation), writer.record(observation)] == [Refused(reason)] * 2
    assert isinstance(writer.record(CALL), Ack)
    writer.rotate()
    assert counts(tmp_path)[f"refused:{reason}"] == before + 2
    assert oids(tmp_path) == [f"{writer.writer}:1"]


def test_a_folder_that_cannot_be_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("in the way")
    writer = Recorder(tmp_path / "spool", files=FaultyFiles())
    assert writer.record(CALL) == Held(f"disk:{errno.EEXIST}")
    writer.sync()
    writer.rotate()
    (tmp_path / "spool").unlink()
    assert writer.record(CALL) == Ack(f"{writer.writer}:2")
    writer.rotate()
    assert oids(tmp_path / "spool") == [f"{writer.writer}:1", f"{writer.writer}:2"]


def test_an_observation_with_a_name_of_its_own_keeps_it(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    assert writer.record(Observation(oid="mine:7")) == Ack("mine:7")
    assert writer.append_body(b"\x80") == Ack(f"{writer.writer}:2")
    writer.rotate()
    assert oids(tmp_path) == ["mine:7", f"{writer.writer}:2"]


def test_after_a_failed_sync_the_segment_is_left_and_nothing_is_lost(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    writer.record(CALL)
    files.before = fails("sync")
    before = counters.snapshot().get(f"sync_failed:{errno.EIO}", 0)
    writer.sync()
    assert counters.snapshot()[f"sync_failed:{errno.EIO}"] == before + 1
    with spool.claim(spool.segments(tmp_path)[0]) as content:
        assert content is not None, "any drainer may have it"
    assert isinstance(writer.record(CALL), Ack)
    assert len(spool.segments(tmp_path)) == 2
    writer.rotate()
    assert oids(tmp_path) == [f"{writer.writer}:1", f"{writer.writer}:2"]


def test_everything_is_on_the_disk_after_a_sync_and_the_folder_once(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    for _ in range(3):
        writer.record(CALL)
        writer.sync()
        writer.sync()  # nothing new: nothing to do
    assert (files.calls.count("sync"), files.calls.count("sync_folder")) == (3, 1)
    writer.record(CALL)
    writer.rotate()
    writer.sync()  # what was rotated away in between too
    assert files.calls.count("sync") == 4


def test_each_record_is_on_the_disk_where_that_is_asked(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path, sync="always", files=files)
    for number in range(1, 4):
        assert isinstance(writer.record(CALL), Ack)
        assert files.calls.count("sync") == number
    assert files.calls.index("sync_folder") < files.calls.index("sync")


def test_a_record_that_is_not_on_the_disk_is_not_acknowledged(tmp_path: Path) -> None:
    files = FaultyFiles()
    writer = Recorder(tmp_path, sync="always", files=files)
    first = writer.record(CALL)
    files.before = fails("sync")
    assert writer.record(CALL) == Held(f"disk:{errno.EIO}")
    files.before = nothing
    last = writer.record(CALL)
    writer.rotate()
    assert acked([first, last]) == [f"{writer.writer}:1", f"{writer.writer}:3"]
    # Its frame is in the segment whose sync failed, and again, under the same name, elsewhere.
    assert sorted(set(map(str, oids(tmp_path)))) == [f"{writer.writer}:{n}" for n in (1, 2, 3)]
    assert oids(tmp_path).count(f"{writer.writer}:2") > 1


def test_nobody_waits_for_the_disk(tmp_path: Path) -> None:
    """A sync that takes for ever holds up neither a record nor a rotation."""
    syncing, may_end = threading.Event(), threading.Event()

    def slow(name: str) -> None:
        if name == "sync":
            syncing.set()
            assert may_end.wait(60)

    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    writer.record(CALL)
    files.before = slow
    thread = threading.Thread(target=writer.sync)
    thread.start()
    assert syncing.wait(60)

    def record_and_rotate() -> None:
        writer.record(CALL)
        writer.rotate()

    other = threading.Thread(target=record_and_rotate)
    other.start()
    other.join(30)
    held_up = other.is_alive()
    may_end.set()
    thread.join()
    other.join()
    assert not held_up
    assert oids(tmp_path) == [f"{writer.writer}:1", f"{writer.writer}:2"]


def test_a_forked_child_writes_to_a_segment_of_its_own(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    first = writer.record(CALL)
    read_end, write_end = os.pipe()
    if (pid := os.fork()) == 0:
        writer.after_fork()
        mine = [writer.record(CALL) for _ in range(2)]
        os.write(write_end, " ".join(a.oid for a in mine if isinstance(a, Ack)).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write_end)
    with open(read_end) as said:
        childs = said.read().split()
    second = writer.record(CALL)
    writer.rotate()
    parents = [ack.oid for ack in (first, second) if isinstance(ack, Ack)]
    assert parents == [f"{writer.writer}:1", f"{writer.writer}:2"]
    assert [oid.partition(":")[2] for oid in childs] == ["1", "2"]
    assert not any(oid.startswith(writer.writer) for oid in childs)
    assert sorted(map(str, oids(tmp_path))) == sorted([*parents, *childs])


@pytest.fixture
def alarms() -> Iterator[Any]:
    """Start a signal that comes again and again while this process works."""
    before = signal.getsignal(signal.SIGVTALRM)

    def start(handler: Any) -> None:
        signal.signal(signal.SIGVTALRM, handler)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0.0003, 0.0003)

    yield start
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


def test_a_record_in_the_middle_of_a_record_neither_hangs_nor_mixes(
    tmp_path: Path, alarms: Any
) -> None:
    """Signal handlers and finalizers run between any two steps of a record."""
    writer = Recorder(tmp_path, files=FaultyFiles())
    acks: list[Answer] = []
    alarms(lambda *_: acks.append(writer.record(CALL)))
    for _ in range(50_000):
        acks.append(writer.record(CALL))
        if any(isinstance(a, Ack) and not a.oid.startswith(writer.writer) for a in acks[-3:]):
            break  # one came right inside another
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    writer.rotate()
    assert all(isinstance(ack, Ack) for ack in acks)
    assert sorted(map(str, oids(tmp_path))) == sorted(a.oid for a in acks if isinstance(a, Ack))


def test_an_interrupted_record_costs_no_other_one(tmp_path: Path, alarms: Any) -> None:
    """No two frames share a number, and no acknowledged frame is cut off."""
    writer = Recorder(tmp_path, files=FaultyFiles())
    acked: list[str] = []
    interrupted = 0
    recording = False

    def interrupt(*_: object) -> None:
        nonlocal recording
        if recording:
            recording = False
            raise Interrupt

    alarms(interrupt)
    while interrupted < 60:
        try:
            recording = True
            ack = writer.record(CALL)
            recording = False
        except Interrupt:
            interrupted += 1
        else:
            acked += [ack.oid] if isinstance(ack, Ack) else []
    writer.rotate()
    assert set(acked) <= set(oids(tmp_path, torn=True))
    check_no_gap(tmp_path)
