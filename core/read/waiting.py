"""What lies in a spool folder, looked at without taking anything."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import NamedTuple

from costspan.core.journal import spool


class Waiting(NamedTuple):
    """A spool folder as it stands.

    `complete` segments wait for a drain, the oldest since `oldest_ns` (ns UTC); `live` ones are
    held by their writers (or by a drain under way); `quarantined` are torn tails put aside.
    """

    folder: Path
    complete: int
    live: int
    size_bytes: int
    oldest_ns: int | None
    quarantined: int


def waiting(folder: Path) -> Waiting:
    """What waits in a folder; nothing if there is no such folder."""
    complete = live = size_bytes = 0
    oldest_ns: int | None = None
    for path in spool.segments(folder):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue  # drained since the folder was read
        try:
            found = os.fstat(fd)
            if _is_held(fd):
                live += 1
                continue
        finally:
            os.close(fd)
        complete += 1
        size_bytes += found.st_size
        written_ns = found.st_mtime_ns
        oldest_ns = written_ns if oldest_ns is None else min(oldest_ns, written_ns)
    torn = len(spool.quarantined(folder))
    return Waiting(folder, complete, live, size_bytes, oldest_ns, torn)


def _is_held(fd: int) -> bool:
    """Whether a live writer holds this segment. A shared lock asks and is gone again at once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
