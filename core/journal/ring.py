"""Records that no folder takes now, in memory, in order, and no more than so many."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

RECORDS_MAX = 10_000
BYTES_MAX = 32 * 1024 * 1024
BODY_BYTES_MAX = 256 * 1024
"""A body over this is not held: it could stand for ever before smaller ones that would fit."""

Entry = tuple[bytes]
"""An encoded observation in a tuple of its own, which tells it from an equal one."""


class Ring:
    """Thread-safe by a lock that nobody holds while waiting for anything."""

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self._bytes = 0
        self._lock = threading.RLock()

    def push(self, body: bytes) -> bool:
        """Hold `body`, behind all others; whether there was room."""
        with self._lock:
            if not self.entries:
                self._bytes = 0
            if (
                len(self.entries) >= RECORDS_MAX
                or len(body) > BODY_BYTES_MAX
                or self._bytes + len(body) > BYTES_MAX
            ):
                return False
            self._bytes += len(body)
            self.entries.append((body,))
            return True

    def first(self, bytes_max: int) -> tuple[Entry, ...]:
        """The oldest entries, up to so many bytes; one at least, if there is any."""
        with self._lock:
            taken: list[Entry] = []
            for entry in self.entries:
                bytes_max -= len(entry[0])
                if taken and bytes_max < 0:
                    break
                taken.append(entry)
            return tuple(taken)

    def drop(self, entries: Sequence[Entry]) -> None:
        """Let these go, the oldest ones; those that are gone already are gone."""
        with self._lock:
            for entry in entries:
                if self.entries and self.entries[0] is entry:
                    self._bytes -= len(entry[0])
                    self.entries.popleft()
