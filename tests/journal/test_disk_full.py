"""A disk that is full at every byte of a segment: what was acknowledged is readable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty import FaultyFiles, fails, nothing
from reading import acked, check_no_gap, counts, names_and_numbers, observations, oids

from costspan.core import counters
from costspan.core.journal import ring, spool
from costspan.core.recorder import Ack, Held, Recorder, Refused
from costspan.core.schema import Observation

CALLS = [Observation(attempt_id=f"a{n}", tenant="acme", usage={"input": n}) for n in range(6)]


@pytest.fixture(autouse=True)
def counted_from_zero() -> Iterator[None]:
    counters.after_fork()
    yield
    counters.after_fork()


def size_of_a_segment(folder: Path) -> int:
    writer = Recorder(folder)
    for call in CALLS:
        writer.record(call)
    (path,) = spool.segments(folder)
    return path.stat().st_size


@pytest.mark.parametrize("cuts", [True, False])
def test_at_every_byte_without_a_folder_beside(tmp_path: Path, cuts: bool) -> None:
    """Half a frame is cut off again, or else the segment is left; then there is room again."""
    size_bytes = size_of_a_segment(tmp_path / "whole")
    for room_bytes in range(size_bytes + 1):
        counters.after_fork()
        folder = tmp_path / str(room_bytes)
        files = FaultyFiles()
        files.room_bytes[folder] = room_bytes
        files.before = nothing if cuts else fails("truncate")
        writer = Recorder(folder, files=files)
        answers = [writer.record(call) for call in CALLS]
        held = [isinstance(each, Held) for each in answers]
        assert held == sorted(held), "once one is held, the others wait behind it"
        assert all(isinstance(each, Ack | Held) for each in answers)
        assert writer.held == sum(held)
        files.room_bytes.clear()
        files.before = nothing
        last = writer.record(Observation(attempt_id="last"))
        assert isinstance(last, Ack), "there is room again"
        assert writer.held == 0
        writer.rotate()
        found = observations(folder, torn=True)
        in_order = list(dict.fromkeys(each.attempt_id for each in found))
        assert in_order == [*(call.attempt_id for call in CALLS), "last"]
        assert {*acked(answers), last.oid} <= set(oids(folder, torn=True))
        check_no_gap(folder)
        if cuts:
            assert len(found) == 7
            assert spool.quarantined(folder) == []
        told = counts(folder)
        assert told.get("ladder:held", 0) == told.get("ladder:late", 0) == sum(held)
        assert not any(name.startswith("refused") for name in told)
        writer.sync()  # which lets its descriptors go


def test_at_every_byte_with_a_folder_beside(tmp_path: Path) -> None:
    size_bytes = size_of_a_segment(tmp_path / "whole")
    for room_bytes in range(size_bytes + 1):
        counters.after_fork()
        folder, beside = tmp_path / str(room_bytes), tmp_path / f"{room_bytes}-beside"
        files = FaultyFiles()
        files.room_bytes[folder] = room_bytes
        writer = Recorder(folder, beside=beside, files=files)
        answers = [writer.record(call) for call in CALLS]
        assert len(acked(answers)) == 6
        files.room_bytes.clear()
        files.now_ns += 10**9
        answers.append(writer.record(Observation(attempt_id="last")))
        writer.rotate()
        assert sorted(acked(answers)) == sorted(map(str, oids(folder, beside)))
        check_no_gap(folder, beside)
        if room_bytes < size_bytes:
            assert "last" in {each.attempt_id for each in observations(folder)}
            told = counts(folder, beside)
            assert told["ladder:beside"] == len(observations(beside)) > 0
            assert told["breaker:spool:disk:28"] == 1
        writer.sync()


def test_no_room_anywhere_is_counted_and_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory takes so many, then records are refused; then all recovers, in order."""
    monkeypatch.setattr(ring, "RECORDS_MAX", 10)
    files = FaultyFiles()
    files.room_bytes[tmp_path] = 0
    writer = Recorder(tmp_path / "spool", beside=tmp_path / "beside", files=files)
    calls = [Observation(attempt_id=f"a{n:02}") for n in range(20)]
    answers = [writer.record(call) for call in calls]
    assert [type(each) for each in answers] == [Held] * 11 + [Refused] * 9  # one has its number
    assert {each.reason for each in answers if not isinstance(each, Ack)} == {"disk:28"}
    files.room_bytes[tmp_path] = 400  # some of it
    files.now_ns += 60 * 10**9
    writer.sync()
    files.room_bytes.clear()
    files.now_ns += 60 * 10**9
    writer.sync()
    assert writer.held == 0
    assert isinstance(writer.record(Observation(attempt_id="last")), Ack)
    writer.rotate()
    (numbers,) = names_and_numbers(tmp_path / "spool", tmp_path / "beside").values()
    assert [numbers[n] for n in range(1, 13)] == [f"a{n:02}" for n in range(11)] + ["last"]
    told = counts(tmp_path / "spool", tmp_path / "beside")
    assert told["refused:disk:28"] == 9
    assert told["ladder:held"] == told["ladder:late"] == 11


def test_memory_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "BYTES_MAX", 1000)
    files = FaultyFiles()
    files.room_bytes[tmp_path] = 0
    writer = Recorder(tmp_path / "spool", files=files)
    answers = [type(writer.append_body(bytes(400))) for _ in range(5)]
    assert answers == [Held, Held, Held, Refused, Refused]
    assert isinstance(writer.append_body(bytes(10)), Held)


def test_what_fits_nowhere_stands_in_nobodys_way(tmp_path: Path) -> None:
    """A body over 256 KiB is not held: smaller ones behind it may fit."""
    files = FaultyFiles()
    files.room_bytes[tmp_path] = 2000
    writer = Recorder(tmp_path / "spool", files=files)
    answers = [writer.record(CALLS[0])]
    refused = writer.append_body(bytes(300 * 1024))
    answers += [writer.record(call) for call in CALLS[1:]]
    writer.rotate()
    assert refused == Refused("disk:28")
    assert acked(answers) == oids(tmp_path / "spool")
    assert len(acked(answers)) == 6
    check_no_gap(tmp_path / "spool")
