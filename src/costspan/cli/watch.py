"""`costspan drain --watch`: drain again and again, beside the processes that record.

Nothing here must go well: what is not drained waits in the spool, and a process that is killed in
the middle leaves its segments to the next.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from costspan.cli import metrics
from costspan.cli.endpoint import Answer, Pages, serving
from costspan.cli.exits import OK
from costspan.cli.printing import counted, to_stderr
from costspan.cli.watch_options import Plan
from costspan.cli.watched import Watched, books_of
from costspan.core import policy, sinks
from costspan.core.background import backoff_seconds
from costspan.core.config import Config
from costspan.core.drain import Drained, drain
from costspan.core.journal import spool
from costspan.core.ledger_errors import LedgerBusy
from costspan.core.ledger_urls import shown_url
from costspan.core.read.waiting import Waiting, waiting
from costspan.core.settle.ledger import open_url

LOOK_SECONDS = 30.0
"""So often the ledger is asked for what concerns all of it, and for an answer if nothing waits."""
BUSY_TIMES = 5
"""So often in a row the ledger may be another's before that is said."""
GRACE_SECONDS = 20.0
"""So long, once asked to end, a batch is waited for: less than platforms give before they kill."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def watch(settings: Config, given: Sequence[Path], plan: Plan) -> int:
    """Drain until a signal asks to end; the batch under way is settled first."""
    # Now, while somebody reads the error: later on records would wait for a file to be mended.
    policy.rules_of(settings)
    policy.contract_of(settings)
    policy.charges_of(settings)
    watcher = Watcher(settings, given, plan)
    with ExitStack() as stack:
        stop = stack.enter_context(Stop())
        _say(f"drains into {shown_url(settings.ledger_url)}")
        for folder in watcher.folders():
            there = "" if folder.is_dir() else " (not there yet)"
            _say(f"from {folder}{there}")
        if plan.listen is not None:
            url = stack.enter_context(serving(plan.listen, watcher.pages()))
            _say(f"listens on {url}")
        if not stop.sees_through(watcher.until):
            _say("does not wait for the ledger any longer; the records wait in the spool")
    totals = watcher.watched.totals()
    settled = counted(totals.settled.observations, "new observation")
    _say(f"ends: {counted(totals.segments, 'segment')} drained, {settled}")
    return OK


class _GivenUp(BaseException):
    """Nobody waits for the batch under way any longer: what is not committed stays in the spool.

    No KeyboardInterrupt: the driver would ask a server that does not answer to cancel, and wait.
    """


class Stop:
    """Whether a signal asked to end. What is under way is given up if it does not move for long.

    A second signal gives it up at once. Where nothing is waited for any more, one changes nothing.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._is_waited_for = False
        # A handler may come in the middle of anything: it may write a byte, and take no lock.
        self._read, self._write = os.pipe()

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        self._former[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._give_up)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.end_grace()
        for number, former in self._former.items():
            # Who was asked ends now: of a group, or by `timeout`, it is often asked twice.
            signal.signal(number, signal.SIG_IGN if self.is_asked else former)
        os.close(self._read)
        os.close(self._write)

    def sees_through(self, work: Callable[[Stop], None]) -> bool:
        """Do it; False if it was given up."""
        try:
            self._is_waited_for = True
            work(self)
            self._is_waited_for = False
        except _GivenUp:
            return False
        return True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            self._give_up(number, frame)
            return
        self.is_asked = True
        os.write(self._write, b"\0")
        self.begin_grace()

    def _give_up(self, number: int, frame: FrameType | None) -> None:
        if self._is_waited_for:
            self._is_waited_for = False
            raise _GivenUp

    def begin_grace(self) -> None:
        """Wait for no longer than this from now on."""
        signal.setitimer(signal.ITIMER_REAL, GRACE_SECONDS)

    def end_grace(self) -> None:
        """There is nothing more to wait for."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def wait(self, seconds: float) -> None:
        """Until then, or until it is asked."""
        select.select([self._read], [], [], seconds)


class _EndedError(Exception):
    """The batch under way is settled, and somebody asked to end."""


class Watcher:
    """Drains, and tells what came of it."""

    def __init__(self, settings: Config, given: Sequence[Path], plan: Plan) -> None:
        self._settings = settings
        self._given = given
        self._plan = plan
        self._stop: Stop | None = None
        self._is_last = False
        self._failures = 0
        self._look_at = 0.0
        self._is_refused_a_look = False
        self._troubles = (0, 0, 0)
        self.watched = Watched(time.time_ns(), int(plan.late_seconds * 10**9))

    def folders(self) -> tuple[Path, ...]:
        """The folders to drain: those that are beside a spool may come later."""
        return spool.folders_of(self._settings, self._given)

    def until(self, stop: Stop) -> None:
        """Drain as long as nobody asks to end."""
        self._stop = stop
        drain_at = time.monotonic()
        while not stop.is_asked:
            if self._is_due(drain_at):
                went_well = self.turn()
                # Nothing may wait for long, and the ledger is heard from all the same.
                drain_at = time.monotonic() + min(LOOK_SECONDS, self._plan.late_seconds / 3)
                pause = self._plan.every_seconds if went_well else backoff_seconds(self._failures)
            else:
                pause = self._plan.every_seconds
            stop.wait(pause)
        if self._plan.has_last_drain:
            self._is_last = True
            self.turn()
        stop.end_grace()

    def _is_due(self, drain_at: float) -> bool:
        """Whether anything waits, a drain failed, or it is time to hear from the ledger."""
        if self._failures or time.monotonic() >= drain_at:
            return True
        try:
            return any(map(spool.segments, self.folders()))
        except OSError:
            return True  # the drain says what it is

    def turn(self) -> bool:
        """Drain once; whether it went well."""
        self.watched.begins(time.time_ns())
        try:
            done = drain(
                self._settings,
                self.folders(),
                timeout_seconds=self._plan.wait_seconds,
                progress=self._come_so_far,
            )
            self.watched.went_well(done, time.time_ns())
            sinks.deliver(self._settings)  # in threads of its own
        except _EndedError:
            self.watched.was_interrupted()
            return True
        except Exception as error:  # whatever it is: the records wait, and it is tried again
            self.watched.went_wrong(error)
            self._failures += 1
            self._tell_failure(error)
            return False
        self._tell(done)
        self._look()
        return True

    def _come_so_far(self, done: Drained) -> None:
        self.watched.come_so_far(done)
        if self._stop is None or not self._stop.is_asked:
            return
        if not self._is_last:
            raise _EndedError
        self._stop.begin_grace()  # it moves

    def _look(self) -> None:
        """Ask the ledger what concerns all of it: as a reader, whose limits are not a drain's."""
        is_known = self.watched.books is not None or self._is_refused_a_look
        if is_known and time.monotonic() < self._look_at:
            return
        try:
            with closing(open_url(self._settings.ledger_url, create=False)) as ledger:
                period = datetime.now(UTC).strftime("%Y-%m")
                self.watched.books = books_of(ledger, time.time_ns(), period, self._plan.tenants)
            self._is_refused_a_look = False
        except Exception as error:  # whatever it is: the records are in, and it is tried again
            self.watched.books = None  # what it says now is not known
            if not self._is_refused_a_look:
                _say(f"{type(error).__name__}: {error}; drains go on, their books are not shown")
            self._is_refused_a_look = True
        self._look_at = time.monotonic() + LOOK_SECONDS

    # --- what is said ----------------------------------------------------------------------------

    def _tell_failure(self, error: Exception) -> None:
        told_at = BUSY_TIMES if isinstance(error, LedgerBusy) else 1
        if self._failures == told_at:
            _say(f"{self.watched.failed}; the records wait, and it is tried again")

    def _tell(self, done: Drained) -> None:
        if self._failures:
            settled = counted(done.settled.observations, "new observation")
            _say(f"drains again, after {counted(self._failures, 'failure')}: {settled}")
            self._failures = 0
        troubles = (done.unreadable, done.newer, done.failed)
        if troubles != self._troubles and any(troubles):
            _say(
                f"what nobody can read stays in the spool: {counted(done.unreadable, 'record')}"
                f" ({done.why or 'of no version known here'}), {counted(done.newer, 'segment')} of"
                f" a newer format, {counted(done.failed, 'folder')}"
            )
        self._troubles = troubles

    # --- what is asked ---------------------------------------------------------------------------

    def pages(self) -> Pages:
        """The pages of the endpoint."""
        return {"/health": self._health, "/metrics": self._metrics}

    def _waiting(self) -> list[Waiting]:
        """Looked at when somebody asks: a drain that hangs hides nothing."""
        return [waiting(folder) for folder in self.folders()]

    def _health(self) -> Answer:
        health = self.watched.health(self._waiting(), time.time_ns())
        status = HTTPStatus.OK if health.is_well else HTTPStatus.SERVICE_UNAVAILABLE
        return Answer(status, "text/plain; charset=utf-8", f"{health.said}\n")

    def _metrics(self) -> Answer:
        text = metrics.text_of(self.watched, self._waiting(), time.time_ns())
        return Answer(HTTPStatus.OK, metrics.CONTENT_TYPE, text)


def _say(text: str) -> None:
    to_stderr(f"costspan drain --watch: {text}")
