"""From the spool to the books: claim segments, settle their records, then let the files go.

Exactly once: a segment is removed only after its last record is committed, and a record that is
drained again is a duplicate by its oid. Any process may drain any folder; one settles at a time.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from costspan.core import counters, policy
from costspan.core.config import Config
from costspan.core.join.gateways import marked
from costspan.core.journal import records, spool
from costspan.core.journal.files import SYSTEM, Files
from costspan.core.journal.frames import is_newer
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.schema import Observation
from costspan.core.settle import Report, settle
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.sweep import Ttl, sweep

RECORDS_PER_SETTLEMENT = 5000
CLAIMS_MAX = 64
"""Segments of one settlement: each is an open file, and a host has other uses for those."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Segments of one settlement have no more bytes in all, but for the last of them."""
UNSETTLED_MAX = 20
"""So many records that cannot be settled are looked for one by one; of more, their segments."""


class Drained(msgspec.Struct, kw_only=True):
    """What a drain did.

    `waiting` counts segments that live writers still hold; `quarantined` the torn tails that were
    put aside (never deleted); `newer` the segments of a newer format, and `unreadable` the records
    whose bytes were whole but which this version cannot read or settle (`why`: the last error of
    settling one): these segments stay in the spool; `failed` the folders that the system did not
    let us read; `swept` the events that were open for too long and are unknown from now on, unless
    their end still comes.
    """

    ledger: str
    segments: int = 0
    waiting: int = 0
    quarantined: int = 0
    newer: int = 0
    unreadable: int = 0
    why: str | None = None
    failed: int = 0
    swept: int = 0
    settled: Report = msgspec.field(default_factory=Report)


def drain(
    settings: Config,
    folders: Sequence[Path] = (),
    *,
    timeout_seconds: float = 30.0,
    progress: Callable[[Drained], None] | None = None,
    sweep_older_seconds: int | None = None,
    now_ns: int | None = None,
    files: Files = SYSTEM,
) -> Drained:
    """Settle everything that no live writer holds; then sweep what is open for too long.

    Args:
        settings: Where the ledger is, and what decides.
        folders: Spool folders; the settings' own if none are given.
        timeout_seconds: How long to wait for another settler.
        progress: Called after every settlement with what is done so far.
        sweep_older_seconds: Sweep everything that is open for longer, batches too; None: what is
            open for longer than the setting `open_ttl`, and batches after their day.
        now_ns: The time it is (ns UTC), for the sweep; the clock's if not given.
        files: The operating system's, or a simulator's.

    Raises:
        LedgerBusy: if another settler held the lease for longer; the records stay in the spool.
        LedgerError: if the ledger cannot be opened or written; the records stay in the spool.
        ConfigError: if the rules or prices cannot be used.
    """
    with closing(open_url(settings.ledger_url, create=True)) as ledger:
        return drain_into(
            ledger, settings, folders, timeout_seconds=timeout_seconds, progress=progress,
            sweep_older_seconds=sweep_older_seconds, now_ns=now_ns, files=files,
        )  # fmt: skip


def drain_into(
    ledger: Ledger,
    settings: Config,
    folders: Sequence[Path] = (),
    *,
    timeout_seconds: float = 30.0,
    progress: Callable[[Drained], None] | None = None,
    sweep_older_seconds: int | None = None,
    now_ns: int | None = None,
    files: Files = SYSTEM,
) -> Drained:
    """As `drain`, into a ledger that is open already, wherever the settings say that one is."""
    done = Drained(ledger=ledger.url)
    bring_policy(ledger, settings, timeout_seconds, files.time_ns())
    with _Batch(ledger, timeout_seconds, done, progress, files) as batch:
        for folder in folders or spool.folders_of(settings):
            batch.take_all(folder)
        batch.settle()
    # Last: an end may lie in any of the segments.
    if sweep_older_seconds is None:
        ttl = Ttl.of_settings(settings.open_ttl_seconds)
    else:
        ttl = Ttl.of_everything(sweep_older_seconds)
    _sweep(ledger, files.time_ns() if now_ns is None else now_ns, ttl, timeout_seconds, done)
    return done


def bring_policy(
    ledger: Ledger, settings: Config, timeout_seconds: float, now_ns: int | None = None
) -> None:
    """Add what policy records the settings ask for, if they ask for another than is in force."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    with ledger.settling(timeout_seconds) as settlement:
        if proposed := policy.propose(settlement, settings, now_ns):
            settle(settlement, [], proposed)


class _Claimed(msgspec.Struct):
    """A segment that is ours until its last record is committed."""

    content: spool.Content
    lock: ExitStack
    unreadable: int = 0


class _Batch:
    """Records of one settlement, from as many segments as fill it, and the claims on those."""

    def __init__(
        self,
        ledger: Ledger,
        timeout_seconds: float,
        done: Drained,
        progress: Callable[[Drained], None] | None,
        files: Files,
    ) -> None:
        self._ledger = ledger
        self._timeout_seconds = timeout_seconds
        self._done = done
        self._progress = progress
        self._files = files
        self._unsettled = 0
        self._claims: set[ExitStack] = set()
        self._forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for lock in self._claims:
            lock.close()

    def _forget(self) -> None:
        self._records: list[records.Record] = []
        self._starts: list[int] = []
        """Where the records of each of `_segments` begin."""
        self._segments: list[_Claimed] = []
        self._read: list[_Claimed] = []
        """Those of them whose last record is here."""
        self._bytes = 0

    def take_all(self, folder: Path) -> None:
        """Take every segment of a folder; one that cannot be read holds up no other folder."""
        try:
            paths = spool.segments(folder, self._files)
        except OSError as error:
            self._done.failed += 1
            counters.count(f"claim_failed:{error.errno}")
            return
        for path in paths:
            self.take(path)

    def take(self, path: Path) -> None:
        """Claim a segment and add its records, settling as often as the batch is full."""
        lock = ExitStack()
        self._claims.add(lock)
        content = lock.enter_context(spool.claim(path, self._files))
        if content is None or is_newer(b"".join(content.payloads[:1])):
            self._done.waiting += content is None
            self._done.newer += content is not None
            self._let_go(lock)
            return
        if content.quarantined:
            self._done.quarantined += len(content.quarantined)
            counters.count("quarantined", len(content.quarantined))
        self._add(_Claimed(content, lock))
        is_full = self._bytes > BATCH_BYTES_MAX or len(self._read) >= CLAIMS_MAX
        if is_full or len(self._records) >= RECORDS_PER_SETTLEMENT:
            self.settle()

    def _add(self, segment: _Claimed) -> None:
        writer = spool.writer_of(segment.content.path)  # its first record may be damaged
        payloads, decode = segment.content.payloads, records.decode
        at = 0
        while True:
            self._starts.append(len(self._records))
            self._segments.append(segment)
            add, until = self._records.append, at + RECORDS_PER_SETTLEMENT - len(self._records)
            for payload in payloads[at:until]:
                try:
                    record = decode(payload, writer)
                except (ValueError, TypeError):
                    segment.unreadable += 1
                    continue
                if type(record) is records.Opened:
                    writer = record.writer
                add(record)
            at = until
            if at >= len(payloads):
                break
            self.settle()
        self._bytes += sum(map(len, payloads))
        self._read.append(segment)

    def settle(self) -> None:
        """Settle what is here; then let go of the segments that are settled to their end."""
        if self._records:
            for at in self._settle(0, len(self._records)):
                self._segments[bisect_right(self._starts, at) - 1].unreadable += 1
        read = self._read
        self._forget()
        for segment in read:
            self._done.segments += 1
            self._done.unreadable += segment.unreadable
            if not segment.unreadable:
                spool.finish(segment.content, self._files)
            self._let_go(segment.lock)
        if self._progress is not None:
            self._progress(self._done)

    def _let_go(self, lock: ExitStack) -> None:
        lock.close()
        self._claims.discard(lock)

    def _settle(self, start: int, end: int) -> Sequence[int]:
        """Settle a part; returns where the records are that cannot be settled, found by halving.

        One such record must not hold up everything behind it. Of many only their segments are
        found: what else is in those waits with them.
        """
        observations: list[Observation] = []
        controls: list[records.Control] = []
        for record in self._records[start:end]:
            if isinstance(record, Observation):
                observations.append(record)
            else:
                controls.append(record)
        try:
            with self._ledger.settling(self._timeout_seconds) as settlement:
                report = settle(settlement, observations, controls)
        except LedgerError:
            raise
        except Exception as error:
            half = self._half(start, end)
            if start < half < end:
                return [*self._settle(start, half), *self._settle(half, end)]
            self._unsettled += 1
            counters.count(f"unsettled:{type(error).__name__}", end - start)
            self._done.why = f"{type(error).__name__}: {error}"
            return range(start, end)
        self._done.settled.add(report)
        return ()

    def _half(self, start: int, end: int) -> int:
        """Where to part what cannot be settled whole: at any record, later between segments."""
        half = (start + end) // 2
        if self._unsettled < UNSETTLED_MAX:
            return half
        after = bisect_right(self._starts, half)
        if self._starts[after - 1] > start:
            return self._starts[after - 1]
        return self._starts[after] if after < len(self._starts) else end


def _sweep(ledger: Ledger, now_ns: int, ttl: Ttl, timeout_seconds: float, done: Drained) -> None:
    """Sweep what is due. What was drained is settled: no trouble here may say otherwise."""
    try:
        swept = RECORDS_PER_SETTLEMENT
        while swept >= RECORDS_PER_SETTLEMENT:
            with ledger.settling(timeout_seconds) as settlement:
                report = sweep(settlement, now_ns, ttl, RECORDS_PER_SETTLEMENT)
            swept = report.observations
            done.swept += swept
            done.settled.add(report)
    except LedgerBusy:
        counters.count("sweep_postponed")  # whoever settles now sweeps too
    except LedgerError:
        raise
    except Exception as error:
        counters.count(f"sweep_failed:{type(error).__name__}")


def add_observations(
    settings: Config, observations: Sequence[Observation], *, timeout_seconds: float = 30.0
) -> Report:
    """Settle observations that came another way than the spool (an import).

    Raises:
        LedgerError: if the ledger cannot be opened or written; nothing was changed.
    """
    ledger = open_url(settings.ledger_url, create=True)
    try:
        bring_policy(ledger, settings, timeout_seconds)
        report = Report()
        for at in range(0, len(observations), RECORDS_PER_SETTLEMENT):
            batch = observations[at : at + RECORDS_PER_SETTLEMENT]
            batch = [marked(seen, settings.gateways) for seen in batch]
            with ledger.settling(timeout_seconds) as settlement:
                report.add(settle(settlement, batch))
        return report
    finally:
        ledger.close()
