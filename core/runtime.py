"""This process's recorder and its background thread: what the public names act on.

Nothing is opened before the first record. The thread (see `background`) syncs once a second and
drains every few seconds; durability depends on neither, nor on the drain at exit, which only
shortens the wait.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from costspan.core import clean, config, context, counters, forks, identifiers
from costspan.core.attributes import allow, allowed_only
from costspan.core.background import Background
from costspan.core.bounded import MAP_KEYS_MAX
from costspan.core.imports import load
from costspan.core.journal import spool
from costspan.core.privacy import prompts
from costspan.core.recorder import Ack, Held, Recorder, Refused
from costspan.core.schema import Observation

if TYPE_CHECKING:
    from collections.abc import Callable

    from costspan.core.drain import Drained
    from costspan.core.read.books import Books
    from costspan.core.settle.ledger import Ledger

SYNC_SECONDS = 1.0
DRAIN_SECONDS = 5.0
SWEEP_SECONDS = 300.0
"""So often a process that records nothing looks for what is open for too long."""
BUSY_TIMES = 5
"""So often in a row the ledger may be another's before the host's log is told."""

_GATEWAYS = "costspan.core.join.gateways"

_encode = msgspec.msgpack.Encoder().encode


class _Process:
    """The state of one process; a forked child starts its own."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: config.Config | None = None
        self.recorder: Recorder | None = None
        self.background = True
        self.thread: Background | None = None
        self.former: list[Recorder] = []  # those that still hold records in memory
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
    charges: str | os.PathLike[str] | None = None,
    open_ttl: int | None = None,
    sync: str | None = None,
    drain: str | None = None,
    spool_beside: str | os.PathLike[str] | None = None,
    prompt_keys: str | os.PathLike[str] | None = None,
    attributes: str | tuple[str, ...] | list[str] | None = None,
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
        charges: TOML file of what tenants are charged where the prices do not say it.
        open_ttl: Seconds after which a call that started and did not end is swept: from then on
            its outcome is `unknown`, until its end comes after all. 7200 unless said; a batch is
            given 26 hours at least.
        sync: When records are put on the disk itself: `interval` (default), every second, so that
            a power cut takes the last one's at most; `always`, each before it is acknowledged.
        drain: `on` (default), or `off`: this process records, and leaves draining to a
            `costspan drain --watch` beside it; it needs no way to the ledger then.
        spool_beside: Folder for records while the spool takes none; `off` for none. Unless said,
            one of this user's own, in `/dev/shm` or else in the temporary directory.
        prompt_keys: File of the keys that prompts are hashed with (`core.privacy.hashing`); without
            one nothing is hashed.
        attributes: Names of `attributes` that are kept, beside those of our own adapters.
        background: Drain in a background thread of this process. Without it, records wait in
            the spool for `flush()` or `costspan drain`.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    settings = config.load(
        {
            "ledger": ledger, "spool": spool, "rules": rules, "prices": prices,
            "charges": charges, "profile": profile, "gateways": gateways, "open_ttl": open_ttl,
            "sync": sync, "drain": drain, "spool_beside": spool_beside, "prompt_keys": prompt_keys,
            "attributes": attributes,
        }
    )  # fmt: skip
    if settings.prompt_keys is not None:
        try:
            prompts.keys_of(settings.prompt_keys)
        except (OSError, ValueError) as error:
            raise config.ConfigError(f"prompt_keys: {error}") from error
    if any(each is not None for each in (rules, profile, prices, charges)):
        policy = load("costspan.core.policy")
        # Now, while somebody reads the error, rather than at the first drain.
        policy.rules_of(settings)
        policy.contract_of(settings)
        policy.charges_of(settings)
    with _process.lock:
        if (active := _process.recorder) is not None:
            active.rotate()
            wanted = (settings.spool, settings.spool_beside, settings.sync)
            if (active.folder, active.beside, active.sync_policy) != wanted:
                _process.recorder = None
                _process.former.append(active)
        _process.background = background
        return _in_force(settings)


def settings() -> config.Config:
    """The settings in force; read from the environment and files at first use."""
    with _process.lock:
        return _process.settings or _in_force(config.load())


def _in_force(settings: config.Config) -> config.Config:
    _process.settings = settings
    allow(settings.attributes)
    prompts.use(settings.prompt_keys)
    return settings


def recorder() -> Recorder:
    """This process's recorder, started at first use."""
    with _process.lock:
        if _process.recorder is None:
            _process.recorder = _new_recorder()
            if _process.background and _process.thread is None:
                _start_thread()
        return _process.recorder


def _new_recorder() -> Recorder:
    """A recorder into the spool; settings that cannot be used must not lose records."""
    try:
        known = settings()
        if known.gateways:
            load(_GATEWAYS)  # before any fork: a record waits for no import
    except config.ConfigError as error:
        folder = config.fallback_spool()
        complain("settings", f"{error}; records are kept in {folder} until it is mended")
        return Recorder(folder)
    return Recorder(known.spool, beside=known.spool_beside, sync=known.sync)


def _start_thread() -> None:
    thread = Background(
        _sync,
        _drain_and_deliver,
        _drain_failed,
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
        _process.thread = thread


def complain(subject: str, text: str) -> None:
    """Tell the host's log, once a subject: what goes wrong here raises nowhere else."""
    with _process.lock:
        if subject in _process.complaints:
            return
        _process.complaints.add(subject)
    try:
        # Imported only where something is wrong: the face stays quick to import.
        import logging

        logging.getLogger("costspan").error("%s", text)
    except Exception as error:  # a host's log handler, or a process that cannot import any more
        counters.count(f"complaint_unsaid:{type(error).__name__}")


def record(fields: dict[str, Any] | Observation) -> Ack | Held | Refused:
    """Record one observation. Never raises, never blocks, does no network; see `recorder`."""
    try:
        if isinstance(fields, Observation):
            fields = allowed_only(fields)
            active, known = _process.recorder or recorder(), _process.settings
            if known is not None and known.gateways:
                observation: Observation = load(_GATEWAYS).marked(fields, known.gateways)
                return _told(active.record(observation))
            return _told(active.record(fields))
        kept = clean.wire_fields(fields)
    except Exception as error:
        return _failed(error)
    return record_clean(kept)


def record_clean(kept: dict[str, Any]) -> Ack | Held | Refused:
    """As `record`, of fields that are clean already: what `clean.wire_fields` made.

    They are not turned into an `Observation` first: a map of the same fields is its encoding.
    """
    try:
        active = _process.recorder or recorder()
        known = _process.settings
        if known is not None and known.gateways and "attributes" in kept:
            kept = _marked(kept, known.gateways)
        said = active.append_body(_encode(kept))
        if type(said) is not Ack:
            return _told(said)
        return Ack(kept["oid"]) if "oid" in kept else said
    except Exception as error:
        return _failed(error)


def _told(said: Ack | Held | Refused) -> Ack | Held | Refused:
    """The answer, which the host's log hears of once if it is no `Ack`."""
    if type(said) is Refused:
        complain(said.reason, f"a record was refused ({said.reason}): see costspan doctor")
    elif type(said) is Held:
        complain(f"held:{said.reason}", f"records are kept in memory ({said.reason})")
    return said


def _failed(error: Exception) -> Ack | Held | Refused:
    counters.count(f"refused:{type(error).__name__}")
    return _told(Refused(f"{type(error).__name__}: {error}"))


def _marked(kept: dict[str, Any], gateways: tuple[str, ...]) -> dict[str, Any]:
    """Mark the client's view of a call that a gateway meters."""
    of = load(_GATEWAYS)
    if not of.is_metered(kept["attributes"].get("base_url"), gateways):
        return kept
    flags = [flag for flag in kept.get("flags", ()) if flag != of.DOWNSTREAM]
    return {**kept, "flags": (*flags[: MAP_KEYS_MAX - 1], of.DOWNSTREAM)}


def flush(timeout: float | None = None, *, sweep_older: int | None = None) -> Drained:
    """Settle everything recorded so far into the ledger; returns what was done.

    Args:
        timeout: Seconds to wait for another process that is settling; None waits 30 s.
        sweep_older: Sweep every event that is open for so many seconds, batches too (0: all of
            them, those under way as well); None: the setting `open_ttl` decides.

    Raises:
        LedgerError: if the ledger cannot be opened or written; the records stay in the spool.
    """
    for each in _recorders():
        each.rotate()
    forks.check()
    drained: Drained = load("costspan.core.drain").drain(
        settings(),
        timeout_seconds=30.0 if timeout is None else timeout,
        sweep_older_seconds=sweep_older,
    )
    return drained


def open_ledger(url: str | os.PathLike[str] | None = None) -> Books:
    """The books to read, at `url` or where the settings say. Reading never creates a ledger.

    Raises:
        LedgerMissing: if there is no ledger there.
    """
    forks.check()
    of: type[Books] = load("costspan.core.read.books").Books
    open_url: Callable[..., Ledger] = load("costspan.core.settle.ledger").open_url
    found = settings().ledger_url if url is None else os.fspath(url)
    return of(open_url(found if "://" in found else f"sqlite:///{found}", create=False))


def _recorders() -> list[Recorder]:
    """The recorder, and those before it that still hold something."""
    with _process.lock:
        _process.former = [each for each in _process.former if each.held]
        active = _process.recorder
        return [*_process.former, *([] if active is None else [active])]


def _sync() -> None:
    for each in _recorders():
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
    sinks.deliver(settings())  # in threads of its own: a sink holds up no sync and no drain
    return was_due


def _drain_failed(error: BaseException, times: int = 1) -> None:
    """Count it; the records stay in the spool. Many processes often find the ledger busy."""
    counters.count(f"drain_failed:{type(error).__name__}")
    if times >= BUSY_TIMES or type(error).__name__ != "LedgerBusy":
        complain(f"drain:{type(error).__name__}", f"the books are not up to date: {error}")


def _drain_quietly(even_if_empty: bool = False) -> bool:
    """As `_drain`; what goes wrong is counted. Whether it was tried."""
    try:
        return _drain(even_if_empty)
    except Exception as error:
        _drain_failed(error, BUSY_TIMES)
        return True


def _at_exit() -> None:
    """Shorten the wait for the books where atexit runs at all; nothing depends on it."""
    for each in _recorders():
        each.rotate()  # the last moment for what is held in memory
    if _process.recorder is None or not _process.background:
        return
    if _process.thread is not None:
        _process.thread.stop()
        _process.thread.join(5.0)
    _sync()
    _drain_quietly()


def _before_fork() -> None:
    if (active := _process.recorder) is not None:
        active.before_fork()


def _after_fork_in_parent() -> None:
    if (active := _process.recorder) is not None:
        active.after_fork_in_parent()


def _after_fork_in_child() -> None:
    inherited = [*_process.former, *([] if _process.recorder is None else [_process.recorder])]
    _process.lock = threading.RLock()
    _process.thread = None  # threads do not survive a fork
    _process.recorder = None  # the next record starts a writer, and a thread, of the child's own
    _process.former = []  # what they hold is the parent's to write
    counters.after_fork()
    identifiers.after_fork()
    spool.after_fork()
    for each in inherited:
        each.after_fork()


atexit.register(_at_exit)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)

__all__ = ["configure", "context", "flush", "open_ledger", "record", "recorder", "settings"]
