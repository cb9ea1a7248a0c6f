"""The system's calls as one process of the simulated computer has them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from simulator.disk import Inode, OpenFile, failure, volume_of
from simulator.faults import Killed

if TYPE_CHECKING:
    from simulator.computer import Process

Call = TypeVar("Call", bound=Callable[..., Any])
SLOW_NS = 60_000_000
CALL_NS = 1_000


def _system_call(method: Call) -> Call:
    """A call that may fail, be the last of its process, or wait for another's."""
    name = method.__name__

    @wraps(method)
    def call(self: SimulatedFiles, *args: Any) -> Any:
        process = self.process
        if not process.is_alive and name in ("unlock", "close"):
            return method(self, *args)  # how Python unwinds; a kill would not
        try:
            fault = process.call(name)
        except OSError:
            self.failed(name, *args)
            raise
        self.short = fault is not None and fault.what == "short"
        result = method(self, *args)
        process.written = self.table[args[0]].inode if name == "write" else None
        if fault is not None and fault.what == "kill_after":
            process.kill()
            raise Killed
        return result

    return cast("Call", call)


class SimulatedFiles:
    """`costspan.core.journal.files.Files` as one process of the computer has it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.computer = process.computer
        self.table: dict[int, OpenFile] = {}
        self.volumes: dict[int, Path] = {}
        self.short = False

    def __deepcopy__(self, memo: dict[int, Any]) -> SimulatedFiles:
        raise AssertionError("a forked process has files of its own")

    def inherit(self, parent: SimulatedFiles) -> None:
        """Begin with descriptors of the parent's open files."""
        self.table, self.volumes = dict(parent.table), dict(parent.volumes)
        for opened in self.table.values():
            opened.references += 1

    def failed(self, name: str, *args: Any) -> None:
        """What a call does although it fails."""
        if name == "close" and args[0] in self.table:
            self._close(args[0])  # Linux lets the descriptor go all the same
        if name in ("sync", "truncate") and args[0] in self.table:
            inode = self.table[args[0]].inode
            inode.sync_failed |= name == "sync"
            inode.may_be_torn |= name == "truncate"

    def _opened(self, fd: int) -> OpenFile:
        if fd not in self.table:
            self.computer.descriptor_errors.append(f"process {self.process.number}, fd {fd}")
            raise failure(errno.EBADF)
        return self.table[fd]

    def _new(self, inode: Inode, path: Path) -> int:
        fd = next(self.computer.descriptors)
        self.table[fd] = OpenFile(inode)
        self.volumes[fd] = volume_of(path)
        return fd

    def _close(self, fd: int) -> None:
        if not self.process.is_alive:
            return  # the kernel did
        self._opened(fd).release()
        del self.table[fd]

    @_system_call
    def make_folder(self, folder: Path) -> None:
        self.computer.disk.make_folder(folder)

    @_system_call
    def create(self, path: Path) -> int:
        return self._new(self.computer.disk.create(path), path)

    @_system_call
    def open(self, path: Path) -> int:
        return self._new(self.computer.disk.file(path), path)

    @_system_call
    def write(self, fd: int, data: bytes) -> int:
        if self.computer.slow_writes:
            self.computer.slow_writes -= 1
            self.computer.wall_ns += SLOW_NS
            self.computer.monotonic_now_ns += SLOW_NS
        opened = self._opened(fd)
        wanted = len(data) // 2 if self.short else len(data)
        given = self.computer.disk.grow(self.volumes[fd], wanted)
        if data and not given:
            raise failure(errno.ENOSPC)
        opened.inode.data += data[:given]
        return given

    @_system_call
    def truncate(self, fd: int, size_bytes: int) -> None:
        data = self._opened(fd).inode.data
        self.computer.disk.give_back(self.volumes[fd], len(data) - size_bytes)
        del data[size_bytes:]
        data += bytes(size_bytes - len(data))

    @_system_call
    def read(self, fd: int) -> bytes:
        return bytes(self._opened(fd).inode.data)

    @_system_call
    def sync(self, fd: int) -> None:
        self._opened(fd).inode.sync()

    @_system_call
    def sync_folder(self, folder: Path) -> None:
        self.computer.disk.folder(folder).sync()

    @_system_call
    def duplicate(self, fd: int) -> int:
        opened = self._opened(fd)
        opened.references += 1
        new = next(self.computer.descriptors)
        self.table[new] = opened
        self.volumes[new] = self.volumes[fd]
        return new

    @_system_call
    def close(self, fd: int) -> None:
        self._close(fd)

    @_system_call
    def lock(self, fd: int) -> bool:
        opened = self._opened(fd)
        if opened.inode.holder not in (None, opened):
            return False
        opened.inode.holder = opened
        return True

    @_system_call
    def unlock(self, fd: int) -> None:
        if not self.process.is_alive:
            return
        opened = self._opened(fd)
        if opened.inode.holder is opened:
            opened.inode.holder = None

    @_system_call
    def is_at(self, fd: int, path: Path) -> bool:
        try:
            return self.computer.disk.file(path) is self._opened(fd).inode
        except FileNotFoundError:
            return False

    @_system_call
    def rename(self, path: Path, to: Path) -> None:
        self.computer.disk.rename(path, to)

    @_system_call
    def unlink(self, path: Path) -> None:
        try:
            size = len(self.computer.disk.file(path).data)
            self.computer.disk.unlink(path)
        except FileNotFoundError:
            return
        self.computer.disk.give_back(volume_of(path), size)

    @_system_call
    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(self.computer.disk.folder(folder).entries)
        except FileNotFoundError:
            return []

    def time_ns(self) -> int:
        self.computer.wall_ns += CALL_NS
        return self.computer.wall_ns

    def monotonic_ns(self) -> int:
        self.computer.monotonic_now_ns += CALL_NS
        return self.computer.monotonic_now_ns
