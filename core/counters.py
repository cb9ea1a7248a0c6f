"""Counts of everything that went wrong and was survived: nothing is dropped in silence."""

from __future__ import annotations

import threading
from collections import Counter

_lock = threading.RLock()  # a signal handler or finalizer may count in the middle of a count
_counts: Counter[str] = Counter()


def count(name: str, times: int = 1) -> None:
    """Count one more of `name`. Never raises."""
    with _lock:
        _counts[name] += times


def snapshot() -> dict[str, int]:
    """All counts of this process, by name."""
    with _lock:
        return dict(_counts)


def after_fork() -> None:
    """A child starts at zero, with a lock that no thread of the parent can hold."""
    global _lock
    _lock = threading.RLock()
    _counts.clear()
