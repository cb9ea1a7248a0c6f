"""Who may take a segment: never from a live writer, never twice, always from a dead one."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from faulty import FaultyFiles, fails

from costspan.cli.surroundings import of_spool
from costspan.core import config, counters, runtime  # runtime: its fork hooks
from costspan.core.journal import spool
from costspan.core.journal.frames import frame
from costspan.core.journal.segment import Segment
from costspan.core.read.waiting import waiting


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
    segment.append(frame(b"one"))
    assert drained(tmp_path) == []
    segment.append(frame(b"two"))
    segment.close()
    assert drained(tmp_path) == [b"one", b"two"]
    assert spool.segments(tmp_path) == []


def test_two_drainers_never_hold_the_same_segment(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "s")
    segment.append(frame(b"one"))
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
        segment.append(frame(b"%d" % number))
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
    segment.append(frame(b"one"))

    def let_go(ready: int, may_end: int) -> None:
        segment.abandon()
        os.write(ready, b"1")

    child = in_child(let_go)
    assert os.read(child[1], 1) == b"1"
    ended(*child)
    assert drained(tmp_path) == []
    segment.append(frame(b"two"))
    segment.close()
    assert drained(tmp_path) == [b"one", b"two"]


@pytest.mark.parametrize("holder", ["writer", "drainer"])
def test_a_child_that_still_has_the_descriptor_holds_nothing_up(
    tmp_path: Path, holder: str
) -> None:
    """A fork in the middle of opening or draining leaves the child a copy that nobody closes."""
    segment = Segment(tmp_path, "s")
    segment.append(frame(b"one"))

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


@pytest.mark.parametrize("step", ["write", "lock", "rename"])
def test_half_a_segment_is_not_left_behind(tmp_path: Path, step: str) -> None:
    files = FaultyFiles()
    files.before = fails(step)
    with pytest.raises(OSError, match="Input/output error"):
        Segment(tmp_path, "s", files=files)
    assert list(tmp_path.iterdir()) == []


def test_what_one_user_may_not_read_stands_in_nobodys_way(tmp_path: Path) -> None:
    segment = Segment(tmp_path, "s")
    segment.append(frame(b"one"))
    segment.close()
    files = FaultyFiles()
    files.before = fails("open", number=errno.EACCES)
    before = counters.snapshot().get("claim_failed:13", 0)
    with spool.claim(segment.path, files) as content:
        assert content is None
    assert counters.snapshot()["claim_failed:13"] == before + 1
    assert drained(tmp_path) == [b"one"]


def test_a_child_of_a_drainer_that_died_holds_nothing(tmp_path: Path) -> None:
    """The drain's own descriptor is inherited too: a child lets go of it."""
    assert runtime.__name__ in sys.modules, "whoever drains has the fork hooks"
    segment = Segment(tmp_path, "s")
    segment.append(frame(b"one"))
    segment.close()

    def drain_and_die(ready: int, may_end: int) -> None:
        with spool.claim(segment.path):
            if os.fork() == 0:
                os.write(ready, b"1")
                os.read(may_end, 1)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    pid, ready, may_end = in_child(drain_and_die)
    assert os.read(ready, 1) == b"1"
    os.waitpid(pid, 0)
    assert drained(tmp_path) == [b"one"]
    os.close(may_end)
    os.close(ready)


def test_a_named_folder_is_drained_with_what_is_beside_it(tmp_path: Path) -> None:
    from costspan.core.journal import beside

    settings = config.load({"ledger": tmp_path / "l.db", "spool": tmp_path / "mine"})
    named = tmp_path / "theirs"
    other = beside.folder_for(named)
    assert spool.folders_of(settings, [named]) == (named,)
    other.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    other.mkdir(mode=0o700)
    try:
        assert spool.folders_of(settings, [named]) == (named, other)
        assert spool.folders_of(settings, [named, settings.spool])[:2] == (named, other)
    finally:
        other.rmdir()


def test_what_is_no_file_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """Whoever can write the folder may put a pipe there: it must not stop the books of others."""
    segment = Segment(tmp_path, "s")
    segment.append(frame(b"one"))
    segment.close()
    os.mkfifo(tmp_path / "0-pipe-0.seg")
    (tmp_path / "0-link-0.seg").symlink_to("/etc/passwd")
    (tmp_path / "0-endless-0.seg").symlink_to("/dev/zero")
    (tmp_path / "0-loop-0.seg").symlink_to(tmp_path / "0-loop-0.seg")
    (tmp_path / "0-folder-0.seg").mkdir()
    found = waiting(tmp_path)
    assert found.unreadable is None
    assert found.complete == 1
    assert len(found.strange) == 5
    assert [finding.check for finding in of_spool(found, 0) if finding.severity == "warning"] == [
        "strange_files"
    ]
    assert drained(tmp_path) == [b"one"]
    assert len(spool.segments(tmp_path)) == 5
    assert spool.quarantined(tmp_path) == []
