"""Settings: what `configure` was given, else the environment, else `costspan.toml`, else defaults.

The defaults live in the user's data directory, never in whatever folder a command runs in.
"""

from __future__ import annotations

import os
import re
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec

from costspan.core.journal import beside

PROFILE_DEFAULT = "billing"
OPEN_TTL_SECONDS = 2 * 3600
"""Longer than any host waits for a call unless told to: LiteLLM 6000 s, the OpenAI and Anthropic
clients three tries of 600 s. An end that comes later still wins."""
_OPEN_TTL_SECONDS_MAX = 10 * 366 * 86_400
FILE_NAME = "costspan.toml"
Sync = Literal["interval", "always"]
Drain = Literal["on", "off"]
_MEANT = re.compile(
    r"\s*(postgres(ql)?|sqlite):(?!//)|(.*\s)?(host|hostaddr|port|dbname|user|password|service)\s*=",
    re.IGNORECASE | re.DOTALL,
)
"""A URL without its slashes, or what libpq calls a connection string."""
_DIGITS = re.compile(r"[0-9]{1,12}", re.ASCII)
_KEYS = (
    "ledger",
    "spool",
    "rules",
    "prices",
    "charges",
    "directory",
    "profile",
    "gateways",
    "open_ttl",
    "sync",
    "drain",
    "spool_beside",
    "checkpoint_key",
    "unpriced_threshold",
    "prompt_keys",
    "attributes",
)


_LISTS = ("gateways", "attributes")
_NO_BESIDE = ("spool_beside", "off")


class ConfigError(ValueError):
    """A setting that cannot be used; the text names it, where it came from, and what to do."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Where the books are and what decides them.

    `ledger` is a URL (`sqlite:///path`) or a path; `spool` a folder; `rules`, `prices` and
    `charges` are files, None where the ledger's own policy (or the default) decides; `directory` is
    a file of tenants (`core.read.directory`); `gateways` are base URLs
    that are metered themselves; `open_ttl_seconds` is how long a call may be open before it is
    swept; `sync` says whether records are put on the disk itself every second (`interval`) or each
    before it is acknowledged (`always`); `drain` whether processes that record drain too, or leave
    that to a `costspan drain` beside them (`off`); `spool_beside` is the folder for records while
    the spool takes none, None for no such folder; `checkpoint_key` is the file of the key that
    signs closes, and `unpriced_threshold` how many events of unknown cost a period may have that is
    closed without force; `prompt_keys` is the file of the keys that prompts are hashed with, None
    for no hashes; `attributes` are the names kept of `attributes`, beside our own; `since_ns` (UTC)
    is when the settings took force here.
    """

    ledger: str
    spool: Path
    rules: Path | None = None
    prices: Path | None = None
    charges: Path | None = None
    directory: Path | None = None
    profile: str | None = None
    gateways: tuple[str, ...] = ()
    open_ttl_seconds: int = OPEN_TTL_SECONDS
    sync: Sync = "interval"
    drain: Drain = "on"
    spool_beside: Path | None = None
    checkpoint_key: Path | None = None
    unpriced_threshold: int = 0
    prompt_keys: Path | None = None
    attributes: tuple[str, ...] = ()
    since_ns: int = msgspec.field(default_factory=time.time_ns)

    @property
    def ledger_url(self) -> str:
        """The ledger as a URL; a bare path is an SQLite file."""
        return url_of(self.ledger)


def url_of(ledger: str) -> str:
    """A ledger as a URL; a bare path is an SQLite file.

    Raises:
        ConfigError: if it was meant as something else: a new file of that name would hide what is
            settled into it, and a password would be in its name.
    """
    if "://" in ledger:
        return ledger
    if _MEANT.match(ledger):
        raise ConfigError(
            "a ledger is a URL (postgresql://user@host/database, sqlite:///ledger.db) or the path"
            " of a file; this is neither"
        )
    return f"sqlite:///{ledger}"


def data_folder() -> Path:
    """The folder of this user's books, by the platform's convention."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "costspan"
    share = os.environ.get("XDG_DATA_HOME")
    return (Path(share) if share else Path.home() / ".local" / "share") / "costspan"


def load(given: Mapping[str, Any] | None = None) -> Config:
    """The settings in force: `given` > COSTSPAN_* > the file in COSTSPAN_CONFIG or ./costspan.toml.

    Paths become absolute here, those of a file relative to it: a daemon may change its folder.

    Raises:
        ConfigError: for a setting nobody knows, of the wrong kind, or in a file that cannot be
            read.
    """
    here = Path.cwd()
    file, in_file = _from_file()
    texts: dict[str, str] = {}
    gateways: tuple[str, ...] = ()
    open_ttl_seconds = OPEN_TTL_SECONDS
    sync: Sync = "interval"
    drain: Drain = "on"
    unpriced_threshold = 0
    attributes: tuple[str, ...] = ()
    for source, values, base in (
        (str(file), in_file, file.parent if file.is_absolute() else here / file.parent),
        ("the environment", _from_environment(), here),
        ("configure()", {k: v for k, v in (given or {}).items() if v is not None}, here),
    ):
        for key, value in values.items():
            if key not in _KEYS:
                raise ConfigError(f"{source} sets {key!r}; the settings are {', '.join(_KEYS)}")
            if key == "gateways":
                gateways = _urls(value, source)
            elif key == "open_ttl":
                open_ttl_seconds = _open_ttl(value, source)
            elif key == "sync":
                sync = _sync(value, source)
            elif key == "drain":
                drain = _drain(value, source)
            elif key == "unpriced_threshold":
                unpriced_threshold = _unpriced_threshold(value, source)
            elif key == "attributes":
                attributes = _names(value, source)
            elif not isinstance(value, str | os.PathLike) or not os.fspath(value):
                raise ConfigError(f"{source} sets {key} to {value!r}; it is a text")
            elif key == "profile" or "://" in os.fspath(value) or (key, value) == _NO_BESIDE:
                texts[key] = os.fspath(value)
            else:
                if key == "ledger":
                    _check_ledger(os.fspath(value), source)
                texts[key] = str(base / Path(os.fspath(value)).expanduser())
    spool = Path(texts.get("spool") or data_folder() / "spool")
    return Config(
        ledger=texts.get("ledger") or str(data_folder() / "ledger.db"),
        spool=spool,
        rules=Path(texts["rules"]) if "rules" in texts else None,
        prices=Path(texts["prices"]) if "prices" in texts else None,
        charges=Path(texts["charges"]) if "charges" in texts else None,
        directory=Path(texts["directory"]) if "directory" in texts else None,
        profile=texts.get("profile"),
        gateways=gateways,
        open_ttl_seconds=open_ttl_seconds,
        sync=sync,
        drain=drain,
        spool_beside=_beside(texts.get("spool_beside"), spool),
        checkpoint_key=Path(texts["checkpoint_key"]) if "checkpoint_key" in texts else None,
        unpriced_threshold=unpriced_threshold,
        prompt_keys=Path(texts["prompt_keys"]) if "prompt_keys" in texts else None,
        attributes=attributes,
    )


def fallback_spool() -> Path:
    """Where records go while the settings cannot be used: they are safe, and wait for a drain."""
    spool = os.environ.get("COSTSPAN_SPOOL")
    return Path(spool).expanduser().absolute() if spool else data_folder() / "spool"


def _beside(text: str | None, spool: Path) -> Path | None:
    if text is None:
        return beside.folder_for(spool)
    return None if text == _NO_BESIDE[1] else Path(text)


def _check_ledger(value: str, source: str) -> None:
    """Say who set it; the text is not repeated, since there may be a password in it."""
    try:
        url_of(value)
    except ConfigError as error:
        raise ConfigError(f"{source} sets the ledger wrong: {error}") from None


def _sync(value: object, source: str) -> Sync:
    if value not in ("interval", "always"):
        raise ConfigError(f"{source} sets sync to {value!r}; it is 'interval' or 'always'")
    return value


def _drain(value: object, source: str) -> Drain:
    if value not in ("on", "off"):
        raise ConfigError(f"{source} sets drain to {value!r}; it is 'on' or 'off'")
    return value


def _urls(value: object, source: str) -> tuple[str, ...]:
    urls: object = (value,) if isinstance(value, str) else value
    if not isinstance(urls, list | tuple):
        raise ConfigError(f"{source} sets gateways to {value!r}; it is a list of base URLs")
    for url in cast("list[object]", urls):
        if not isinstance(url, str) or "://" not in url:
            raise ConfigError(f"{source} names {url!r} as a gateway; write a base URL")
    return tuple(cast("list[str]", urls))


def _names(value: object, source: str) -> tuple[str, ...]:
    names: object = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ConfigError(f"{source} sets attributes to {value!r}; it is a list of names")
    for name in cast("list[object]", names):
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{source} names {name!r} among the attributes; write a name")
    return tuple(cast("list[str]", names))


def _open_ttl(value: object, source: str) -> int:
    """Whole seconds; the environment has them as a text."""
    seconds = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        raise ConfigError(f"{source} sets open_ttl to {value!r}; it is a whole number of seconds")
    if not 1 <= seconds <= _OPEN_TTL_SECONDS_MAX:
        raise ConfigError(
            f"{source} sets open_ttl to {value!r}; it is 1 second to {_OPEN_TTL_SECONDS_MAX:,}"
            " (ten years). costspan drain --sweep-older 0 sweeps what is open right now"
        )
    return seconds


def _unpriced_threshold(value: object, source: str) -> int:
    """A number of events; the environment has it as a text."""
    events = int(value) if isinstance(value, str) and _DIGITS.fullmatch(value) else value
    if isinstance(events, bool) or not isinstance(events, int) or events < 0:
        raise ConfigError(
            f"{source} sets unpriced_threshold to {value!r}; it is a whole number of events"
        )
    return events


def _from_environment() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in _KEYS:
        if value := os.environ.get(f"COSTSPAN_{key.upper()}"):
            found[key] = tuple(value.split(",")) if key in _LISTS else value
    return found


def _from_file() -> tuple[Path, dict[str, Any]]:
    named = os.environ.get("COSTSPAN_CONFIG")
    path = Path(named or FILE_NAME)
    try:
        return path, tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigError(f"COSTSPAN_CONFIG names {named}, which does not exist") from None
        return path, {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
