"""What this process works with: its settings in force, its recorders, and whom it told of what.

One state a process: a forked child starts its own (see `runtime`).
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from costspan.core import config, counters
from costspan.core.attributes import allow
from costspan.core.imports import load
from costspan.core.privacy import prompts

if TYPE_CHECKING:
    from costspan.core.background import Background
    from costspan.core.recorder import Recorder


class Process:
    """The state of one process."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: config.Config | None = None
        self.recorder: Recorder | None = None
        self.background = True
        self.thread: Background | None = None
        self.former: list[Recorder] = []  # those that still hold records in memory
        self.complaints: set[str] = set()


this = Process()


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
    with this.lock:
        if (active := this.recorder) is not None:
            active.rotate()
            wanted = (settings.spool, settings.spool_beside, settings.sync)
            if (active.folder, active.beside, active.sync_policy) != wanted:
                this.recorder = None
                this.former.append(active)
        this.background = background
        return _in_force(settings)


def settings() -> config.Config:
    """The settings in force; read from the environment and files at first use."""
    with this.lock:
        return this.settings or _in_force(config.load())


def _in_force(settings: config.Config) -> config.Config:
    this.settings = settings
    allow(settings.attributes)
    prompts.use(settings.prompt_keys)
    return settings


def recorders() -> list[Recorder]:
    """The recorder, and those before it that still hold something."""
    with this.lock:
        this.former = [each for each in this.former if each.held]
        active = this.recorder
        return [*this.former, *([] if active is None else [active])]


def complain(subject: str, text: str) -> None:
    """Tell the host's log, once a subject: what goes wrong here raises nowhere else."""
    with this.lock:
        if subject in this.complaints:
            return
        this.complaints.add(subject)
    _tell("error", text)


def mended(subjects: str, text: str) -> None:
    """Where the host's log was told of what begins so, tell it that this is over.

    The next time it is told again.
    """
    with this.lock:
        told = {each for each in this.complaints if each.startswith(subjects)}
        this.complaints -= told
    if told:
        _tell("warning", text)


def _tell(level: str, text: str) -> None:
    try:
        # Imported only where something is wrong: the face stays quick to import.
        import logging

        getattr(logging.getLogger("costspan"), level)("%s", text)
    except Exception as error:  # a host's log handler, or a process that cannot import any more
        counters.count(f"complaint_unsaid:{type(error).__name__}")
