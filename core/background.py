"""The thread that syncs, rotates and drains in a process that records. Nothing depends on it."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 60.0


class Background(threading.Thread):
    """Looks after the spool every moment, and drains it every few.

    A drain that fails (the ledger is locked, or broken) is tried again after 1 s, then 2 s, up to
    60 s, each a little sooner by chance, so that many processes do not all come at once.
    """

    def __init__(
        self,
        sync: Callable[[], None],
        drain: Callable[[bool], bool],
        failed: Callable[[BaseException, int], None],
        *,
        sync_seconds: float,
        drain_seconds: float,
        sweep_seconds: float,
    ) -> None:
        """Start nothing yet.

        Args:
            sync: Puts what was recorded on the disk itself.
            drain: Drains if anything waits, or, asked to, even if not; whether it did.
            failed: Hears what a drain raised, and how often in a row one did.
            sync_seconds: The pause between two syncs.
            drain_seconds: The pause between two drains.
            sweep_seconds: So often there is a drain even if nothing waits.
        """
        super().__init__(name="costspan-background", daemon=True)
        self._sync, self._drain, self._failed = sync, drain, failed
        self._sync_seconds = sync_seconds
        self._drain_seconds = drain_seconds
        self._sweep_seconds = sweep_seconds
        self._stop_asked = threading.Event()
        self._failures = 0

    def run(self) -> None:
        """Go on until `stop`, whatever is raised here: it is this thread's own."""
        drain_at = time.monotonic() + self._drain_seconds
        sweep_at = time.monotonic() + self._sweep_seconds
        while not self._stop_asked.wait(self._sync_seconds):
            try:
                self._sync()
                if time.monotonic() < drain_at:
                    continue
                if self._drain(time.monotonic() >= sweep_at):
                    sweep_at = time.monotonic() + self._sweep_seconds
                self._failures = 0
                drain_at = time.monotonic() + self._drain_seconds
            except BaseException as error:
                self._failures += 1
                drain_at = time.monotonic() + backoff_seconds(self._failures)
                self._failed(error, self._failures)

    def stop(self) -> None:
        """Ask it to end, soon."""
        self._stop_asked.set()


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    seconds = BACKOFF_SECONDS_MIN * 2.0 ** min(failures - 1, 16)
    return min(seconds, BACKOFF_SECONDS_MAX) * random.uniform(0.5, 1.0)
