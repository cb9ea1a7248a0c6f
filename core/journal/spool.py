"""The spool: one append-only segment per process, and the folder that collects them.

A live writer holds the flock of its segment, so a segment whose lock is free is complete: its
writer rotated, or died. A frame is one `os.write`; once it returned, the frame survives kill -9.
A segment gets its name only after it is locked, so that no drainer ever takes a segment that its
writer has yet to lock.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from costspan.core.journal.frames import MAGIC, frame, read_frames

SUFFIX = ".seg"
_UNNAMED = ".new"
_QUARANTINE = "quarantine"


class Segment:
    """The segment this process appends to. Not thread-safe: the recorder holds the lock.

    `is_suspect` says that its end is not known for sure (half a frame could not be cut off again,
    or an exception of a signal handler came between): nothing more may be appended.
    """

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        unnamed = folder / (name + _UNNAMED)
        self.path = folder / (name + SUFFIX)
        self.is_suspect = False
        self._fd = os.open(unnamed, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._good_until = 0
            self._write(MAGIC)
            os.rename(unnamed, self.path)
        except BaseException:
            os.close(self._fd)
            unnamed.unlink(missing_ok=True)
            raise

    @property
    def size_bytes(self) -> int:
        """How many good bytes the segment holds."""
        return self._good_until

    def append(self, payload: bytes) -> None:
        """Append one frame. When this returns, the frame survives the death of the process.

        Raises:
            OSError: if the frame could not be written whole; the segment is as it was before.
        """
        self._write(frame(payload))

    def _write(self, data: bytes) -> None:
        written = 0
        try:
            written = os.write(self._fd, data)
            if written != len(data):
                raise OSError(28, f"short write: {written} of {len(data)} bytes")
        except OSError:
            # Half a frame would hide every later one from readers.
            try:
                os.ftruncate(self._fd, self._good_until)
            except OSError:
                self.is_suspect = True
            raise
        except BaseException:
            self.is_suspect = True
            raise
        self._good_until += written

    def duplicate(self) -> int:
        """A descriptor of its own to sync by, whatever becomes of the segment meanwhile."""
        return os.dup(self._fd)

    def close(self) -> None:
        """Give the segment up. Unlocked by name: a child may hold a copy of the descriptor."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        os.close(self._fd)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's segment without taking its lock away."""
        os.close(self._fd)


class Content(NamedTuple):
    """A claimed segment: its whole payloads, and where its torn or damaged parts were put."""

    path: Path
    payloads: list[bytes]
    quarantined: tuple[Path, ...]


def segments(folder: Path) -> list[Path]:
    """The segments of a folder, oldest first; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    except FileNotFoundError:
        return []


@contextmanager
def claim(path: Path) -> Generator[Content | None]:
    """The content of a segment no live writer and no other drainer holds; else None.

    What is torn or damaged is copied to the folder `quarantine`, never deleted. The caller removes
    the segment with `finish` once its records are safe elsewhere.
    """
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        if not _is_still(path, fd):
            yield None  # another drainer finished it between our open and our lock
            return
        with os.fdopen(os.dup(fd), "rb") as file:
            data = file.read()
        frames = read_frames(data)
        kept = [_quarantine(path, data[start:end], start) for start, end in frames.damaged]
        yield Content(path, frames.payloads, tuple(kept))
    finally:
        _let_go(fd)


def _let_go(fd: int) -> None:
    """Unlock by name, not only by closing: a forked child may hold a copy of the descriptor."""
    try:
        fcntl.flock(fd, fcntl.LOCK_UN)
    finally:
        os.close(fd)


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _quarantine(path: Path, tail: bytes, offset: int) -> Path:
    folder = path.parent / _QUARANTINE
    folder.mkdir(exist_ok=True, mode=0o700)
    kept = folder / f"{path.stem}@{offset}.torn"
    if not kept.exists():
        partial = kept.with_suffix(".part")
        partial.write_bytes(tail)
        partial.rename(kept)
    return kept


def segment_name(opened_at: int, writer: str, number: int) -> str:
    """The name of a writer's segment: in order of time, and telling whose it is."""
    return f"{opened_at:020d}-{writer}-{number}"


def writer_of(path: Path) -> str:
    """The writer in a segment's name; the whole name if it is none of ours."""
    parts = path.stem.split("-")
    return parts[1] if len(parts) == 3 else path.stem


def finish(content: Content) -> None:
    """Remove a claimed segment whose records are settled."""
    content.path.unlink(missing_ok=True)


def quarantined(folder: Path) -> list[Path]:
    """The torn tails kept in a folder."""
    try:
        return sorted((folder / _QUARANTINE).glob("*.torn"))
    except FileNotFoundError:
        return []
