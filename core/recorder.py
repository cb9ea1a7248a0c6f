"""`record()`: an observation becomes a frame in this process's segment, or a counted refusal.

Never raises, never blocks on anything but its own short lock and one `os.write`, does no network.
An `Ack` means: survives kill -9. No thread, no atexit hook and no ledger is needed for that.
A signal handler or a finalizer may record in the middle of a record: it writes to a segment beside.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import msgspec

from costspan.core import clean, counters, identifiers
from costspan.core.journal import records
from costspan.core.journal.frames import PAYLOAD_BYTES_MAX
from costspan.core.journal.spool import Segment, segment_name
from costspan.core.schema import Observation

SEGMENT_BYTES_MAX = 8 * 1024 * 1024


class Ack(msgspec.Struct, frozen=True):
    """Written: this observation survives the death of the process."""

    oid: str


class Refused(msgspec.Struct, frozen=True):
    """Not written, and counted: why."""

    reason: str


class Recorder:
    """The writer of one process. `seq` is taken only when its frame was written, so no gap lies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._start_writer()

    def _start_writer(self) -> None:
        self.writer = identifiers.new_writer_id()
        self._seq = 0
        self._segment: Segment | None = None
        self._segments_opened = 0
        self._refused: dict[str, int] = {}
        self._refusals_unsaid = False
        self._writing = False
        self._beside: Recorder | None = None

    def record(self, observation: Observation) -> Ack | Refused:
        """Append an observation (see the module's promise)."""
        try:
            body = records.encode_body(observation)
        except Exception as error:  # a field that went around `clean`
            return self._refuse(f"unencodable:{type(error).__name__}")
        if len(body) > PAYLOAD_BYTES_MAX - 64:
            return self._refuse("too_large")
        with self._lock:
            if self._writing:  # this very thread, interrupted: the frame under way is not to mix
                if self._beside is None:
                    self._beside = Recorder(self.folder)
                return self._beside.record(observation)
            self._writing = True
            try:
                seq = self._append(body)
            except OSError as error:
                return self._refuse_locked(f"disk:{error.errno}")
            except Exception as error:
                return self._refuse_locked(type(error).__name__)
            finally:
                self._writing = False
        return Ack(observation.oid or f"{self.writer}:{seq}")

    def record_fields(self, fields: dict[str, Any]) -> Ack | Refused:
        """Clean `fields` into an observation and record it."""
        return self.record(clean.observation(fields))

    def _append(self, body: bytes) -> int:
        segment = self._segment
        if segment is None or segment.is_suspect or segment.size_bytes > SEGMENT_BYTES_MAX:
            segment = self._open_segment()
        if self._refusals_unsaid:
            said = records.Refusals(self.writer, dict(self._refused), time.time_ns())
            segment.append(records.control_payload(said))
            self._refusals_unsaid = False
        self._seq += 1  # before the write: whatever interrupts it, no two frames share a number
        try:
            segment.append(records.observation_payload(self._seq, body))
        except OSError:
            self._seq -= 1  # nothing was written
            raise
        return self._seq

    def _open_segment(self) -> Segment:
        if self._segment is not None:
            full, self._segment = self._segment, None
            full.close()
        opened_at = time.time_ns()
        name = segment_name(opened_at, self.writer, self._segments_opened)
        segment = Segment(self.folder, name)
        self._segments_opened += 1
        opened = records.Opened(self.writer, os.getpid(), opened_at)
        try:
            segment.append(records.control_payload(opened))
        except OSError:
            segment.path.unlink(missing_ok=True)  # it holds no record
            segment.close()
            raise
        self._segment = segment
        return segment

    def _refuse(self, reason: str) -> Refused:
        with self._lock:
            return self._refuse_locked(reason)

    def _refuse_locked(self, reason: str) -> Refused:
        self._refused[reason] = self._refused.get(reason, 0) + 1
        self._refusals_unsaid = True
        counters.count(f"refused:{reason}")
        return Refused(reason)

    def rotate(self) -> None:
        """Give the current segment up, so that any drainer may take it. Nothing if it is empty."""
        with self._lock:
            if self._segment is not None and not self._writing:
                rotated, self._segment = self._segment, None
                rotated.close()
            if self._beside is not None:
                self._beside.rotate()

    def sync(self) -> None:
        """Put everything acknowledged on the disk itself; a failure is counted, the data stays.

        Nobody waits for the disk: records go on while this does.
        """
        with self._lock:
            segment, beside = self._segment, self._beside
        if beside is not None:
            beside.sync()
        if segment is None:
            return
        try:
            self._sync(segment)
        except OSError as error:
            counters.count(f"sync_failed:{error.errno}")
            with self._lock:
                if self._segment is segment and not self._writing:
                    self._segment = None  # never trust a descriptor after a failed sync
                    segment.close()

    def _sync(self, segment: Segment) -> None:
        with self._lock:
            if self._segment is not segment:
                return  # rotated meanwhile: whoever drains it reads what the kernel has
            fd = segment.duplicate()
        try:
            os.fdatasync(fd)
        finally:
            os.close(fd)

    def after_fork(self) -> None:
        """In a forked child: a writer of its own. Closing the inherited descriptor unlocks nothing.

        The parent's lock object may be held by a thread that does not exist here: replace it.
        """
        inherited, beside = self._segment, self._beside
        self._lock = threading.RLock()
        self._start_writer()
        if inherited is not None:
            inherited.abandon()
        if beside is not None:
            beside.after_fork()
