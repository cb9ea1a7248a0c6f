"""A folder that records may go to: its segment under way, and when it may be tried again."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from costspan.core import counters
from costspan.core.journal import beside
from costspan.core.journal.files import Files
from costspan.core.journal.segment import Segment

Sync = Literal["interval", "always"]
SEGMENT_BYTES_MAX = 8 * 1024 * 1024
SEGMENT_NS_MAX = 5_000_000_000
"""A segment is given up after so long, so that drains see its records soon."""
SLOW_NS = 50_000_000
"""A write that takes longer makes the next ones go elsewhere."""
SLOW_SYNC_NS = 1_000_000_000
"""The same where every record waits for the disk itself (sync = always)."""
BACKOFF_NS_MIN = 1_000_000_000
BACKOFF_NS_MAX = 60_000_000_000
_UNSYNCED_MAX = 4

Unsynced = tuple[Segment, int]
"""A segment whose content is not on the disk yet, and a descriptor to sync it by."""


class Rung:
    """Not thread-safe: the recorder holds the lock.

    `why` says what is wrong, in a word; it is empty while the folder takes records. `retry_at_ns`
    (monotonic) is when it is to be tried again; one that `fails_fast` may be tried before, where
    there is no other.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        sync: Sync,
        files: Files,
        opening: Callable[[int], tuple[str, bytes]],
    ) -> None:
        """`opening` gives a segment that is opened now (ns UTC) its name and its first frames."""
        self.name = name
        self.folder = folder
        self.is_always = sync == "always"
        self.slow_ns = SLOW_SYNC_NS if self.is_always else SLOW_NS
        self.segment: Segment | None = None
        self.why = ""
        self.retry_at_ns = 0
        self.fails_fast = False
        self._wait_ns = 0
        self._files = files
        self._opening = opening
        self._unsynced: list[Unsynced] = []

    def write(self, frames: bytes) -> bool:
        """Write whole frames; whether they are there, and on the disk if every record has to be."""
        began_ns = self._files.monotonic_ns()
        try:
            segment = self.ready()
            segment.append(frames)
            if self.is_always:
                segment.sync()
        except OSError as error:
            self.fail(error, began_ns)
            return False
        took_ns = self._files.monotonic_ns() - began_ns
        if took_ns > self.slow_ns:
            self.trip("slow")
        elif self.why:
            self.why = ""
            self.retry_at_ns = self._wait_ns = 0
            self.fails_fast = False
        return True

    def ready(self) -> Segment:
        """The segment to append to.

        Raises:
            OSError: if there is none and none can be opened.
        """
        segment = self.segment
        if segment is None or segment.is_suspect:
            self.leave()
            segment = self.segment = self._open()
            if self.is_always:
                segment.sync_name()
        return segment

    def _open(self) -> Segment:
        is_default = beside.is_default(self.folder)
        if is_default:
            self._files.make_folder(self.folder.parent)
        self._files.make_folder(self.folder)
        if is_default and not beside.is_ours(self.folder):
            raise PermissionError(errno.EPERM, f"{self.folder} is not this user's alone")
        name, first = self._opening(self._files.time_ns())
        return Segment(
            self.folder,
            name,
            first,
            files=self._files,
            rotate_at_ns=self._files.monotonic_ns() + SEGMENT_NS_MAX,
            rotate_at_bytes=SEGMENT_BYTES_MAX,
        )

    def fail(self, error: OSError, began_ns: int) -> None:
        """Let the folder rest after an error, and leave the segment if its end is not known.

        Or if the file may not grow any more: another one may.
        """
        self.trip(f"disk:{error.errno}", self._files.monotonic_ns() - began_ns <= self.slow_ns)
        segment = self.segment
        if segment is not None and (segment.is_suspect or error.errno == errno.EFBIG):
            self.leave()

    def trip(self, why: str, fails_fast: bool = False) -> None:
        """Let the folder rest for a while, longer every time it is tried in its time."""
        if why != self.why:
            counters.count(f"breaker:{self.name}:{why}")
        self.why = why
        self.fails_fast = fails_fast
        now_ns = self._files.monotonic_ns()
        if now_ns >= self.retry_at_ns:
            self._wait_ns = min(max(2 * self._wait_ns, BACKOFF_NS_MIN), BACKOFF_NS_MAX)
            self.retry_at_ns = now_ns + self._wait_ns

    def is_due(self, now_ns: int) -> bool:
        """Whether the segment is full or old enough to be given up."""
        segment = self.segment
        return segment is not None and (
            now_ns >= segment.rotate_at_ns or segment.size_bytes >= segment.rotate_at_bytes
        )

    def leave(self) -> None:
        """Close the segment, if there is one; its data stays, for any drainer to take."""
        segment, self.segment = self.segment, None
        if segment is None:
            return
        fd: int | None = None
        try:
            if not segment.is_there():
                counters.count("segment_gone")  # somebody removed it while it was written
            if segment.synced_bytes < segment.size_bytes and not self.is_always:
                fd = segment.duplicate()
        except OSError as error:
            counters.count(f"spool_failed:{error.errno}")
        finally:
            self._shut(segment, fd)

    def _shut(self, segment: Segment, fd: int | None) -> None:
        """Close it; `fd`, a copy of its descriptor, is to sync it by later."""
        try:
            segment.close()
        except BaseException as error:
            if fd is not None:  # it may hold the lock still
                self._close(fd)
            if not isinstance(error, OSError):
                raise
            counters.count(f"spool_failed:{error.errno}")
        else:
            if fd is not None:
                self._unsynced.append((segment, fd))
        while len(self._unsynced) > _UNSYNCED_MAX:  # nobody syncs here: the kernel will
            self._close(self._unsynced.pop(0)[1])

    def to_sync(self) -> list[Unsynced]:
        """What is not on the disk yet. The caller closes the descriptors."""
        found, self._unsynced = self._unsynced, []
        segment = self.segment
        if segment is not None and segment.synced_bytes < segment.size_bytes:
            try:
                found.append((segment, segment.duplicate()))
            except OSError as error:
                counters.count(f"sync_failed:{error.errno}")
        return found

    def abandon(self) -> None:
        """In a forked child: let go of the parent's descriptors, and leave its lock alone."""
        if self.segment is not None:
            self.segment.abandon()
        for _, fd in self._unsynced:
            self._close(fd)

    def _close(self, fd: int) -> None:
        try:
            self._files.close(fd)
        except OSError as error:
            counters.count(f"spool_failed:{error.errno}")
