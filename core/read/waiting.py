"""What lies in a spool folder, looked at without taking anything."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import NamedTuple

from costspan.core.journal import records, spool
from costspan.core.journal.files import open_file
from costspan.core.journal.frames import MAGIC, PAYLOAD_BYTES_MAX, first_payload
from costspan.core.journal.process import UNKNOWN, Process, process_of

_HEAD = struct.Struct("<II")
"""The head of a frame: the length of its payload and the payload's crc32."""
_OPENING_BYTES_MAX = 4096
"""The first record of a segment ends before that."""

_NO_FILES = frozenset({errno.EINVAL, errno.ELOOP, errno.ENXIO})


class Tail(NamedTuple):
    """A torn tail in quarantine.

    `is_damage` is true where no record cut short explains the bytes: they change what was whole.
    """

    path: Path
    size_bytes: int
    is_damage: bool


class SpoolSegment(NamedTuple):
    """A segment's writer, whether it is live, and the process that it says to be."""

    writer: str
    is_live: bool
    process: Process


class Waiting(NamedTuple):
    """A spool folder as it stands.

    `complete` segments wait for a drain, the oldest since `oldest_ns` (ns UTC); `live` ones are
    held by their writers (or by a drain under way); `quarantined` are torn tails put aside.
    `unreadable` says why not all of the folder could be looked at. `segments` are those of both
    kinds. `strange` are pipes, links and folders that are named as segments are: nobody reads them.
    """

    folder: Path
    complete: int
    live: int
    size_bytes: int
    oldest_ns: int | None
    quarantined: tuple[Tail, ...]
    unreadable: str | None = None
    segments: tuple[SpoolSegment, ...] = ()
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
    segments: list[SpoolSegment] = []
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
            writer = spool.writer_of(path)
            process = _process(fd, writer)
            # Last: until the descriptor is closed, a drain would wait for us.
            is_live = _is_held(fd)
            segments.append(SpoolSegment(writer, is_live, process))
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
        folder, complete, live, size_bytes, oldest_ns, torn, segments=tuple(segments),
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


def _process(fd: int, writer: str) -> Process:
    """The process that opened a segment, as its first record says if it is this writer's."""
    try:
        opening = first_payload(os.pread(fd, _OPENING_BYTES_MAX, 0))
        opened = None if opening is None else records.decode(opening, None)
    except (OSError, ValueError, TypeError):
        return UNKNOWN  # the drain will say what is wrong with it
    if isinstance(opened, records.Opened) and opened.writer == writer:
        return process_of(opened)
    return UNKNOWN


def _is_held(fd: int) -> bool:
    """Whether a live writer holds this segment. A shared lock asks and is gone again at once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
