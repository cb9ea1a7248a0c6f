"""The threads that sync, rotate and drain in a process that records. Nothing depends on them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from costspan.core.counters import count
from costspan.core.ledger_errors import LedgerBusy

BACKOFF_SECONDS_MIN = 1.0
BACKOFF_SECONDS_MAX = 60.0


class Background(threading.Thread):
    """Looks after the spool every moment, and has another thread drain it every few.

    A drain waits for as long as the ledger's server does not answer; the syncs go on. One that
    fails (the ledger is locked, or broken) is tried again after 1 s, then 2 s, up to 60 s, each a
    little sooner by chance, so that many processes do not all come at once.
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
            failed: Hears what a drain raised, and how often in a row one did; or a sync.
            sync_seconds: The pause between two syncs.
            drain_seconds: The pause between two drains.
            sweep_seconds: So often there is a drain even if nothing waits.
        """
        super().__init__(name="costspan-background", daemon=True)
        self._drains = threading.Thread(target=self._drain_on, name="costspan-drain", daemon=True)
        self._sync, self._drain, self._failed = sync, drain, failed
        self._sync_seconds = sync_seconds
        self._drain_seconds = drain_seconds
        self._sweep_seconds = sweep_seconds
        self._stop_asked = threading.Event()
        self._has_last_drain = False
        self._failures = 0
        self._is_down = False

    def start(self) -> None:
        """Start both threads, or the one that syncs alone: another process drains then.

        Raises:
            RuntimeError: if this process can start no thread.
        """
        super().start()
        try:
            self._drains.start()
        except RuntimeError:
            count("no_thread")

    def run(self) -> None:
        """Go on until `stop`, whatever is raised here: it is this thread's own."""
        while not self._stop_asked.wait(self._sync_seconds):
            try:
                self._sync()
            except BaseException as error:
                self._failed(error, 1)

    def _drain_on(self) -> None:
        drain_at = time.monotonic() + self._drain_seconds
        sweep_at = time.monotonic() + self._sweep_seconds
        while not self._stop_asked.wait(max(0.0, drain_at - time.monotonic())):
            if self._drain_once(time.monotonic() >= sweep_at):
                sweep_at = time.monotonic() + self._sweep_seconds
            pause = backoff_seconds(self._failures) if self._failures else self._drain_seconds
            drain_at = time.monotonic() + pause
        if self._has_last_drain and not self._is_down:
            self._drain_once(False)

    def _drain_once(self, even_if_empty: bool) -> bool:
        """Drain; whether it was done. What it raises is this thread's own."""
        try:
            was_done = self._drain(even_if_empty)
        except BaseException as error:
            self._failures += 1
            self._is_down = not isinstance(error, LedgerBusy)
            self._failed(error, self._failures)
            return False
        self._failures, self._is_down = 0, False
        return was_done

    @property
    def is_ending(self) -> bool:
        """Whether somebody asked it to end."""
        return self._stop_asked.is_set()

    def stop(self) -> None:
        """Ask it to end, soon."""
        self._stop_asked.set()

    def finish(self, seconds: float) -> bool:
        """End, with one more sync and one more drain; whether that came to its end in time.

        A ledger that failed when it was last tried is not tried again. What is not drained by then
        waits in the spool, and a drain that is cut off here was cut off as by a kill.
        """
        self._has_last_drain = True
        self._stop_asked.set()
        self._sync()
        self.join(seconds)
        return not self._drains.is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait for both threads."""
        until = None if timeout is None else time.monotonic() + timeout
        super().join(timeout)
        if self._drains.ident is not None:
            self._drains.join(None if until is None else max(0.0, until - time.monotonic()))


def backoff_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    seconds = BACKOFF_SECONDS_MIN * 2.0 ** min(failures - 1, 16)
    return min(seconds, BACKOFF_SECONDS_MAX) * random.uniform(0.5, 1.0)
