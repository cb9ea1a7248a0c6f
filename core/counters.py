"""Counts of everything that went wrong and was survived: nothing is dropped in silence."""

from __future__ import annotations

import threading
from collections import Counter

_lock = threading.RLock()  # a signal handler or finalizer may count in the middle of a count
_counts: Counter[str] = Counter()
_told_by: str | None = None


def count(name: str, times: int = 1) -> None:
    """Count one more of `name`. Never raises."""
    with _lock:
        _counts[name] += times


def snapshot() -> dict[str, int]:
    """All counts of this process, by name."""
    with _lock:
        return dict(_counts)


def told_by(writer: str) -> str:
    """The writer in whose name this process tells its counts: the first that asked.

    A process may have several writers, one after another; its counts are told once.
    """
    global _told_by
    with _lock:
        if _told_by is None:
            _told_by = writer
        return _told_by


def after_fork() -> None:
    """A child starts at zero, with a lock that no thread of the parent can hold."""
    global _lock, _told_by
    _lock = threading.RLock()
    _counts.clear()
    _told_by = None
