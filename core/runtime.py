"""This process's recorder and its background drain: what the public names act on.

Nothing is opened before the first record. The thread syncs once a second and drains every few
seconds; durability depends on neither, nor on the drain at exit, which only shortens the wait.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from costspan.core import config, context, counters, identifiers
from costspan.core.recorder import Ack, Recorder, Refused
from costspan.core.schema import Observation

if TYPE_CHECKING:
    from costspan.core.drain import Drained
    from costspan.core.read.books import Books

SYNC_SECONDS = 1.0
DRAIN_SECONDS = 5.0
SWEEP_SECONDS = 300.0
"""So often a process that records nothing looks for what is open for too long."""


class _Process:
    """The state of one process; a forked child starts its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: config.Config | None = None
        self.recorder: Recorder | None = None
        self.background = True
        self.drainer: _Drainer | None = None
        self.complaints: set[str] = set()


_process = _Process()


def configure(
    ledger: str | os.PathLike[str] | None = None,
    spool: str | os.PathLike[str] | None = None,
    rules: str | os.PathLike[str] | None = None,
    prices: str | os.PathLike[str] | None = None,
    profile: str | None = None,
    gateways: str | tuple[str, ...] | list[str] | None = None,
    *,
    open_ttl: int | None = None,
    background: bool = True,
) -> config.Config:
    """Say where the books are and what decides them; returns the settings in force.

    Args:
        ledger: URL (`sqlite:///path`) or path of the ledger.
        spool: Folder of this machine's segments.
        rules: TOML file of ownership rules, in front of the profile's.
        prices: TOML contract file, in front of the public price lists.
        profile: `billing` (default) or `chargeback`.
        gateways: Base URLs that are metered themselves; calls to them make no second event.
        open_ttl: Seconds after which a call that started and did not end is swept: from then on
            its outcome is `unknown`, until its end comes after all. 7200 unless said; a batch is
            given 26 hours at least.
        background: Drain in a background thread of this process. Without it, records wait in
            the spool for `flush()` or `costspan drain`.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    settings = config.load(
        {
            "ledger": ledger,
            "spool": spool,
            "rules": rules,
            "prices": prices,
            "profile": profile,
            "gateways": gateways,
            "open_ttl": open_ttl,
        }
    )
    if rules is not None or profile is not None or prices is not None:
        from costspan.core import policy

        # Now, while somebody reads the error, rather than at the first drain.
        policy.rules_of(settings)
        policy.contract_of(settings)
    with _process.lock:
        if _process.recorder is not None:
            _process.recorder.rotate()
            if _process.recorder.folder != settings.spool:
                _process.recorder = None
        _process.settings = settings
        _process.background = background
    return settings


def settings() -> config.Config:
    """The settings in force; read from the environment and files at first use."""
    with _process.lock:
        if _process.settings is None:
            _process.settings = config.load()
        return _process.settings


def recorder() -> Recorder:
    """This process's recorder, started at first use."""
    with _process.lock:
        if _process.recorder is None:
            _process.recorder = Recorder(_spool_folder())
            if _process.background and _process.drainer is None:
                _process.drainer = _Drainer()
                # At interpreter shutdown no thread can start; the records are safe without it.
                with contextlib.suppress(RuntimeError):
                    _process.drainer.start()
        return _process.recorder


def _spool_folder() -> Path:
    """The folder to record into; settings that cannot be used must not lose records."""
    try:
        return settings().spool
    except config.ConfigError as error:
        folder = config.fallback_spool()
        complain("settings", f"{error}; records are kept in {folder} until it is mended")
        return folder


def complain(subject: str, text: str) -> None:
    """Tell the host's log, once a subject: what goes wrong here raises nowhere else."""
    with _process.lock:
        if subject in _process.complaints:
            return
        _process.complaints.add(subject)
    # Imported only where something is wrong: the face stays quick to import.
    import logging

    logging.getLogger("costspan").error("%s", text)


def record(fields: dict[str, Any] | Observation) -> Ack | Refused:
    """Record one observation. Never raises, never blocks, does no network; see `recorder`."""
    try:
        active = _process.recorder or recorder()
        if isinstance(fields, Observation):
            said = active.record(fields)
        else:
            known = _process.settings
            if known is not None and known.gateways and fields.get("attributes"):
                fields = _marked(fields, known.gateways)
            said = active.record_fields(fields)
    except Exception as error:
        counters.count(f"refused:{type(error).__name__}")
        said = Refused(f"{type(error).__name__}: {error}")
    if type(said) is Refused:
        complain(said.reason, f"a record was refused ({said.reason}): see costspan doctor")
    return said


def _marked(fields: dict[str, Any], gateways: tuple[str, ...]) -> dict[str, Any]:
    """Mark the client's view of a call that a gateway meters."""
    from costspan.core.join.identity import DOWNSTREAM, is_metered

    attributes = fields["attributes"]
    if isinstance(attributes, dict) and is_metered(
        cast("dict[str, Any]", attributes).get("base_url"), gateways
    ):
        return {**fields, "flags": (*(fields.get("flags") or ()), DOWNSTREAM)}
    return fields


def flush(timeout: float | None = None, *, sweep_older: int | None = None) -> Drained:
    """Settle everything recorded so far into the ledger; returns what was done.

    Args:
        timeout: Seconds to wait for another process that is settling; None waits 30 s.
        sweep_older: Sweep every event that is open for so many seconds, batches too (0: all of
            them, those under way as well); None: the setting `open_ttl` decides.

    Raises:
        LedgerError: if the ledger cannot be opened or written; the records stay in the spool.
    """
    from costspan.core import drain

    if _process.recorder is not None:
        _process.recorder.rotate()
    return drain.drain(
        settings(),
        timeout_seconds=30.0 if timeout is None else timeout,
        sweep_older_seconds=sweep_older,
    )


def open_ledger(url: str | os.PathLike[str] | None = None) -> Books:
    """The books to read, at `url` or where the settings say. Reading never creates a ledger.

    Raises:
        LedgerMissing: if there is no ledger there.
    """
    from costspan.core.read.books import Books
    from costspan.core.settle.ledger import open_url

    found = settings().ledger_url if url is None else os.fspath(url)
    return Books(open_url(found if "://" in found else f"sqlite:///{found}", create=False))


class _Drainer(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="costspan-drain", daemon=True)
        self._stop_asked = threading.Event()

    def run(self) -> None:
        waited = unswept = 0.0
        while not self._stop_asked.wait(SYNC_SECONDS):
            waited += SYNC_SECONDS
            unswept += SYNC_SECONDS
            active = _process.recorder
            if active is None:
                continue
            active.sync()
            if waited >= DRAIN_SECONDS:
                waited = 0.0
                if _drain_quietly(even_if_empty=unswept >= SWEEP_SECONDS):
                    unswept = 0.0

    def stop(self) -> None:
        self._stop_asked.set()


def _drain_quietly(even_if_empty: bool = False) -> bool:
    """Drain, if anything waits; what goes wrong is counted and tried again later.

    The records stay in the spool. `even_if_empty`: to sweep what is open for too long. Returns
    whether a drain was tried.
    """
    from costspan.core.journal import spool

    try:
        if not even_if_empty and not spool.segments(settings().spool):
            return False
        flush(timeout=1.0)
    except Exception as error:
        counters.count(f"drain_failed:{type(error).__name__}")
        complain(f"drain:{type(error).__name__}", f"the books are not up to date: {error}")
    return True


def _at_exit() -> None:
    """Shorten the wait for the books where atexit runs at all; nothing depends on it."""
    drainer, active = _process.drainer, _process.recorder
    if drainer is None or active is None:
        return
    drainer.stop()
    drainer.join(5.0)
    active.sync()
    _drain_quietly()


def _after_fork_in_child() -> None:
    inherited = _process.recorder
    _process.lock = threading.RLock()
    _process.drainer = None  # threads do not survive a fork
    _process.recorder = None  # the next record starts a writer, and a thread, of the child's own
    counters.after_fork()
    identifiers.after_fork()
    if inherited is not None:
        inherited.after_fork()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork_in_child)

__all__ = ["configure", "context", "flush", "open_ledger", "record", "recorder", "settings"]
