"""`record()`: an observation becomes a frame in this process's segment, or a counted refusal.

Never raises, waits for nothing but one `write` of its own and, for a moment, for another thread's;
does no network. An `Ack` means: survives kill -9. No thread, no atexit hook and no ledger is
needed for that. A signal handler or a finalizer may record in the middle of a record: it writes to
a segment of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from pathlib import Path
from threading import get_ident
from typing import Any

from costspan.core import clean, counters
from costspan.core.journal import records
from costspan.core.journal.answer import Ack, Held, Refused
from costspan.core.journal.files import SYSTEM, Files
from costspan.core.journal.frames import PAYLOAD_BYTES_MAX
from costspan.core.journal.ladder import Ladder, refuse
from costspan.core.journal.rung import SLOW_NS, SLOW_SYNC_NS, Sync
from costspan.core.schema import Observation

BODY_BYTES_MAX = PAYLOAD_BYTES_MAX - 64
_PATIENCE_SECONDS = 1.0
"""So long a sync, a rotation or a fork waits for a write that is stuck."""

__all__ = ["Ack", "Held", "Recorder", "Refused", "Sync"]


class Recorder:
    """The writer of one process. `seq` is taken only when its frame was written, so no gap lies."""

    def __init__(
        self,
        folder: Path,
        *,
        beside: Path | None = None,
        sync: Sync = "interval",
        files: Files = SYSTEM,
        is_first: bool = True,
    ) -> None:
        """Open nothing yet.

        Args:
            folder: The spool.
            beside: The folder for records that the spool's does not take.
            sync: When records are put on the disk itself: when `sync()` is called, or each one
                before it is acknowledged.
            files: The operating system.
            is_first: It tells the process's counters too.
        """
        self.folder = folder
        self.beside = beside
        self.sync_policy: Sync = sync
        self._files = files
        self._is_first = is_first
        self._wait_seconds = (SLOW_NS if sync == "interval" else SLOW_SYNC_NS) / 1e9
        self._start_writer()

    def _start_writer(self) -> None:
        self._lock = threading.RLock()
        self._owner = 0
        self._is_stuck = False
        self._nested: Recorder | None = None
        self._syncing: set[int] = set()
        self._ladder = Ladder(
            self.folder, self.beside, self.sync_policy, self._files, is_first=self._is_first
        )

    @property
    def writer(self) -> str:
        """The id in the names of what is recorded next."""
        return self._ladder.writer

    @property
    def held(self) -> int:
        """How many records wait in memory."""
        return self._ladder.held + (0 if self._nested is None else self._nested.held)

    def record(self, observation: Observation) -> Ack | Held | Refused:
        """Append an observation (see the module's promise)."""
        try:
            body = records.encode_body(observation)
        except Exception as error:  # a field that went around `clean`
            return refuse(f"unencodable:{type(error).__name__}")
        said = self.append_body(body)
        return Ack(observation.oid) if observation.oid and type(said) is Ack else said

    def record_fields(self, fields: dict[str, Any]) -> Ack | Held | Refused:
        """Clean `fields` into an observation and record it."""
        return self.record(clean.observation(fields))

    def append_body(self, body: bytes) -> Ack | Held | Refused:
        """Append an encoded observation: a msgpack map of its fields, see `records.encode_body`."""
        if len(body) > BODY_BYTES_MAX:
            return refuse("too_large")
        me = get_ident()
        if self._owner == me:  # this very thread, interrupted: the frame under way is not to mix
            return self._nested_recorder().append_body(body)
        try:
            if not self._lock.acquire(False) and not self._has_waited():
                return self._ladder.hold(body, "busy")
            self._owner = me
            return self._ladder.append(body)
        except Exception as error:
            return refuse(type(error).__name__)
        finally:
            # An exception of a signal handler may have come right after the lock was taken: ask
            # the lock, which refuses whoever does not hold it.
            if self._owner == me:
                self._is_stuck = False
                self._owner = 0
            try:  # noqa: SIM105  (a context manager costs as much as the whole lock)
                self._lock.release()
            except RuntimeError:
                pass

    def _has_waited(self) -> bool:
        """Wait a moment for the lock. While a write is stuck, only the first one does."""
        if self._is_stuck:
            return False
        if self._lock.acquire(timeout=self._wait_seconds):
            return True
        self._is_stuck = True
        return False

    def _nested_recorder(self) -> Recorder:
        if self._nested is None:
            self._nested = Recorder(
                self.folder,
                beside=self.beside,
                sync=self.sync_policy,
                files=self._files,
                is_first=False,
            )
        return self._nested

    @contextlib.contextmanager
    def _alone(self) -> Generator[bool]:
        """Hold the lock; False if a write is stuck, or this thread was interrupted in one."""
        me = get_ident()
        if self._owner == me or not self._lock.acquire(timeout=_PATIENCE_SECONDS):
            yield False
            return
        try:
            self._owner = me
            yield True
        finally:
            self._owner = 0
            self._lock.release()

    def rotate(self) -> None:
        """Give the current segments up, so that any drainer may take them; nothing if empty.

        What is held in memory is tried first, wherever it may go.
        """
        with self._alone() as may:
            if may:
                self._ladder.retry()
                self._ladder.leave_all()
        if self._nested is not None:
            self._nested.rotate()

    def sync(self) -> None:
        """Put everything acknowledged on the disk itself; a failure is counted, the data stays.

        Nobody waits for the disk: records go on while this does. What is held in memory is tried
        again, and the counters are told.
        """
        if self._nested is not None:
            self._nested.sync()
        with self._alone() as may:
            if not may:
                return
            self._ladder.look_after()
            waiting = self._ladder.to_sync()
            self._syncing.update(fd for _, fd in waiting)
        for segment, fd in waiting:
            size_bytes = segment.size_bytes
            try:
                self._files.sync(fd)
                if not segment.is_name_synced:
                    segment.sync_name()
                segment.synced_bytes = max(segment.synced_bytes, size_bytes)
            except OSError as error:
                counters.count(f"sync_failed:{error.errno}")
                segment.is_suspect = True  # whether or not the lock is to be had
                with self._alone() as may:
                    if may:
                        self._ladder.distrust(segment)
            finally:
                self._syncing.discard(fd)  # first: nobody is to close what is closed already
                with contextlib.suppress(OSError):
                    self._files.close(fd)

    def before_fork(self) -> None:
        """Let no other thread be in the middle of a record while the process forks, if possible."""
        self._lock.acquire(timeout=_PATIENCE_SECONDS)

    def after_fork_in_parent(self) -> None:
        """Let the others go on."""
        with contextlib.suppress(RuntimeError):  # the lock was not to be had
            self._lock.release()

    def after_fork(self) -> None:
        """In a forked child: a writer of its own, which knows nothing of what the parent holds.

        Closing the inherited descriptors unlocks nothing. The parent's lock objects may be held
        by a thread that does not exist here: they are replaced.
        """
        inherited, nested, syncing = self._ladder, self._nested, self._syncing
        self._start_writer()
        inherited.abandon()
        for fd in syncing:
            with contextlib.suppress(OSError):
                self._files.close(fd)
        if nested is not None:
            nested.after_fork()
