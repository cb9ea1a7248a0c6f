"""Where a record goes: the spool, else the folder beside it, else memory, else a counted refusal.

A record is numbered before it is written, and its number stays its own until it is known to be
written. So whatever comes between (a failed sync, a signal handler's exception), it is written
again under the same number, which is a duplicate at worst: no gap, and no two records of one name.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from costspan.core import counters, identifiers
from costspan.core.journal import records
from costspan.core.journal.answer import Ack, Held, Refused
from costspan.core.journal.files import Files
from costspan.core.journal.frames import frame, observation_frame
from costspan.core.journal.process import own_host
from costspan.core.journal.ring import BODY_BYTES_MAX, Entry, Ring
from costspan.core.journal.rung import SLOW_NS, Rung, Sync, Unsynced
from costspan.core.journal.segment import Segment
from costspan.core.journal.spool import segment_name
from costspan.core.journal.tally import Tally

_BATCH_BYTES = 64 * 1024


class Ladder:
    """Not thread-safe, but for `hold`: the recorder holds the lock.

    `writer` and `last_seq` name the last record that is known to be written.
    """

    def __init__(
        self,
        folder: Path,
        beside: Path | None,
        sync: Sync,
        files: Files,
        *,
        is_first: bool = True,
    ) -> None:
        """`is_first`: it tells the process's counters too."""
        self._spool = Rung("spool", folder, sync, files, self._opening)
        self._rungs = [self._spool]
        if beside is not None:
            self._rungs.append(Rung("beside", beside, sync, files, self._opening))
        self._ring = Ring()
        self._files = files
        self._monotonic_ns = files.monotonic_ns
        self._is_always = sync == "always"
        self._slow_ns = self._spool.slow_ns
        self._segments_opened = 0
        self._current: Segment | None = None
        self._host = own_host()
        self._name_writer()
        self._tally = Tally(self.writer, self._host) if is_first else None

    def _name_writer(self) -> None:
        name = identifiers.new_writer_id()
        self.writer, self._prefix = name, f"{name}:"
        self.last_seq = 0
        self._numbered: tuple[int, Sequence[Entry]] = (1, ())

    def _opening(self, opened_at: int) -> tuple[str, bytes]:
        name = segment_name(opened_at, self.writer, self._segments_opened)
        self._segments_opened += 1
        opened = records.Opened(self.writer, os.getpid(), opened_at, self._host)
        return name, frame(records.control_payload(opened))

    def append(self, body: bytes) -> Ack | Held | Refused:
        """Write a record where it can be written, after all that came before it."""
        segment = self._current
        began_ns = self._monotonic_ns()
        if (
            segment is None
            or began_ns >= segment.rotate_at_ns
            or segment.size_bytes >= segment.rotate_at_bytes
            or self._ring.entries
        ):
            return self._append_carefully(body, began_ns)
        seq = self.last_seq + 1
        self._current = None  # until this is done: whatever interrupts it, the next one looks
        self._numbered = (seq, ((body,),))
        try:
            segment.append(observation_frame(seq, body))
            if self._is_always:
                segment.sync()
        except OSError as error:
            self._spool.fail(error, began_ns)
            return self._append_numbered(body, began_ns)
        self.last_seq = seq
        if self._monotonic_ns() - began_ns > self._slow_ns:
            self._spool.trip("slow")
        else:
            self._current = segment
        return Ack(f"{self._prefix}{seq}")

    def _append_carefully(self, body: bytes, began_ns: int) -> Ack | Held | Refused:
        self._current = None
        self._rotate_due(began_ns)
        if not self._write_waiting(began_ns):
            return self.hold(body, self._why)
        self._numbered = (self.last_seq + 1, ((body,),))
        return self._append_numbered(body, began_ns)

    def _append_numbered(self, body: bytes, began_ns: int) -> Ack | Held | Refused:
        """Write the one record that has a number; it stays first in line if nothing takes it."""
        if self._write_numbered(began_ns):
            if not self._spool.why:
                self._current = self._spool.segment
                self._leave(self._rungs[1:])  # drains need not wait for what lies beside
            return Ack(f"{self._prefix}{self.last_seq}")
        if len(body) > BODY_BYTES_MAX:
            self._forget_first()
            return refuse(self._why)
        counters.count("ladder:held")
        return Held(self._why)

    def hold(self, body: bytes, why: str) -> Held | Refused:
        """Keep a record in memory, behind those that wait already. Any thread may call this."""
        if not self._ring.push(body):
            return refuse(why)
        counters.count("ladder:held")
        return Held(why)

    @property
    def held(self) -> int:
        """How many records wait in memory."""
        return len(self._ring.entries) + self._late

    @property
    def _late(self) -> int:
        first, entries = self._numbered
        return first + len(entries) - 1 - self.last_seq

    @property
    def _why(self) -> str:
        return self._spool.why or "slow"

    def _write_waiting(self, now_ns: int) -> bool:
        """Write what waits, in order, as far as it goes in a moment; whether nothing waits now."""
        while True:
            self._ring.drop(self._numbered[1])  # what has a number waits here, not there
            if late := self._late:
                head = self._numbered[1][-late][0]
                if not self._write_numbered(now_ns):
                    if len(head) > BODY_BYTES_MAX:  # an exception came between: nobody knows of it
                        self._forget_first()
                    return False
                counters.count("ladder:late", late)
            if not self._ring.entries:
                return True
            if self._monotonic_ns() - now_ns > SLOW_NS:
                return False
            self._numbered = (self.last_seq + 1, self._ring.first(_BATCH_BYTES))

    def _write_numbered(self, now_ns: int) -> bool:
        """Write all that has a number, in one write; whether some folder took it."""
        ready = [rung for rung in self._rungs if now_ns >= rung.retry_at_ns]
        if not ready:  # what is held dies with the process: worth a try that costs no time
            ready = [rung for rung in self._rungs if rung.fails_fast]
        if not ready:
            return False
        first, entries = self._numbered
        waiting = entries[self.last_seq + 1 - first :]
        frames = b"".join(
            observation_frame(seq, body) for seq, (body,) in enumerate(waiting, self.last_seq + 1)
        )
        for rung in ready:
            if rung.write(frames):
                self.last_seq = first + len(entries) - 1
                if rung is not self._spool:
                    counters.count(f"ladder:{rung.name}", len(waiting))
                return True
        return False

    def _forget_first(self) -> None:
        """Give up the record that is first in line. Its number may stand somewhere: begin anew."""
        rest = self._numbered[1][len(self._numbered[1]) - self._late + 1 :]
        self.leave_all()
        self._name_writer()
        self._numbered = (1, rest)

    def retry(self) -> None:
        """Write what waits now, whatever folder had to rest."""
        if self.held:
            for rung in self._rungs:
                rung.retry_at_ns = 0
            self._write_waiting(self._monotonic_ns())

    def look_after(self) -> None:
        """What has to be done now and then, records or none: rotate, recover, tell the counters."""
        now_ns = self._monotonic_ns()
        self._rotate_due(now_ns)
        self._write_waiting(now_ns)
        tally = self._tally
        if tally is None or not tally.is_due(now_ns) or now_ns < self._spool.retry_at_ns:
            return
        if tally.changed(0) is not None:
            try:
                self._tell(self._spool.ready())
            except OSError as error:
                self._spool.fail(error, now_ns)

    def _tell(self, segment: Segment) -> None:
        """Append the process's counters, if they changed."""
        counts = None if self._tally is None else self._tally.changed(self._files.time_ns())
        if self._tally is None or counts is None:
            return
        with contextlib.suppress(OSError):  # they are told another time
            segment.append(frame(records.control_payload(counts)))
            self._tally.told(counts, self._monotonic_ns(), self.last_seq)

    def _rotate_due(self, now_ns: int) -> None:
        self._leave([rung for rung in self._rungs if rung.is_due(now_ns)])

    def leave_all(self) -> None:
        """Close what is open, for any drainer to take."""
        self._leave(self._rungs)

    def _leave(self, rungs: Sequence[Rung]) -> None:
        for rung in rungs:
            if rung.segment is not None:
                self._current = None
                if not rung.segment.is_suspect:
                    self._tell(rung.segment)
                rung.leave()

    def to_sync(self) -> list[Unsynced]:
        """What is not on the disk yet. The caller closes the descriptors."""
        return [unsynced for rung in self._rungs for unsynced in rung.to_sync()]

    def distrust(self, segment: Segment) -> None:
        """Leave a segment whose sync failed: what the disk holds of it is not known."""
        segment.is_suspect = True
        for rung in self._rungs:
            if rung.segment is segment:
                self._leave([rung])

    def abandon(self) -> None:
        """In a forked child: let go of the parent's segments, and leave its locks alone."""
        for rung in self._rungs:
            rung.abandon()


def refuse(why: str) -> Refused:
    """Count a refusal."""
    counters.count(f"refused:{why}")
    return Refused(why)
