"""The settings of a command, and the books it reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from costspan.cli.exits import UsageError
from costspan.cli.printing import counted
from costspan.core import config
from costspan.core.config import Config
from costspan.core.ledger_errors import LedgerMissing
from costspan.core.read.books import Books
from costspan.core.read.directory import Directory, DirectoryError, load_directory
from costspan.core.read.waiting import waiting
from costspan.core.settle.ledger import open_url

_POLICY = ("rules", "prices", "charges", "profile")


def settings_of(options: argparse.Namespace) -> Config:
    """The settings in force: options > environment > costspan.toml > defaults.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    folders = spools_of(options)
    given = {name: getattr(options, name, None) for name in ("ledger", *_POLICY)}
    return config.load({**given, "spool": str(folders[-1]) if folders else None})


def reader_settings_of(options: argparse.Namespace) -> Config:
    """The settings of a command that only reads what was decided.

    Raises:
        UsageError: if it was given rules, prices or charges: they would change nothing.
        ConfigError: for a setting that cannot be used.
    """
    for name in _POLICY:
        if getattr(options, name, None) is not None:
            raise UsageError(
                f"--{name} changes nothing here: the books are as the ledger's own policy decided"
                f" them. costspan drain --{name} sets it for events from then on"
            )
    return settings_of(options)


def spools_of(options: argparse.Namespace) -> list[Path]:
    """The spool folders that were given as options; none means the settings' own."""
    return [Path(folder).expanduser() for folder in getattr(options, "spool", None) or ()]


def directory_of(options: argparse.Namespace, settings: Config) -> Directory | None:
    """The tenant directory of `--directory`, else of the setting; None if there is neither.

    Raises:
        UsageError: for a file that is no directory.
    """
    path = Path(options.directory).expanduser() if options.directory else settings.directory
    if path is None:
        return None
    try:
        return load_directory(path)
    except DirectoryError as error:
        raise UsageError(str(error)) from error


def open_books(settings: Config) -> Books:
    """The books of the settings. Reading never creates a ledger.

    Raises:
        LedgerMissing: if there is no ledger there.
    """
    try:
        return Books(open_url(settings.ledger_url, create=False), settings.gateways)
    except LedgerMissing as missing:
        found = waiting(settings.spool)
        if not found.complete and not found.live:
            raise
        raise LedgerMissing(
            f"{missing}. {counted(found.complete + found.live, 'segment')} of records"
            f" wait in {found.folder}: run costspan drain"
        ) from missing
