"""Sinks: plugins that take every posting, in the order of their numbers, each at its own pace.

At least once: a sink's cursor moves only after the sink returned. How far the next batch goes is
written down before it is handed over, so that one that has to come again, in whatever process, is
the same to the byte. A sink that is slow, raises or hangs holds up no other and no settlement.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from costspan.core import counters, hooks
from costspan.core.config import Config
from costspan.core.journal.files import SYSTEM, Files
from costspan.core.ledger_errors import LedgerError, LedgerMissing
from costspan.core.settle.entries import Entry
from costspan.core.settle.ledger import Ledger, open_url

BATCH_POSTINGS_MAX = 500
RETRY_NS = 10**9
RETRY_NS_MAX = 300 * 10**9
LEASE_SECONDS = 10.0
"""How long to wait for the settler before a cursor is moved; settling comes first."""
WAITING_MAX = 10_000
_OFFERED = ":offered"
"""Ends the name of the second cursor of a sink: how far it was offered postings."""
_FOLDER = "sinks"

_encode = msgspec.json.Encoder(order="sorted").encode


class Batch(msgspec.Struct, frozen=True):
    """Postings in the order of their numbers, from `first` to `last`; 500 at most."""

    first: int
    last: int
    postings: tuple[Entry, ...]

    def to_json_lines(self) -> bytes:
        """Each posting as canonical JSON on a line of its own; the same whenever it is asked."""
        return b"".join(posting.to_json() + b"\n" for posting in self.postings)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How far a sink has come.

    `taken` is the number of the last posting it took, `waiting` how many it has not taken (if
    `waits_for_more`, so many at least). `last_failure` is this process's, None if it last went
    well or nothing was tried here. One that is not `is_installed` took postings once.
    """

    sink: str
    is_installed: bool
    taken: int
    waiting: int
    waits_for_more: bool
    last_failure: str | None


class _Late(NamedTuple):
    """A call that ran past its deadline, and the last posting it may still take."""

    call: hooks.Call
    last: int


class _Courier:
    """Carries postings to one sink; one run at a time, in a thread of its own."""

    def __init__(self, sink: str) -> None:
        self.sink = sink
        self.last_failure: str | None = None
        self.carried = 0
        self.lease: int | None = None
        self.thread: threading.Thread | None = None
        self._failures = 0
        self._retry_at_ns = 0
        self._late: _Late | None = None
        self._unkept = 0  # it took postings up to here, and its cursor has yet to say so

    def start(self, function: Callable[..., Any], settings: Config, files: Files) -> None:
        """Carry what waits, unless a run is under way or its time has not come."""
        if self.thread is not None and self.thread.is_alive():
            return
        if self._late is not None:
            if self._late.call.is_alive():
                return
            if self._late.call.has_returned:
                self._unkept = max(self._unkept, self._late.last)
                self._went_well()
            self._late = None
        elif files.monotonic_ns() < self._retry_at_ns:
            return
        work = partial(self._run, function, settings, files)
        self.thread = threading.Thread(target=work, name=f"costspan-{self.sink}", daemon=True)
        try:
            self.thread.start()
        except RuntimeError:  # at interpreter shutdown: another process, or the next, goes on
            self.thread = None

    def _run(self, function: Callable[..., Any], settings: Config, files: Files) -> None:
        try:
            with self._leased(settings.spool / _FOLDER, files) as is_ours:
                if is_ours:
                    self._carry(function, settings, files)
        except LedgerMissing:
            pass  # nothing was ever posted
        except LedgerError as error:  # no fault of the sink: what it took is remembered
            counters.count(f"sink_waits:{self.sink}")
            self.last_failure = str(error)
        except Exception as error:
            counters.count(f"sink_failed:{type(error).__name__}")
            self.last_failure = f"{type(error).__name__}: {error}"

    def _carry(self, function: Callable[..., Any], settings: Config, files: Files) -> None:
        while (batch := self._offer(settings)) is not None:
            try:
                hooks.within(self.sink, "posted", partial(function, batch=batch))
            except hooks.PluginFailed as error:
                self._failed(error, batch, files)
                return
            self._unkept = batch.last
            self.carried += len(batch.postings)
            self._went_well()

    def _offer(self, settings: Config) -> Batch | None:
        """The next batch; kept as offered before the sink sees it, and what it took as taken.

        The ledger is not open while the sink works: that may take long, and spoils forks.
        """
        with closing(open_url(settings.ledger_url, create=False)) as ledger:
            cursors = ledger.cursors()
            kept, offered = cursors.get(self.sink, 0), cursors.get(self.sink + _OFFERED, 0)
            taken = max(kept, self._unkept)
            batch = _next_batch(ledger, taken, offered)
            if taken > kept or (batch is not None and batch.last > offered):
                with ledger.settling(LEASE_SECONDS) as settlement:
                    # Read again: the books may have been rebuilt while we waited for the lease.
                    batch = _next_batch(ledger, taken, offered)
                    settlement.move_cursor(self.sink, taken)
                    settlement.move_cursor(self.sink + _OFFERED, batch.last if batch else taken)
                self._unkept = 0
            return batch

    def _went_well(self) -> None:
        self._failures = self._retry_at_ns = 0
        self.last_failure = None

    def _failed(self, error: hooks.PluginFailed, batch: Batch, files: Files) -> None:
        self.last_failure = str(error)
        if isinstance(error, hooks.PluginHung) and error.call is not None:
            self._late = _Late(error.call, batch.last)
        wait_ns = min(RETRY_NS << min(self._failures, 20), RETRY_NS_MAX)
        self._failures += 1
        self._retry_at_ns = files.monotonic_ns() + wait_ns

    @contextmanager
    def _leased(self, folder: Path, files: Files) -> Generator[bool]:
        """One courier of a sink a machine; where no lock can be had, at least once it is."""
        is_ours = True
        try:
            self.lease = _open_lease(folder, self.sink, files)
            is_ours = files.lock(self.lease)
        except OSError as error:
            counters.count(f"sink_lease:{error.errno}")
        try:
            yield is_ours
        finally:
            fd, self.lease = self.lease, None
            if fd is not None:
                if is_ours:
                    files.unlock(fd)  # by name: a forked child may hold a copy of the descriptor
                files.close(fd)


def _open_lease(folder: Path, sink: str, files: Files) -> int:
    path = folder / f"{quote(sink, safe='')}.lock"
    try:
        return files.open(path)
    except FileNotFoundError:
        files.make_folder(folder)
        with suppress(FileExistsError):
            files.close(files.create(path))
        return files.open(path)


def _next_batch(ledger: Ledger, taken: int, offered: int) -> Batch | None:
    """What comes after `taken`; where a batch was offered before, that one again."""
    found = ledger.postings_after(taken, BATCH_POSTINGS_MAX)
    if offered > taken:
        found = [each for each in found if each[0] <= offered]
    if not found:
        return None
    return Batch(found[0][0], found[-1][0], tuple(Entry.of(*each) for each in found))


_lock = threading.Lock()
_couriers: dict[tuple[str, str], _Courier] = {}
"""(ledger URL, sink) -> its courier: what failed and when is remembered in the process."""


def deliver(
    settings: Config,
    *,
    wait: bool = False,
    files: Files = SYSTEM,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Carry what was posted to every sink that has not taken it, each in a thread of its own.

    A sink that failed is tried again after 1 s, then 2 s, up to 5 minutes; one that hangs once it
    has come back.

    Args:
        settings: Where the ledger is; the leases of the sinks are in the spool folder.
        wait: Until every sink has taken everything, or failed; else return at once.
        files: The operating system's, or a simulator's.
        progress: While waiting, called with how many postings have been taken by sinks so far.
    """
    found = hooks.implementations("posted")
    if not found:
        return
    couriers: list[_Courier] = []
    with _lock:
        for sink, function in found:
            courier = _couriers.setdefault((settings.ledger_url, sink), _Courier(sink))
            courier.start(function, settings, files)
            couriers.append(courier)
    before = sum(courier.carried for courier in couriers)
    for courier in couriers if wait else ():
        while (thread := courier.thread) is not None and thread.is_alive():
            thread.join(0.1)
            if progress is not None:
                progress(sum(each.carried for each in couriers) - before)


def standings(ledger: Ledger) -> list[Standing]:
    """How far each sink has come: those installed, and those that took postings once."""
    cursors = ledger.cursors()
    installed = {sink for sink, _ in hooks.implementations("posted")}
    known = installed | {name for name in cursors if not name.endswith(_OFFERED)}
    found: list[Standing] = []
    for sink in sorted(known):
        taken = cursors.get(sink, 0)
        waiting = len(ledger.postings_after(taken, WAITING_MAX))
        courier = _couriers.get((ledger.url, sink))
        found.append(
            Standing(
                sink=sink,
                is_installed=sink in installed,
                taken=taken,
                waiting=waiting,
                waits_for_more=waiting == WAITING_MAX,
                last_failure=None if courier is None else courier.last_failure,
            )
        )
    return found


def _after_fork_in_child() -> None:
    """No courier's thread exists here; closing an inherited lease does not give it up."""
    global _lock
    for courier in _couriers.values():
        if (fd := courier.lease) is not None:
            with suppress(OSError):
                os.close(fd)
    _couriers.clear()
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)
