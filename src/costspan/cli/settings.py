"""The settings of a command, and the books it reads."""

from __future__ import annotations

import argparse
from pathlib import Path

from costspan.core import config
from costspan.core.config import Config
from costspan.core.read.books import Books
from costspan.core.settle.ledger import open_url


def settings_of(options: argparse.Namespace) -> Config:
    """The settings in force: options > environment > costspan.toml > defaults.

    Raises:
        ConfigError: for a setting that cannot be used.
    """
    folders = spools_of(options)
    given = {
        name: getattr(options, name, None) for name in ("ledger", "rules", "prices", "profile")
    }
    return config.load({**given, "spool": str(folders[-1]) if folders else None})


def spools_of(options: argparse.Namespace) -> list[Path]:
    """The spool folders that were given as options; none means the settings' own."""
    return [Path(folder).expanduser() for folder in getattr(options, "spool", None) or ()]


def open_books(settings: Config) -> Books:
    """The books of the settings. Reading never creates a ledger.

    Raises:
        LedgerMissing: if there is no ledger there.
    """
    return Books(open_url(settings.ledger_url, create=False))
