"""Parts that are imported where first used: whole, by one thread at a time, and cut by no fork.

Python locks a module before its package. Of two threads, one that imports a package and one that
imports a module of it, each waits for the other; Python lets one through, to a half made module.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import TYPE_CHECKING

from costspan.core import forks

if TYPE_CHECKING:
    from types import ModuleType

_loaded: dict[str, ModuleType] = {}
_lock = threading.RLock()


def load(name: str) -> ModuleType:
    """A module of costspan, by its full name.

    Raises:
        LedgerError: in a child that was forked in the middle of an import, or beside an open
            ledger: what it would wait for may never come.
    """
    if (found := _loaded.get(name)) is not None:
        return found
    with forks.unforked(), _lock:  # a fork that cuts the lock's holder spoils the child
        found = _loaded[name] = import_module(name)
    return found
