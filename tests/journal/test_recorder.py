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

from costspan.core import counters, recorder
from costspan.core.journal import records, spool
from costspan.core.journal.frames import PAYLOAD_BYTES_MAX
from costspan.core.recorder import Ack, Recorder, Refused
from costspan.core.schema import Observation

CALL = Observation(attempt_id="a", tenant="acme", usage={"input": 7})


def read(folder: Path) -> list[records.Record]:
    """Every record in a folder that no live writer holds."""
    found: list[records.Record] = []
    for path in spool.segments(folder):
        with spool.claim(path) as content:
            assert content is not None
            assert content.quarantined == ()
            writer = None
            for payload in content.payloads:
                record = records.decode(payload, writer)
                writer = record.writer if isinstance(record, records.Opened) else writer
                found.append(record)
    return found


def oids(folder: Path) -> list[str | None]:
    return [record.oid for record in read(folder) if isinstance(record, Observation)]


def refusals(folder: Path) -> dict[str, int]:
    said = [record.counts for record in read(folder) if isinstance(record, records.Refusals)]
    return said[-1] if said else {}


def test_every_ack_is_in_the_spool_in_order_and_without_a_gap(tmp_path: Path) -> None:
    writer = Recorder(tmp_path)
    acks = [writer.record(CALL) for _ in range(20)]
    writer.rotate()
    assert acks == [Ack(f"{writer.writer}:{seq}") for seq in range(1, 21)]
    assert oids(tmp_path) == [ack.oid for ack in acks if isinstance(ack, Ack)]


def test_threads_share_one_writer(tmp_path: Path) -> None:
    writer = Recorder(tmp_path)
    acked: list[str] = []

    def work() -> None:
        acked.extend(a.oid for a in (writer.record(CALL) for _ in range(300)) if type(a) is Ack)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.rotate()
    assert sorted(acked) == sorted(f"{writer.writer}:{seq}" for seq in range(1, 1801))
    assert oids(tmp_path) == [f"{writer.writer}:{seq}" for seq in range(1, 1801)]


def test_a_full_segment_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "SEGMENT_BYTES_MAX", 500)
    writer = Recorder(tmp_path)
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
def test_what_cannot_be_written_is_refused_counted_and_said(
    tmp_path: Path, observation: Observation, reason: str
) -> None:
    writer = Recorder(tmp_path)
    before = counters.snapshot().get(f"refused:{reason}", 0)
    assert [writer.record(observation), writer.record(observation)] == [Refused(reason)] * 2
    assert counters.snapshot()[f"refused:{reason}"] == before + 2
    assert isinstance(writer.record(CALL), Ack)
    writer.rotate()
    assert refusals(tmp_path) == {reason: 2}
    assert oids(tmp_path) == [f"{writer.writer}:1"]


def test_a_folder_that_cannot_be_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    writer = Recorder(tmp_path / "file" / "spool")
    assert writer.record(CALL) == Refused(f"disk:{errno.ENOTDIR}")
    writer.rotate()
    writer.sync()


def test_after_a_failed_sync_the_segment_is_left_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    writer = Recorder(tmp_path)
    writer.record(CALL)
    monkeypatch.setattr(os, "fdatasync", broken)
    before = counters.snapshot().get(f"sync_failed:{errno.EIO}", 0)
    writer.sync()
    assert counters.snapshot()[f"sync_failed:{errno.EIO}"] == before + 1
    writer.record(CALL)
    assert len(spool.segments(tmp_path)) == 2
    writer.rotate()
    assert oids(tmp_path) == [f"{writer.writer}:1", f"{writer.writer}:2"]


def test_nobody_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that takes for ever holds up neither a record nor a rotation."""
    syncing, may_end = threading.Event(), threading.Event()

    def slow(fd: int) -> None:
        syncing.set()
        assert may_end.wait(60)

    writer = Recorder(tmp_path)
    writer.record(CALL)
    monkeypatch.setattr(os, "fdatasync", slow)
    thread = threading.Thread(target=writer.sync)
    thread.start()
    assert syncing.wait(60)
    acked = threading.Thread(target=lambda: (writer.record(CALL), writer.rotate()))
    acked.start()
    acked.join(30)
    held_up = acked.is_alive()
    may_end.set()
    thread.join()
    acked.join()
    assert not held_up
    assert oids(tmp_path) == [f"{writer.writer}:1", f"{writer.writer}:2"]


@pytest.mark.parametrize("truncates", [True, False])
def test_a_short_write_hides_nothing_that_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truncates: bool
) -> None:
    """Half a frame is cut off again; where that fails too, the segment is left."""
    real = os.write
    writer = Recorder(tmp_path)
    first = writer.record(CALL)
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[: len(data) // 2]))
    if not truncates:

        def broken(fd: int, length: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "ftruncate", broken)
    assert writer.record(CALL) == Refused("disk:28")
    monkeypatch.undo()
    acks = [first, writer.record(CALL), writer.record(CALL)]
    writer.rotate()
    found: list[str | None] = []
    for path in spool.segments(tmp_path):
        with spool.claim(path) as content:
            assert content is not None
            assert (content.quarantined == ()) == (truncates or path != spool.segments(tmp_path)[0])
            decoded = [records.decode(payload, writer.writer) for payload in content.payloads]
            found += [each.oid for each in decoded if isinstance(each, Observation)]
    assert found == [ack.oid for ack in acks if isinstance(ack, Ack)]


def test_a_forked_child_writes_to_a_segment_of_its_own(tmp_path: Path) -> None:
    writer = Recorder(tmp_path)
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


class Interrupt(BaseException):
    """What a host's signal handler raises: a time limit, a keyboard interrupt."""


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
    writer = Recorder(tmp_path)
    acks: list[Ack | Refused] = []
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
    writer = Recorder(tmp_path)
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
    found = oids(tmp_path)
    assert len(set(found)) == len(found)
    assert set(acked) <= set(found)
