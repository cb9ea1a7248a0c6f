"""The real SQLite ledger, opened by simulated processes: each call of it may be the last.

A commit is durable here; what the simulated computer loses with its power is the spool.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costspan.core import hooks
from costspan.core.ledger_errors import LedgerBusy
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers.sqlite import store
from costspan.plugins.ledgers.sqlite.store import SqliteLedger
from simulator.computer import Process
from simulator.faults import Killed
from simulator.hosts import actor, replaced

SCHEME = "simulated:///"
_opened_by: dict[str, tuple[Process, str]] = {}


def url_for(process: Process, path: str) -> str:
    """The ledger in the file at `path` as this process opens it."""
    url = f"{SCHEME}{process.number}{path}"
    _opened_by[url] = (process, path)
    return url


class Plugin:
    """Opens ledgers of simulated processes."""

    @hooks.hookimpl
    def open_ledger(self, url: str, create: bool) -> Ledger | None:
        if url not in _opened_by:
            return None
        process, path = _opened_by[url]
        _step(process, "open_ledger")
        return SimulatedLedger(SqliteLedger(path, create=create), process)  # type: ignore[return-value]


@contextmanager
def plugged_in() -> Generator[None]:
    """The scheme is known as long as this lasts."""
    manager, plugin = hooks.plugins(), Plugin()
    manager.register(plugin, "simulator")
    right = store._remove

    def remove(database: Path) -> None:
        if actor().is_alive:  # what a dead process was rebuilding is left behind
            right(database)

    try:
        with replaced(store, "_remove", remove):
            yield
    finally:
        manager.unregister(plugin)
        _opened_by.clear()


def _step(process: Process, name: str) -> bool:
    """One call; whether the process is to die right after it. It fails as SQLite does."""
    try:
        fault = process.call(name)
    except OSError as error:
        raise sqlite3.OperationalError(f"disk I/O error: {error}") from error
    return fault is not None and fault.what == "kill_after"


def _die(process: Process) -> None:
    process.kill()
    raise Killed


class _Calls:
    """Every public method is a call of the process."""

    def __init__(self, inner: Any, process: Process) -> None:
        self._inner = inner
        self._process = process

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name.startswith("_") or not callable(found):
            return found
        return self._watched(name, found)

    def _watched(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            dies = _step(self._process, name)
            result = method(*args, **kwargs)
            if dies:
                _die(self._process)
            return result

        return call


class SimulatedLedger(_Calls):
    """A ledger whose transactions may end at any of their calls, at the commit and after it."""

    @contextmanager
    def settling(self, timeout_seconds: float) -> Generator[Any]:
        try:
            _step(self._process, "settling")
        except sqlite3.OperationalError as error:
            raise LedgerBusy(f"held by another settler ({error})") from error
        with self._inner.settling(0) as settlement:
            yield _Calls(settlement, self._process)
            dies = _step(self._process, "commit")
        if dies:
            _die(self._process)

    @contextmanager
    def rebuilding(self) -> Generator[Any]:
        _step(self._process, "rebuilding")
        with self._inner.rebuilding() as fresh:
            yield SimulatedLedger(fresh, self._process)
            dies = _step(self._process, "adopt")
        if dies:
            _die(self._process)

    def close(self) -> None:
        """Never fails: the connection of a dead process is closed as well."""
        self._inner.close()
