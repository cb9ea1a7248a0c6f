"""`record()` into this process's recorder, and what becomes of that over a fork and at the exit.

What the public names act on. Nothing is opened before the first record. See `process` for the
settings, `upkeep` for what is done with what was recorded.
"""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING, Any

import msgspec

from costspan.core import clean, config, counters, forks, identifiers
from costspan.core.attributes import allowed_only
from costspan.core.bounded import MAP_KEYS_MAX
from costspan.core.imports import load
from costspan.core.journal import spool
from costspan.core.process import complain, configure, settings, this
from costspan.core.recorder import Ack, Held, Recorder, Refused
from costspan.core.schema import Observation
from costspan.core.upkeep import at_exit, flush, start_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from costspan.core.read.books import Books
    from costspan.core.settle.ledger import Ledger

_GATEWAYS = "costspan.core.join.gateways"

_encode = msgspec.msgpack.Encoder().encode


def recorder() -> Recorder:
    """This process's recorder, started at first use."""
    with this.lock:
        if this.recorder is None:
            this.recorder = _new_recorder()
            if this.background and this.thread is None:
                start_thread()
        return this.recorder


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


def record(fields: dict[str, Any] | Observation) -> Ack | Held | Refused:
    """Record one observation. Never raises, never blocks, does no network; see `recorder`."""
    try:
        if isinstance(fields, Observation):
            fields = allowed_only(fields)
            active, known = this.recorder or recorder(), this.settings
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
        active = this.recorder or recorder()
        known = this.settings
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


def open_ledger(url: str | os.PathLike[str] | None = None) -> Books:
    """The books to read, at `url` or where the settings say. Reading never creates a ledger.

    Raises:
        LedgerMissing: if there is no ledger there.
        ConfigError: if `url` is neither a URL nor a path.
    """
    forks.check()
    of: type[Books] = load("costspan.core.read.books").Books
    open_url: Callable[..., Ledger] = load("costspan.core.settle.ledger").open_url
    found = settings().ledger_url if url is None else config.url_of(os.fspath(url))
    return of(open_url(found, create=False))


def _before_fork() -> None:
    if (active := this.recorder) is not None:
        active.before_fork()


def _after_fork_in_parent() -> None:
    if (active := this.recorder) is not None:
        active.after_fork_in_parent()


def _after_fork_in_child() -> None:
    inherited = [*this.former, *([] if this.recorder is None else [this.recorder])]
    this.lock = threading.RLock()
    this.thread = None  # threads do not survive a fork
    this.recorder = None  # the next record starts a writer, and a thread, of the child's own
    this.former = []  # what they hold is the parent's to write
    counters.after_fork()
    identifiers.after_fork()
    spool.after_fork()
    for each in inherited:
        each.after_fork()


atexit.register(at_exit)
os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)

__all__ = [
    "configure",
    "flush",
    "open_ledger",
    "record",
    "record_clean",
    "recorder",
    "settings",
]
