"""What lies in a spool folder, looked at without taking anything."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import NamedTuple

from costspan.core.journal import spool
from costspan.core.journal.files import open_file
from costspan.core.journal.frames import MAGIC, PAYLOAD_BYTES_MAX

_HEAD = struct.Struct("<II")
"""The head of a frame: the length of its payload and the payload's crc32."""


_NO_FILES = frozenset({errno.EINVAL, errno.ELOOP, errno.ENXIO})


class Tail(NamedTuple):
    """A torn tail in quarantine.

    `is_damage` is true where no record cut short explains the bytes: they change what was whole.
    """

    path: Path
    size_bytes: int
    is_damage: bool


class Waiting(NamedTuple):
    """A spool folder as it stands.

    `complete` segments wait for a drain, the oldest since `oldest_ns` (ns UTC); `live` ones are
    held by their writers (or by a drain under way); `quarantined` are torn tails put aside.
    `unreadable` says why not all of the folder could be looked at. `writers` has the writer of each
    segment, and whether it is live. `strange` are pipes, links and folders that are named as
    segments are: nobody reads them.
    """

    folder: Path
    complete: int
    live: int
    size_bytes: int
    oldest_ns: int | None
    quarantined: tuple[Tail, ...]
    unreadable: str | None = None
    writers: tuple[tuple[str, bool], ...] = ()
    strange: tuple[Path, ...] = ()


def waiting(folder: Path) -> Waiting:
    """What waits in a folder; nothing if there is no such folder."""
    try:
        return _waiting(folder)
    except OSError as error:
        return Waiting(folder, 0, 0, 0, None, (), str(error))


def _waiting(folder: Path) -> Waiting:
    complete = live = size_bytes = 0
    oldest_ns: int | None = None
    writers: list[tuple[str, bool]] = []
    strange: list[Path] = []
    for path in spool.segments(folder):
        try:
            fd = open_file(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # drained since the folder was read
        except OSError as error:
            if error.errno not in _NO_FILES:
                raise
            strange.append(path)
            continue
        try:
            found = os.fstat(fd)
            is_live = _is_held(fd)
            writers.append((spool.writer_of(path), is_live))
            if is_live:
                live += 1
                continue
        finally:
            os.close(fd)
        complete += 1
        size_bytes += found.st_size
        written_ns = found.st_mtime_ns
        oldest_ns = written_ns if oldest_ns is None else min(oldest_ns, written_ns)
    torn = tuple(map(_tail, spool.quarantined(folder)))
    return Waiting(
        folder, complete, live, size_bytes, oldest_ns, torn, writers=tuple(writers),
        strange=tuple(strange),
    )  # fmt: skip


def _tail(path: Path) -> Tail:
    """Tell a record cut short by a crash from damage to records that were whole.

    A cut record is a part of one frame, at the end of the file. Damage is a head that no writer
    writes, or one whose payload is all there: only its checksum can have made it unreadable.
    """
    size_bytes = path.stat().st_size
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        start = file.read(_HEAD.size)
    if path.stem.endswith("@0"):  # the file's own first bytes
        return Tail(path, size_bytes, not MAGIC.startswith(start) or size_bytes >= len(MAGIC))
    if size_bytes < _HEAD.size:
        return Tail(path, size_bytes, False)
    length, _ = _HEAD.unpack(start)
    return Tail(path, size_bytes, length > PAYLOAD_BYTES_MAX or _HEAD.size + length <= size_bytes)


def _is_held(fd: int) -> bool:
    """Whether a live writer holds this segment. A shared lock asks and is gone again at once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
