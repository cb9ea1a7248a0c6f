"""When a process tells its counters to the journal, so that `doctor` can show them.

Beside real records, whenever they changed; in a process that records nothing, ever more rarely:
telling them must not itself keep the disk busy.
"""

from __future__ import annotations

import os

from costspan.core import counters
from costspan.core.journal.records import Counts

NS_MIN = 5_000_000_000
NS_MAX = 3_600_000_000_000


class Tally:
    """What was told last, and when to tell again."""

    def __init__(self, writer: str, host: str | None) -> None:
        self._writer = counters.told_by(writer)
        self._host = host
        self._pid = os.getpid()
        self._told: dict[str, int] = {}
        self._seq = 0
        self._again_at_ns = 0
        self._wait_ns = NS_MIN

    def changed(self, now_ns: int) -> Counts | None:
        """The counters (`now_ns` UTC), if they are others than were told."""
        counts = counters.snapshot()
        if counts == self._told:
            return None
        return Counts(self._writer, counts, now_ns, self._host, self._pid)

    def is_due(self, monotonic_ns: int) -> bool:
        """Whether enough time went by to tell them again."""
        return monotonic_ns >= self._again_at_ns

    def told(self, counts: Counts, monotonic_ns: int, last_seq: int) -> None:
        """They are written, after the record with this number."""
        self._told = counts.counts
        is_idle = last_seq == self._seq
        self._wait_ns = min(2 * self._wait_ns, NS_MAX) if is_idle else NS_MIN
        self._seq = last_seq
        self._again_at_ns = monotonic_ns + self._wait_ns
