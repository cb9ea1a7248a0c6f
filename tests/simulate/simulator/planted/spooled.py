"""Bugs of the spool and of the drain."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from costspan.core import drain
from costspan.core.journal import ladder, ring, rung, segment, spool
from costspan.core.recorder import Recorder
from simulator import files
from simulator.hosts import replaced
from simulator.planted.bug import bug

# --- the spool -----------------------------------------------------------------------------------


@bug("torn", seed=5)
def half_a_frame_is_left_after_a_short_write() -> Generator[None]:
    def cut(self: segment.Segment) -> None:
        self.size_bytes = len(self._files.read(self._fd))  # type: ignore[attr-defined]
        self.is_suspect = False

    with replaced(segment.Segment, "_cut", cut):
        yield


@bug(6, seed=1)
def acknowledged_before_it_is_written() -> Generator[None]:
    right = segment.Segment.append
    waiting: dict[int, bytes] = {}

    def append(self: segment.Segment, frames: bytes) -> None:
        first = waiting.pop(id(self), b"")
        if self.size_bytes == 0:
            right(self, frames)
            return
        if first:
            right(self, first)
        waiting[id(self)] = frames

    with replaced(segment.Segment, "append", append):
        yield


@bug(7, seed=8)
def a_failed_write_takes_a_number() -> Generator[None]:
    right = ladder.Ladder._write_numbered

    def write_numbered(self: ladder.Ladder, now_ns: int) -> bool:
        written = right(self, now_ns)
        if not written:
            first, entries = self._numbered
            self.last_seq += 1
            self._numbered = (first + 1, entries)
        return written

    with replaced(ladder.Ladder, "_write_numbered", write_numbered):
        yield


@bug(6, "descriptors", seed=1)
def the_lock_is_released_in_the_child() -> Generator[None]:
    with replaced(segment.Segment, "abandon", segment.Segment.close):
        yield


@bug(6, seed=1)
def a_child_goes_on_as_its_parents_writer() -> Generator[None]:
    def after_fork(self: Recorder) -> None:
        pass

    with replaced(Recorder, "after_fork", after_fork):
        yield


@bug(6, seed=4)
def what_was_held_is_lost_when_the_disk_is_well_again() -> Generator[None]:
    right = ring.Ring.first

    def first(self: ring.Ring, bytes_max: int) -> Any:
        taken = right(self, bytes_max)
        self.entries.clear()
        return taken[:1]

    with replaced(ring.Ring, "first", first):
        yield


@bug(7, seed=4)
def a_refusal_is_not_counted() -> Generator[None]:
    with replaced(ladder, "refuse", ladder.Refused):
        yield


@bug(6, seed=10)
def a_segment_that_is_full_is_never_synced() -> Generator[None]:
    right = rung.Rung._shut

    def shut(self: rung.Rung, left: segment.Segment, fd: int | None) -> None:
        if fd is not None:
            self._close(fd)
        right(self, left, None)

    with replaced(rung.Rung, "_shut", shut):
        yield


@bug(6, seed=7)
def the_names_of_segments_are_never_synced() -> Generator[None]:
    def sync_name(self: segment.Segment) -> None:
        self.is_name_synced = True

    with replaced(segment.Segment, "sync_name", sync_name):
        yield


@bug(17, 7, 6, seed=5)
def a_full_disk_raises_into_the_host() -> Generator[None]:
    def fail(self: rung.Rung, error: OSError, began_ns: int) -> None:
        raise error

    with replaced(rung.Rung, "fail", fail):
        yield


# --- the drain -----------------------------------------------------------------------------------


@bug(6, seed=1)
def a_segment_goes_before_its_records_are_committed() -> Generator[None]:
    right = drain._Batch._add

    def add(self: Any, claimed: Any) -> None:
        right(self, claimed)
        spool.finish(claimed.content, self._files)

    with replaced(drain._Batch, "_add", add):
        yield


@bug(6, seed=3)
def a_living_writers_segment_is_drained() -> Generator[None]:
    right = files.SimulatedFiles.lock

    def lock(self: files.SimulatedFiles, fd: int) -> bool:
        right(self, fd)
        return True

    with replaced(files.SimulatedFiles, "lock", lock):
        yield
