"""What is done with what was recorded: synced, drained, delivered to sinks, at the exit too.

The threads (see `background`) sync once a second and drain every few seconds; durability depends
on neither, nor on the drain at exit, which only shortens the wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from costspan.core import counters, forks
from costspan.core.background import Background
from costspan.core.imports import load
from costspan.core.journal import spool
from costspan.core.process import complain, mended, recorders, settings, this

if TYPE_CHECKING:
    from costspan.core.drain import Drained

SYNC_SECONDS = 1.0
DRAIN_SECONDS = 5.0
SWEEP_SECONDS = 300.0
"""So often a process that records nothing looks for what is open for too long."""
BUSY_TIMES = 5
"""So often in a row the ledger may be another's before the host's log is told."""
EXIT_SECONDS = 15.0
"""So long an exit waits for the books; what is not drained by then waits in the spool."""
_OUTAGE = "drain:"
"""What complaints of a ledger begin with."""


def start_thread() -> None:
    """Let this process sync and drain from now on, if it can start a thread."""
    thread = Background(
        _sync,
        _drain_and_deliver,
        drain_failed,
        sync_seconds=SYNC_SECONDS,
        drain_seconds=DRAIN_SECONDS,
        sweep_seconds=SWEEP_SECONDS,
    )
    try:
        thread.start()
    except RuntimeError:
        # At interpreter shutdown, or at a limit: the records are safe, and wait for a drain.
        counters.count("no_thread")
    else:
        this.thread = thread


def flush(timeout: float | None = None, *, sweep_older: int | None = None) -> Drained:
    """Settle everything recorded so far into the ledger; returns what was done.

    Args:
        timeout: Seconds to wait for another process that is settling; None waits 30 s.
        sweep_older: Sweep every event that is open for so many seconds, batches too (0: all of
            them, those under way as well); None: the setting `open_ttl` decides.

    Raises:
        LedgerError: if the ledger cannot be opened or written; the records stay in the spool.
    """
    for each in recorders():
        each.rotate()
    forks.check()
    drained: Drained = load("costspan.core.drain").drain(
        settings(),
        timeout_seconds=30.0 if timeout is None else timeout,
        sweep_older_seconds=sweep_older,
    )
    return drained


def _sync() -> None:
    for each in recorders():
        each.sync()


def _drain(even_if_empty: bool = False) -> bool:
    """Drain, if anything waits or (to sweep) even if not; whether it did."""
    known = settings()
    if known.drain == "off":
        return False
    folders = spool.folders_of(known)
    if not even_if_empty and not any(map(spool.segments, folders)):
        return False
    flush(timeout=1.0)
    mended(_OUTAGE, "the books are up to date again")
    return True


def _drain_and_deliver(even_if_empty: bool = False) -> bool:
    """As `_drain`; then the sinks are brought what this or another process settled."""
    if settings().drain == "off":
        return False  # all of it is a sidecar's part
    with forks.unforked():  # what a drain needs, plugins too, is imported where no fork cuts it
        load("costspan.core.drain")
        sinks = load("costspan.core.sinks")
        load("costspan.core.hooks").plugins()
    was_due = _drain(even_if_empty)
    if this.thread is None or not this.thread.is_ending:  # an exit would cut a delivery off
        sinks.deliver(settings())  # in threads of its own: a sink holds up no sync and no drain
    return was_due


def drain_failed(error: BaseException, times: int = 1) -> None:
    """Count it; the records stay in the spool. Many processes often find the ledger busy."""
    counters.count(f"drain_failed:{type(error).__name__}")
    if times >= BUSY_TIMES or type(error).__name__ != "LedgerBusy":
        complain(f"{_OUTAGE}{type(error).__name__}", f"the books are not up to date: {error}")


def drain_quietly(even_if_empty: bool = False) -> bool:
    """As `_drain`; what goes wrong is counted. Whether it was tried."""
    try:
        return _drain(even_if_empty)
    except Exception as error:
        drain_failed(error, BUSY_TIMES)
        return True


def at_exit() -> None:
    """Shorten the wait for the books where atexit runs at all; nothing depends on it."""
    for each in recorders():
        each.rotate()  # the last moment for what is held in memory
    if this.recorder is None or not this.background:
        return
    if this.thread is None:  # none could be started
        _sync()
        drain_quietly()
    elif not this.thread.finish(EXIT_SECONDS):
        late = f"the books were not up to date {EXIT_SECONDS:g} s after the end"
        complain("exit", f"{late}; the records wait in the spool")
