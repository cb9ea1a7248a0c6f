"""A segment: the file that one writer appends to, and whose lock it holds while it lives.

A live writer holds the flock of its segment, so a segment whose lock is free is complete: its
writer rotated, or died. A frame is one `write`; once it returned, the frame survives kill -9.
A segment gets its name only after it is locked and says whose it is, so that no drainer ever takes
a segment that its writer has yet to lock.
"""

from __future__ import annotations

import contextlib
import errno
from pathlib import Path

from costspan.core.journal.files import SYSTEM, Files
from costspan.core.journal.frames import MAGIC

SUFFIX = ".seg"
_UNNAMED = ".new"


class Segment:
    """The segment this process appends to. Not thread-safe: the recorder holds the lock.

    `size_bytes` is how many good bytes it holds. `is_suspect` says that its end is not known for
    sure (half a frame could not be cut off again, or an exception of a signal handler came
    between): nothing more may be appended. It is to be given up at `rotate_at_ns` (monotonic), or
    when it has `rotate_at_bytes`.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        opening: bytes = b"",
        *,
        files: Files = SYSTEM,
        rotate_at_ns: int = 0,
        rotate_at_bytes: int = 0,
    ) -> None:
        """Open a new one whose first frames are `opening`, all in one write.

        Raises:
            OSError: if that cannot be; nothing is left behind that holds a record.
        """
        unnamed = folder / (name + _UNNAMED)
        self.path = folder / (name + SUFFIX)
        self.size_bytes = 0
        self.synced_bytes = 0
        self.is_name_synced = False
        self.is_suspect = False
        self.rotate_at_ns = rotate_at_ns
        self.rotate_at_bytes = rotate_at_bytes
        self._files = files
        self._write = files.write
        self._fd = files.create(unnamed)
        try:
            if not files.lock(self._fd):
                raise OSError(errno.EWOULDBLOCK, f"{unnamed} is locked by another")
            self.append(MAGIC + opening)
            files.rename(unnamed, self.path)
        except BaseException:
            # Under whichever name: it holds no record.
            for path in (unnamed, self.path):
                with contextlib.suppress(OSError):
                    files.unlink(path)
            with contextlib.suppress(OSError):
                self.close()
            raise

    def append(self, frames: bytes) -> None:
        """Append whole frames. When this returns, they survive the death of the process.

        Raises:
            OSError: if they could not be written whole; the segment is as it was before.
        """
        self.is_suspect = True  # until all is known to be there, whatever comes between
        try:
            written = self._write(self._fd, frames)
            if written != len(frames):  # why, says the next one
                written += self._write(self._fd, frames[written:])
            if written != len(frames):
                raise OSError(errno.ENOSPC, f"short write: {written} of {len(frames)} bytes")
        except OSError:
            # Half a frame would be a wound that readers have to step over.
            self._cut()
            raise
        self.size_bytes += written
        self.is_suspect = False

    def _cut(self) -> None:
        """Cut off whatever came of a write; the segment stays suspect if that fails too."""
        with contextlib.suppress(OSError):
            self._files.truncate(self._fd, self.size_bytes)
            self.is_suspect = False

    def sync(self) -> None:
        """Put the content on the disk itself.

        Raises:
            OSError: the segment is suspect from now on: what the disk holds is not known.
        """
        try:
            self._files.sync(self._fd)
        except OSError:
            self.is_suspect = True
            raise
        self.synced_bytes = self.size_bytes

    def sync_name(self) -> None:
        """Put the name on the disk itself.

        Raises:
            OSError: the segment is suspect from now on.
        """
        try:
            self._files.sync_folder(self.path.parent)
        except OSError:
            self.is_suspect = True
            raise
        self.is_name_synced = True

    def duplicate(self) -> int:
        """A descriptor of its own to sync by, whatever becomes of the segment meanwhile."""
        return self._files.duplicate(self._fd)

    def is_there(self) -> bool:
        """Whether its name still leads to it: nobody may remove a segment that is held."""
        return self._files.is_at(self._fd, self.path)

    def close(self) -> None:
        """Give the segment up. Unlocked by name: a child may hold a copy of the descriptor.

        Raises:
            OSError: if the system says so; the descriptor is gone all the same.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        try:
            self._files.unlock(fd)
        finally:
            self._files.close(fd)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's segment without taking its lock away."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._files.close(fd)
