"""Which process a writer is: the name of its host, and its pid there, as it says itself.

Both are for people who have to find a machine. They identify nothing: pids and host names repeat.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from costspan.core import clean
from costspan.core.journal.records import Counts, Opened

PID_MAX = 2**32 - 1


class Process(NamedTuple):
    """A process by its host's name and its pid; None is unknown."""

    host: str | None = None
    pid: int | None = None


UNKNOWN = Process()


def own_host() -> str | None:
    """What the kernel calls this host; no name server is asked. Never raises."""
    try:
        return _clean(os.uname().nodename)
    except Exception:
        return None


def process_of(record: Opened | Counts) -> Process:
    """The process that a record says its writer is, as far as that can be a name and a pid."""
    pid = record.pid
    return Process(
        host=None if record.host is None else _clean(record.host),
        pid=pid if pid is not None and 0 < pid <= PID_MAX else None,
    )


def _clean(host: str) -> str | None:
    return clean.text(host).strip() or None
