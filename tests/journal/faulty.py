"""The operating system with faults to order: full disks, failing calls, a clock that is ours."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from costspan.core.journal.files import SYSTEM, Files


class Interrupt(BaseException):
    """What a host's signal handler raises: a time limit, a keyboard interrupt."""


class FaultyFiles:
    """Real files. `room_bytes` is how much fits below a folder; `before` and `after` see each call.

    The monotonic clock stands still unless `now_ns` is moved; the wall clock is the system's.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.folders: list[Path] = []
        self.room_bytes: dict[Path, int] = {}
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None
        self.now_ns = 10**9
        self._paths: dict[int, Path] = {}

    def _call(self, name: str) -> None:
        self.calls.append(name)
        self.before(name)

    def make_folder(self, folder: Path) -> None:
        self.folders.append(folder)
        self._call("make_folder")
        SYSTEM.make_folder(folder)
        self.after("make_folder")

    def create(self, path: Path) -> int:
        self._call("create")
        fd = SYSTEM.create(path)
        self._paths[fd] = path
        try:
            self.after("create")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open(self, path: Path) -> int:
        self._call("open")
        return SYSTEM.open(path)

    def write(self, fd: int, data: bytes) -> int:
        self._call("write")
        for folder, room_bytes in self.room_bytes.items():
            if folder in self._paths[fd].parents:
                used = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
                data = data[: max(0, room_bytes - used)]
                if not data:
                    raise OSError(errno.ENOSPC, "No space left on device")
        written = SYSTEM.write(fd, data)
        self.after("write")
        return written

    def truncate(self, fd: int, size_bytes: int) -> None:
        self._call("truncate")
        SYSTEM.truncate(fd, size_bytes)
        self.after("truncate")

    def read(self, fd: int) -> bytes:
        self._call("read")
        return SYSTEM.read(fd)

    def sync(self, fd: int) -> None:
        self._call("sync")
        SYSTEM.sync(fd)
        self.after("sync")

    def sync_folder(self, folder: Path) -> None:
        self._call("sync_folder")
        SYSTEM.sync_folder(folder)
        self.after("sync_folder")

    def duplicate(self, fd: int) -> int:
        self._call("duplicate")
        return SYSTEM.duplicate(fd)

    def close(self, fd: int) -> None:
        try:
            self._call("close")
        finally:
            SYSTEM.close(fd)  # it is gone whatever close says
        self.after("close")

    def lock(self, fd: int) -> bool:
        self._call("lock")
        return SYSTEM.lock(fd)

    def unlock(self, fd: int) -> None:
        self._call("unlock")
        SYSTEM.unlock(fd)
        self.after("unlock")

    def is_at(self, fd: int, path: Path) -> bool:
        self._call("is_at")
        return SYSTEM.is_at(fd, path)

    def rename(self, path: Path, to: Path) -> None:
        self._call("rename")
        SYSTEM.rename(path, to)
        self.after("rename")

    def unlink(self, path: Path) -> None:
        self._call("unlink")
        SYSTEM.unlink(path)
        self.after("unlink")

    def names(self, folder: Path) -> list[str]:
        self._call("names")
        return SYSTEM.names(folder)

    def time_ns(self) -> int:
        return SYSTEM.time_ns()

    def monotonic_ns(self) -> int:
        return self.now_ns


def fails(*names: str, number: int = errno.EIO) -> Callable[[str], None]:
    """A fault: every call of these names raises `OSError`; of any name, if none is given."""

    def fault(name: str) -> None:
        if not names or name in names:
            raise OSError(number, os.strerror(number))

    return fault


def nth(number: int, error: BaseException, *, for_ever: bool = False) -> Callable[[str], None]:
    """A fault: the n-th call from now on (the first is 0) raises, or all from it on."""
    seen = iter(range(10**9))

    def fault(name: str) -> None:
        at = next(seen)
        if at == number or (for_ever and at > number):
            raise error

    return fault


def nothing(name: str) -> None:
    """No fault."""


_is_complete: Files = FaultyFiles()
