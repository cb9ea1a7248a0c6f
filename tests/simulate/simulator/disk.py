"""A disk and the kernel's cache above it: what is written, and what of it outlives the power.

A file has what the kernel holds (`data`) and what is surely on the disk (`disk`). A folder has its
names as everybody sees them, and the changes to them that nobody has synced yet.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

Choose = Callable[[int], int]
"""A number from 0 to this: how much of what was not synced has reached the disk."""

ROOT = Path("/")


def failure(code: int, path: object = None) -> OSError:
    """The exception that the system raises for this error number."""
    if path is None:
        return OSError(code, os.strerror(code))
    return OSError(code, os.strerror(code), str(path))


class Inode:
    """A file's content, and the open file that holds its lock."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.disk = b""
        self.holder: OpenFile | None = None
        self.sync_failed = False
        self.may_be_torn = False
        """Somebody died, or failed, where half a frame may stand."""

    def sync(self) -> None:
        """Put the content on the disk; after a failure the kernel only says that it did."""
        if not self.sync_failed:
            self.disk = bytes(self.data)

    def survive(self, choose: Choose) -> None:
        """What is read after the power was lost: what was synced, and some of what was not."""
        if self.data.startswith(self.disk):
            rest = 0 if self.sync_failed else len(self.data) - len(self.disk)
            kept = len(self.disk) + choose(rest)
            # A file's length may get to the disk before its content does: that reads as zeros.
            zeros = choose(min(16, rest)) if choose(3) == 3 else 0
            self.data = self.data[:kept] + bytes(min(zeros, len(self.data) - kept))
        elif choose(1) == 0:  # cut off since: as it was, or as it became
            self.data = bytearray(self.disk)
        self.disk = bytes(self.data)
        self.holder = None
        self.sync_failed = False
        self.may_be_torn = True


class OpenFile:
    """What descriptors refer to: theirs are the lock and the place."""

    def __init__(self, inode: Inode) -> None:
        self.inode = inode
        self.references = 1

    def release(self) -> None:
        """One descriptor less; the lock goes with the last."""
        self.references -= 1
        if self.references == 0 and self.inode.holder is self:
            self.inode.holder = None


class Folder:
    """Names, and their changes since the folder was synced: (name, what it leads to, or None)."""

    def __init__(self) -> None:
        self.entries: dict[str, Inode | Folder] = {}
        self.durable: dict[str, Inode | Folder] = {}
        self.pending: list[tuple[tuple[str, Inode | Folder | None], ...]] = []

    def change(self, *changes: tuple[str, Inode | Folder | None]) -> None:
        """Change names in one step."""
        _apply(self.entries, changes)
        self.pending.append(changes)

    def sync(self) -> None:
        """Put the names on the disk."""
        self.durable = dict(self.entries)
        self.pending.clear()

    def survive(self, choose: Choose) -> None:
        """After the power was lost: the synced names, and the first few changes after that."""
        entries = dict(self.durable)
        for changes in self.pending[: choose(len(self.pending))]:
            _apply(entries, changes)
        self.entries = entries
        self.sync()
        for entry in entries.values():
            entry.survive(choose)


def _apply(
    entries: dict[str, Inode | Folder], changes: tuple[tuple[str, Inode | Folder | None], ...]
) -> None:
    for name, leads_to in changes:
        if leads_to is None:
            entries.pop(name, None)
        else:
            entries[name] = leads_to


class Disk:
    """Everything below the root; each folder in it is a volume, which may be full."""

    def __init__(self, *volumes: Path) -> None:
        self.root = Folder()
        self.free_bytes: dict[Path, int | None] = dict.fromkeys(volumes)
        for volume in volumes:
            self.root.change((volume.name, Folder()))
        self.root.sync()

    def folder(self, path: Path) -> Folder:
        """The folder at a path.

        Raises:
            OSError: if there is none.
        """
        found: Inode | Folder = self.root
        for name in path.parts[1:]:
            if not isinstance(found, Folder):
                raise failure(errno.ENOTDIR, path)
            if name not in found.entries:
                raise failure(errno.ENOENT, path)
            found = found.entries[name]
        if not isinstance(found, Folder):
            raise failure(errno.ENOTDIR, path)
        return found

    def make_folder(self, path: Path) -> None:
        """The folder and those above it."""
        for whole in (*reversed(path.parents), path):
            if whole == ROOT:
                continue
            above = self.folder(whole.parent)
            if whole.name not in above.entries:
                above.change((whole.name, Folder()))
        self.folder(path)

    def file(self, path: Path) -> Inode:
        """The file at a path.

        Raises:
            OSError: if there is none.
        """
        found = self.folder(path.parent).entries.get(path.name)
        if found is None:
            raise failure(errno.ENOENT, path)
        if isinstance(found, Folder):
            raise failure(errno.EISDIR, path)
        return found

    def create(self, path: Path) -> Inode:
        """A new file.

        Raises:
            FileExistsError: if the name is taken.
        """
        folder = self.folder(path.parent)
        if path.name in folder.entries:
            raise failure(errno.EEXIST, path)
        inode = Inode()
        folder.change((path.name, inode))
        return inode

    def rename(self, path: Path, to: Path) -> None:
        """Give a file another name, within a folder in one step."""
        inode = self.file(path)
        if volume_of(path) != volume_of(to):
            raise failure(errno.EXDEV, to)
        if path.parent == to.parent:
            self.folder(path.parent).change((path.name, None), (to.name, inode))
        else:
            self.folder(to.parent).change((to.name, inode))
            self.folder(path.parent).change((path.name, None))

    def unlink(self, path: Path) -> None:
        """Remove a name if it is there."""
        folder = self.folder(path.parent)
        if path.name in folder.entries:
            folder.change((path.name, None))

    def grow(self, volume: Path, wanted: int) -> int:
        """How many of the wanted bytes the volume has room for; they are taken."""
        free = self.free_bytes[volume]
        if free is None:
            return wanted
        given = min(wanted, free)
        self.free_bytes[volume] = free - given
        return given

    def give_back(self, volume: Path, size: int) -> None:
        """Bytes that a file no longer takes."""
        free = self.free_bytes[volume]
        if free is not None:
            self.free_bytes[volume] = free + size

    def survive(self, choose: Choose) -> None:
        """What is left after the power was lost."""
        self.root.survive(choose)


def volume_of(path: Path) -> Path:
    """The volume that a path is on: the first folder below the root."""
    return ROOT / path.parts[1]
