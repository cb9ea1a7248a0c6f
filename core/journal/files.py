"""What the spool asks of the operating system, so that a simulator can be asked instead.

Descriptors are small integers, as `os` has them. Every call may raise `OSError`; none is retried
here. `time_ns` is the wall clock, `monotonic_ns` the one that only goes forward.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """The calls, each one step: a simulator may fail, tear or outlive any of them."""

    def make_folder(self, folder: Path, /) -> None:
        """Make the folder and those above it (mode 0700), unless it is there."""
        ...

    def create(self, path: Path, /) -> int:
        """A descriptor that only appends to a new file (mode 0600).

        Raises:
            FileExistsError: if there is such a file.
        """
        ...

    def open(self, path: Path, /) -> int:
        """A descriptor to read and lock a file by; of a regular file only."""
        ...

    def write(self, fd: int, data: bytes, /) -> int:
        """Append; returns how many bytes were written, which may be fewer."""
        ...

    def truncate(self, fd: int, size_bytes: int, /) -> None:
        """Cut the file off at this size."""
        ...

    def read(self, fd: int, /) -> bytes:
        """The whole content of a file, from its beginning."""
        ...

    def sync(self, fd: int, /) -> None:
        """Put the file's content on the disk itself."""
        ...

    def sync_folder(self, folder: Path, /) -> None:
        """Put the folder's names on the disk itself."""
        ...

    def duplicate(self, fd: int, /) -> int:
        """Another descriptor of the same open file."""
        ...

    def close(self, fd: int, /) -> None:
        """Let a descriptor go; the lock goes with the last one of its open file."""
        ...

    def lock(self, fd: int, /) -> bool:
        """Take the file's lock if nobody holds it (flock); whether it was taken."""
        ...

    def unlock(self, fd: int, /) -> None:
        """Give the lock up, whatever descriptors of the open file are left in other processes."""
        ...

    def is_at(self, fd: int, path: Path, /) -> bool:
        """Whether this path still leads to the open file."""
        ...

    def rename(self, path: Path, to: Path, /) -> None:
        """Give a file another name, in one step."""
        ...

    def unlink(self, path: Path, /) -> None:
        """Remove a name; nothing if it is gone."""
        ...

    def names(self, folder: Path, /) -> list[str]:
        """The names in a folder, sorted; none if there is no such folder."""
        ...

    def time_ns(self) -> int:
        """The wall clock (ns UTC)."""
        ...

    def monotonic_ns(self) -> int:
        """A clock that never goes back (ns)."""
        ...


_READ_BYTES = 1 << 20


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a regular file. What else may stand under its name is never waited for.

    Raises:
        OSError: if it cannot be opened; `EINVAL` or `ELOOP` if it is a pipe, a link or the like.
    """
    fd = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


class _System:
    """The operating system's own."""

    write = staticmethod(os.write)
    truncate = staticmethod(os.ftruncate)
    sync = staticmethod(os.fdatasync if hasattr(os, "fdatasync") else os.fsync)
    duplicate = staticmethod(os.dup)
    close = staticmethod(os.close)
    rename = staticmethod(os.rename)
    time_ns = staticmethod(time.time_ns)
    monotonic_ns = staticmethod(time.monotonic_ns)

    def make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            self.make_folder(folder.parent)  # parents made by `mkdir` itself would be open to all
            folder.mkdir(exist_ok=True, mode=0o700)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)

    def open(self, path: Path) -> int:
        return open_file(path, os.O_RDWR)

    def read(self, fd: int) -> bytes:
        found: list[bytes] = []
        at = 0
        while part := os.pread(fd, _READ_BYTES, at):
            found.append(part)
            at += len(part)
        return b"".join(found)

    def sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def lock(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unlock(self, fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)

    def is_at(self, fd: int, path: Path) -> bool:
        try:
            return os.path.samestat(os.stat(path), os.fstat(fd))
        except FileNotFoundError:
            return False

    def unlink(self, path: Path) -> None:
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except FileNotFoundError:
            return []


SYSTEM: Files = _System()
"""The real one."""
