"""No fork while a ledger is open for settling, nor while another thread imports what that needs.

A child waits for ever for a module that a thread it does not have was importing. And SQLite keeps
its locks by process and file: a child inherits that state with its parent's memory, whatever
connections it opens for itself. It would wait for locks that nobody holds, or not take those that
keep its commits from being thrown away with a log that others believe unused. So a fork waits until
the settlers have let go, which they do between two settlements. Where it cannot (a settler forks
itself, a reader has a ledger open), the child is told: it leaves its records in the spool, for
others to drain.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

from costspan.core.counters import count
from costspan.core.ledger_errors import LedgerError

FORK_WAIT_SECONDS = 10.0
"""Longer than an import or a settlement of one batch takes, on a slow machine too."""


class _Process:
    """Which connections this process has open."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.settlers: dict[object, int] = {}
        """Settler -> the thread that opened it."""
        self.readers = 0
        self.forks_waiting = 0
        self.is_spoilt = False
        self.is_held = False


_process = _Process()


def check() -> None:
    """Whether SQLite can be used here.

    Raises:
        LedgerError: in a child that was forked while its parent had a ledger open.
    """
    if _process.is_spoilt:
        raise LedgerError(
            "this process was forked while its parent had a ledger open, so that SQLite cannot be"
            " used in it; its records stay in the spool: any other process drains them"
        )


def enter(settler: object | None) -> Callable[[], None]:
    """A connection is about to be opened: a settler's, which forks wait for, or a reader's.

    Returns:
        What to call once it is closed; it does nothing in a forked child.

    Raises:
        LedgerError: as `check`.
    """
    check()
    process = _process
    with process.changed:
        if settler is None:
            process.readers += 1
        else:
            mine = threading.get_ident()
            if mine not in process.settlers.values():  # else the fork waits for us already
                process.changed.wait_for(lambda: not process.forks_waiting, FORK_WAIT_SECONDS)
            process.settlers[settler] = mine
    return partial(_leave, process, settler)


def _leave(process: _Process, settler: object | None) -> None:
    if process is not _process:
        return  # a child's garbage: its parent's lock may be held by a thread it does not have
    with process.changed:
        if settler is None:
            process.readers -= 1
        else:
            process.settlers.pop(settler, None)
        process.changed.notify_all()


@contextmanager
def unforked() -> Generator[None]:
    """A stretch that forks wait for, as they do for a settler.

    Raises:
        LedgerError: as `check`: what is to be imported may be half imported in this child.
    """
    done = enter(object())
    try:
        yield
    finally:
        done()


def is_awaited() -> bool:
    """Whether a fork waits for the settlers to let go."""
    return _process.forks_waiting > 0


def _before_fork() -> None:
    """Wait for the settlers; the lock is held over the fork, so that nobody opens meanwhile."""
    process = _process
    process.changed.acquire()
    process.is_held = True
    mine = threading.get_ident()
    if process.settlers and mine not in process.settlers.values():
        process.forks_waiting += 1
        process.changed.wait_for(lambda: not process.settlers, FORK_WAIT_SECONDS)
        process.forks_waiting -= 1
        process.changed.notify_all()


def _after_in_parent() -> None:
    if _process.is_held:  # not if this module was imported in the middle of a fork
        _process.is_held = False
        _process.changed.release()


def _after_in_child() -> None:
    global _process
    was_cut = bool(_process.settlers) or _process.readers > 0
    was_spoilt = _process.is_spoilt
    _process = _Process()
    _process.is_spoilt = was_cut or was_spoilt
    if was_cut:
        count("forked_with_open_ledger")


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)
