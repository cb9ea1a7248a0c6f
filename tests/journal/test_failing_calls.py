"""The n-th call fails, for every n: what was acknowledged is there once, and nothing raises."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, Literal

import pytest
from faulty import FaultyFiles, Interrupt, nothing, nth
from reading import Answer, acked, check_no_gap, names_and_numbers, oids

from costspan.core.journal import spool
from costspan.core.recorder import Held, Recorder
from costspan.core.schema import Observation

IO_ERROR = OSError(errno.EIO, "Input/output error")


def use(writer: Recorder, answers: list[Answer]) -> None:
    """All that a process does with its recorder, twice over."""
    for part in range(2):
        for number in range(3):
            answers.append(writer.record(Observation(attempt_id=f"a{part}{number}")))
        writer.sync()
        answers.append(writer.record(Observation(attempt_id=f"b{part}")))
        writer.rotate()


def calls_of_use(folder: Path, **settings: Any) -> list[str]:
    files = FaultyFiles()
    use(Recorder(folder, files=files, **settings), [])
    return files.calls


ALL = ["a00", "a01", "a02", "a10", "a11", "a12", "b0", "b1"]
SEEN = {"make_folder", "create", "lock", "write", "rename", "is_at", "unlock", "close"}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("sync", ["interval", "always"])
def test_one_call_fails(
    tmp_path: Path, sync: Literal["interval", "always"], beside: bool, when: str
) -> None:
    """Before it has any effect, or after all of it."""
    calls = calls_of_use(tmp_path / "whole", sync=sync)
    assert set(calls) >= SEEN | {"sync", "sync_folder"}
    for number in range(len(calls)):
        folder, other = tmp_path / str(number), tmp_path / f"{number}-beside"
        files = FaultyFiles()
        setattr(files, when, nth(number, IO_ERROR))
        writer = Recorder(folder, beside=other if beside else None, sync=sync, files=files)
        answers: list[Answer] = []
        use(writer, answers)
        files.before = files.after = nothing
        writer.rotate()
        kept = names_and_numbers(folder, other)
        assert sorted({str(a) for n in kept.values() for a in n.values()}) == ALL
        assert set(acked(answers)) <= set(oids(folder, other, torn=True))
        check_no_gap(folder, other)


@pytest.mark.parametrize("sync", ["interval", "always"])
def test_from_one_call_on_all_fail_until_they_do_not(
    tmp_path: Path, sync: Literal["interval", "always"]
) -> None:
    for number in range(len(calls_of_use(tmp_path / "whole", sync=sync))):
        folder = tmp_path / str(number)
        files = FaultyFiles()
        files.before = nth(number, IO_ERROR, for_ever=True)
        writer = Recorder(folder, sync=sync, files=files)
        answers: list[Answer] = []
        use(writer, answers)
        files.before = nothing
        writer.rotate()
        assert writer.held == 0
        kept = [a for n in names_and_numbers(folder).values() for a in n.values()]
        assert sorted(map(str, kept)) == ALL
        assert set(acked(answers)) <= set(oids(folder, torn=True))
        check_no_gap(folder)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("sync", ["interval", "always"])
def test_an_interrupt_at_any_call(
    tmp_path: Path, sync: Literal["interval", "always"], when: str
) -> None:
    """It passes to the host; no number is lost, none is two records', nothing acked is gone."""
    for number in range(len(calls_of_use(tmp_path / "whole", sync=sync))):
        folder = tmp_path / str(number)
        files = FaultyFiles()
        setattr(files, when, nth(number, Interrupt()))
        writer = Recorder(folder, sync=sync, files=files)
        answers: list[Answer] = []
        try:
            use(writer, answers)
        except Interrupt:
            use(writer, answers)
        files.before = files.after = nothing
        writer.rotate()
        assert set(acked(answers)) <= set(oids(folder, torn=True))
        check_no_gap(folder)


@pytest.mark.parametrize("torn", [True, False])
def test_a_drain_survives_every_failing_call(tmp_path: Path, torn: bool) -> None:
    """It takes all of a segment or nothing; what is torn is put aside before anything goes."""

    def segment(folder: Path) -> Path:
        writer = Recorder(folder)
        writer.append_body(b"\x80")
        writer.rotate()
        (path,) = spool.segments(folder)
        if torn:
            path.write_bytes(path.read_bytes() + b"half a fra")
        return path

    def take(files: FaultyFiles, path: Path) -> int:
        with spool.claim(path, files) as content:
            if content is None:
                return 0
            spool.finish(content, files)
            return len(content.payloads)

    whole = FaultyFiles()
    written = take(whole, segment(tmp_path / "whole"))
    assert written >= 2
    for number in range(len(whole.calls)):
        path = segment(tmp_path / str(number))
        whole_bytes = path.read_bytes()
        files = FaultyFiles()
        files.before = nth(number, IO_ERROR)
        assert take(files, path) in (0, written)
        files.before = nothing
        if path.exists():
            assert path.read_bytes() == whole_bytes
            assert take(files, path) == written
        assert not path.exists()
        kept = [each.read_bytes() for each in spool.quarantined(path.parent)]
        assert kept == ([b"half a fra"] if torn else [])


def test_after_an_interrupt_no_acknowledged_frame_is_cut_off(tmp_path: Path) -> None:
    """Where a segment ends is not known then: what is cut off later may be another's frame."""
    files = FaultyFiles()
    writer = Recorder(tmp_path, files=files)
    answers: list[Answer] = [writer.record(Observation(attempt_id="first"))]
    files.after = nth(0, Interrupt())
    with pytest.raises(Interrupt):
        writer.record(Observation(attempt_id="interrupted"))
    files.after = nothing
    answers.append(writer.record(Observation(attempt_id="acked")))
    used = sum(each.stat().st_size for each in tmp_path.iterdir())
    files.room_bytes[tmp_path] = used + 20  # half a frame, which is cut off again
    assert isinstance(writer.record(Observation(attempt_id="held")), Held)
    files.room_bytes.clear()
    writer.rotate()
    assert set(acked(answers)) <= set(oids(tmp_path, torn=True))
    check_no_gap(tmp_path)
