"""Who may take a segment: never from a live writer, never twice, always from a dead one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from costspan.core.journal import spool
from costspan.core.journal.spool import Segment


def drained(folder: Path) -> list[bytes]:
    """Take every segment that is free, as a drain does."""
    found: list[bytes] = []
    for path in spool.segments(folder):
        with spool.claim(path) as content:
            if content is not None:
                found += content.payloads
                spool.finish(content)
    return found


def test_a_live_writers_segment_is_left_alone(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "s")
    segment.append(b"one")
    assert drained(tmp_path) == []
    segment.append(b"two")
    segment.close()
    assert drained(tmp_path) == [b"one", b"two"]
    assert spool.segments(tmp_path) == []


def test_two_drainers_never_hold_the_same_segment(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "s")
    segment.append(b"one")
    segment.close()
    with spool.claim(segment.path) as first, spool.claim(segment.path) as second:
        assert first is not None
        assert second is None
        spool.finish(first)
    with spool.claim(segment.path) as gone:
        assert gone is None


def test_no_segment_has_a_name_before_it_is_locked(tmp_path: Path) -> None:
    """A drainer that is always there takes nothing before it was written."""
    done, taken = threading.Event(), []

    def drain() -> None:
        while not done.is_set():
            taken.extend(drained(tmp_path))

    drainers = [threading.Thread(target=drain) for _ in range(2)]
    for drainer in drainers:
        drainer.start()
    for number in range(300):
        segment = Segment(tmp_path, f"{number:04d}")
        segment.append(b"%d" % number)
        segment.close()
    done.set()
    for drainer in drainers:
        drainer.join()
    taken += drained(tmp_path)
    assert sorted(map(int, taken)) == list(range(300))
    assert list(tmp_path.iterdir()) == []


def in_child(work: Callable[[int, int], None]) -> tuple[int, int, int]:
    """Fork; the child does `work(ready, may_end)`. (pid, ready to read, may_end to write)."""
    ready_r, ready_w = os.pipe()
    end_r, end_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end_w)
            work(ready_w, end_r)
        finally:
            os._exit(0)
    os.close(ready_w)
    os.close(end_r)
    return pid, ready_r, end_w


def ended(pid: int, ready: int, may_end: int) -> None:
    os.close(may_end)
    os.close(ready)
    os.waitpid(pid, 0)


def test_a_child_that_lets_go_leaves_the_parents_lock_alone(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "s")
    segment.append(b"one")

    def let_go(ready: int, may_end: int) -> None:
        segment.abandon()
        os.write(ready, b"1")

    child = in_child(let_go)
    assert os.read(child[1], 1) == b"1"
    ended(*child)
    assert drained(tmp_path) == []
    segment.append(b"two")
    segment.close()
    assert drained(tmp_path) == [b"one", b"two"]


@pytest.mark.parametrize("holder", ["writer", "drainer"])
def test_a_child_that_still_has_the_descriptor_holds_nothing_up(
    tmp_path: Path, holder: str
) -> None:
    """A fork in the middle of opening or draining leaves the child a copy that nobody closes."""
    segment = Segment(tmp_path, "s")
    segment.append(b"one")

    def live_on(ready: int, may_end: int) -> None:
        os.write(ready, b"1")
        os.read(may_end, 1)

    if holder == "writer":
        child = in_child(live_on)
        segment.close()
    else:
        segment.close()
        with spool.claim(segment.path) as content:
            assert content is not None
            child = in_child(live_on)
    assert os.read(child[1], 1) == b"1"
    assert drained(tmp_path) == [b"one"]
    ended(*child)


def test_a_folder_that_is_not_there_has_no_segments(tmp_path: Path) -> None:
    assert spool.segments(tmp_path / "nowhere") == []
    assert spool.quarantined(tmp_path / "nowhere") == []
    with spool.claim(tmp_path / "nowhere" / "s.seg") as content:
        assert content is None


def test_half_a_segment_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        Segment(tmp_path, "s")
    assert list(tmp_path.iterdir()) == []
