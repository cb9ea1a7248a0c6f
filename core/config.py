"""Settings: what `configure` was given, else the environment, else `costspan.toml`, else defaults.

The defaults live in the user's data directory, never in whatever folder a command runs in.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

PROFILE_DEFAULT = "billing"
FILE_NAME = "costspan.toml"
_KEYS = ("ledger", "spool", "rules", "prices", "profile", "gateways")


class ConfigError(ValueError):
    """A setting that cannot be used; the text names it, where it came from, and what to do."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Where the books are and what decides them.

    `ledger` is a URL (`sqlite:///path`) or a path; `spool` a folder; `rules` and `prices` are
    files, None where the ledger's own policy (or the default) decides; `gateways` are base URLs
    that are metered themselves.
    """

    ledger: str
    spool: Path
    rules: Path | None = None
    prices: Path | None = None
    profile: str | None = None
    gateways: tuple[str, ...] = ()

    @property
    def ledger_url(self) -> str:
        """The ledger as a URL; a bare path is an SQLite file."""
        return self.ledger if "://" in self.ledger else f"sqlite:///{self.ledger}"


def data_folder() -> Path:
    """The folder of this user's books, by the platform's convention."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "costspan"
    share = os.environ.get("XDG_DATA_HOME")
    return (Path(share) if share else Path.home() / ".local" / "share") / "costspan"


def load(given: Mapping[str, Any] | None = None) -> Config:
    """The settings in force: `given` > COSTSPAN_* > the file in COSTSPAN_CONFIG or ./costspan.toml.

    Raises:
        ConfigError: for a setting nobody knows or a file that cannot be read.
    """
    settings: dict[str, Any] = {}
    for source, values in (
        (FILE_NAME, _from_file()),
        ("the environment", _from_environment()),
        ("configure()", {k: v for k, v in (given or {}).items() if v is not None}),
    ):
        for key, value in values.items():
            if key not in _KEYS:
                raise ConfigError(f"{source} sets {key!r}; the settings are {', '.join(_KEYS)}")
            settings[key] = value
    folder = data_folder()
    gateways = settings.get("gateways") or ()
    return Config(
        ledger=str(settings.get("ledger") or folder / "ledger.db"),
        spool=_path(settings.get("spool")) or folder / "spool",
        rules=_path(settings.get("rules")),
        prices=_path(settings.get("prices")),
        profile=settings.get("profile"),
        gateways=(gateways,) if isinstance(gateways, str) else tuple(gateways),
    )


def _path(value: object) -> Path | None:
    return Path(str(value)).expanduser() if value else None


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in _KEYS:
        if value := os.environ.get(f"COSTSPAN_{key.upper()}"):
            found[key] = tuple(value.split(",")) if key == "gateways" else value
    return found


def _from_file() -> dict[str, Any]:
    named = os.environ.get("COSTSPAN_CONFIG")
    path = Path(named or FILE_NAME)
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"COSTSPAN_CONFIG names {named}, which does not exist") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
