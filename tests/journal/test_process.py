"""Who writes a segment: asked of the kernel alone, and never at the cost of the host."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from faulty import FaultyFiles
from reading import read

from costspan.core import counters
from costspan.core.journal import records
from costspan.core.journal.frames import MAGIC, first_payload, frame
from costspan.core.journal.process import Process, own_host, process_of
from costspan.core.journal.records import Counts, Opened
from costspan.core.read.waiting import waiting
from costspan.core.recorder import Ack, Recorder
from costspan.core.schema import Observation

CALL = Observation(attempt_id="a")
HERE = os.uname()


@pytest.fixture(autouse=True)
def counted_from_zero() -> Iterator[None]:
    counters.after_fork()
    yield
    counters.after_fork()


def call_host(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((HERE.sysname, name, *HERE[2:])))


def test_every_segment_says_which_process_writes(tmp_path: Path) -> None:
    writer = Recorder(tmp_path, files=FaultyFiles())
    me = Process(HERE.nodename, os.getpid())
    for _ in range(2):
        writer.record(CALL)
        (segment,) = [each for each in waiting(tmp_path).segments if each.is_live]
        assert segment == (writer.writer, True, me)
        writer.rotate()
    assert {each.process for each in waiting(tmp_path).segments} == {me}
    opened = [each for each in read(tmp_path) if isinstance(each, Opened)]
    assert [(each.host, each.pid) for each in opened] == [me, me]


def test_what_a_process_counted_says_which_one_it_was(tmp_path: Path) -> None:
    """It is told in the name of the first writer, which may never have opened a segment."""
    first = Recorder(tmp_path, files=FaultyFiles())
    writer = Recorder(tmp_path, files=FaultyFiles())
    counters.count("refused:disk:28")
    writer.record(CALL)
    writer.rotate()
    (told,) = [each for each in read(tmp_path) if isinstance(each, Counts)]
    assert told.writer == first.writer
    assert process_of(told) == (HERE.nodename, os.getpid())


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("web-1", "web-1"),
        ("", None),
        (" ", None),
        ("a\x00b\x1b]0;c\x07", "a�b�]0;c�"),
        ("\udcff\udcfe", "��"),
        ("é" * 1000, "é" * 256),
    ],
)
def test_a_host_may_be_called_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, host: str | None
) -> None:
    call_host(monkeypatch, name)
    writer = Recorder(tmp_path, files=FaultyFiles())
    assert type(writer.record(CALL)) is Ack
    (segment,) = waiting(tmp_path).segments
    assert segment.process == (host, os.getpid())
    writer.rotate()


@pytest.mark.parametrize("error", [OSError(38, "no such call"), AttributeError(), MemoryError()])
def test_a_system_that_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def uname() -> os.uname_result:
        raise error

    monkeypatch.setattr(os, "uname", uname)
    assert own_host() is None
    writer = Recorder(tmp_path, files=FaultyFiles())
    assert type(writer.record(CALL)) is Ack
    (segment,) = waiting(tmp_path).segments
    assert segment.process == (None, os.getpid())
    writer.rotate()


def test_no_name_server_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("getfqdn", "gethostbyname", "gethostbyaddr", "getaddrinfo", "getnameinfo"):
        monkeypatch.delattr(socket, name)
    writer = Recorder(tmp_path, files=FaultyFiles())
    assert type(writer.record(CALL)) is Ack
    writer.rotate()


def test_a_writer_keeps_the_name_its_host_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call_host(monkeypatch, "before")
    writer = Recorder(tmp_path, files=FaultyFiles())
    writer.record(CALL)
    writer.rotate()
    call_host(monkeypatch, "after")
    writer.record(CALL)
    writer.rotate()
    assert [each.process.host for each in waiting(tmp_path).segments] == ["before", "before"]


def test_what_older_versions_wrote_says_less() -> None:
    """And what this one writes of an unknown host are their very bytes."""
    opened = msgspec.msgpack.encode({"type": "opened", "writer": "w", "pid": 7, "opened_at": 1})
    counts = msgspec.msgpack.encode(
        {"type": "counts", "writer": "w", "counts": {"x": 1}, "recorded_at": 1}
    )
    for body, record, who in (
        (opened, Opened("w", 7, 1), (None, 7)),
        (counts, Counts("w", {"x": 1}, 1), (None, None)),
    ):
        found = records.decode(b"\x02" + body, None)
        assert found == record
        assert isinstance(found, Opened | Counts)
        assert process_of(found) == who
        assert records.control_payload(record) == b"\x02" + body


def test_what_is_written_from_now_on() -> None:
    """Every later version reads these bytes."""
    assert records.control_payload(Opened("w", 7, 1, "web-1")) == (
        b"\x02\x85\xa4type\xa6opened\xa6writer\xa1w\xa3pid\x07\xa9opened_at\x01\xa4host\xa5web-1"
    )
    assert records.control_payload(Counts("w", {}, 1, "web-1", 7)) == (
        b"\x02\x86\xa4type\xa6counts\xa6writer\xa1w\xa6counts\x80\xabrecorded_at\x01"
        b"\xa4host\xa5web-1\xa3pid\x07"
    )


def test_no_older_version_stumbles_over_what_is_said_now() -> None:
    class OlderOpened(msgspec.Struct, tag="opened"):
        writer: str
        pid: int
        opened_at: int

    payload = records.control_payload(Opened("w", 7, 1, "web-1"))
    found = msgspec.msgpack.decode(payload[1:], type=OlderOpened)
    assert (found.writer, found.pid, found.opened_at) == ("w", 7, 1)


@pytest.mark.parametrize("pid", [0, -1, 2**32, 2**63, 2**64 - 1])
def test_what_is_no_pid_is_unknown(pid: int) -> None:
    assert process_of(Opened("w", pid, 1, "web-1")) == ("web-1", None)
    assert process_of(Counts("w", {}, 1, "web-1", pid)) == ("web-1", None)


OPENED = frame(records.control_payload(Opened("w", 7, 1, "web-1")))
OTHERS = frame(records.control_payload(Opened("v", 7, 1, "web-1")))
CALLED = frame(records.observation_payload(1, records.encode_body(CALL)))


@pytest.mark.parametrize(
    ("content", "process"),
    [
        (MAGIC + OPENED, ("web-1", 7)),
        (MAGIC + OPENED + b"torn", ("web-1", 7)),
        *((MAGIC + OPENED[:length], (None, None)) for length in (0, 3, len(OPENED) - 1)),
        (MAGIC + OPENED[:-1] + b"?" + OPENED, (None, None)),
        (MAGIC + CALLED + OPENED, (None, None)),
        (MAGIC + OTHERS, (None, None)),
        (MAGIC + frame(b"\x02nothing"), (None, None)),
        (MAGIC[:-1] + b"\x7f" + OPENED, (None, None)),
        (b"", (None, None)),
    ],
)
def test_a_segment_that_does_not_say(
    tmp_path: Path, content: bytes, process: tuple[str | None, int | None]
) -> None:
    """Damaged, cut short, of a newer version, or named as another writer's: nobody guesses."""
    (tmp_path / "1-w-0.seg").write_bytes(content)
    (segment,) = waiting(tmp_path).segments
    assert segment == ("w", False, process)


def test_a_first_payload_is_whole_or_none() -> None:
    whole = MAGIC + OPENED
    for length in range(len(whole)):
        assert first_payload(whole[:length]) is None
    assert first_payload(whole + CALLED[:5]) == records.control_payload(Opened("w", 7, 1, "web-1"))
