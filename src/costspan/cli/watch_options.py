"""The options of `drain --watch`, and what they ask for."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from costspan.cli.exits import UsageError
from costspan.cli.surroundings import LATE_NS

HOST = "127.0.0.1"
PORT = 9465
WAIT_SECONDS = 5
_EVERY_SECONDS = 5
_LATE_SECONDS = LATE_NS // 10**9
_SECONDS_MAX = 86_400
_NAMES = ("every", "late", "listen", "tenants", "last_drain")


class Plan(NamedTuple):
    """What the options ask for; `listen` is None for no endpoint."""

    every_seconds: float
    wait_seconds: float
    late_seconds: float
    tenants: int
    listen: tuple[str, int] | None
    has_last_drain: bool


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `drain --watch`."""
    group = parser.add_argument_group("beside processes that record, until SIGTERM or SIGINT")
    group.add_argument("--watch", action="store_true", help="drain again and again")
    group.add_argument(
        "--every",
        metavar="SECONDS",
        type=float,
        help=f"the pause between two drains (default {_EVERY_SECONDS})",
    )
    group.add_argument(
        "--late",
        metavar="SECONDS",
        type=float,
        help="without a drain that succeeds, or with a segment that waits, for longer than this,"
        f" /health says 503 (default {_LATE_SECONDS})",
    )
    group.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help=f"where /health and /metrics are (default {HOST}:{PORT}); off: nowhere",
    )
    group.add_argument(
        "--tenants",
        metavar="N",
        type=int,
        help="name the N tenants charged most this month in /metrics (default: none)",
    )
    group.add_argument(
        "--last-drain",
        action="store_true",
        default=None,
        help="drain once more when asked to end: for a spool that goes with its machine",
    )


def check_absent(options: argparse.Namespace) -> None:
    """Refuse what means nothing without `--watch`.

    Raises:
        UsageError: if such an option was given.
    """
    for name in _NAMES:
        if getattr(options, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for drain --watch")


def plan_of(options: argparse.Namespace, folders: Iterable[Path]) -> Plan:
    """What is asked for. A folder may come later: the processes that record make it.

    Raises:
        UsageError: for a value that cannot be used.
    """
    for folder in folders:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--spool {folder}: it is no folder")
    if options.json:
        raise UsageError("--json is for one drain; with --watch ask /metrics")
    if options.sweep_older is not None:
        raise UsageError(
            "--sweep-older is for one drain; with --watch the setting open_ttl decides"
        )
    every = _EVERY_SECONDS if options.every is None else options.every
    late = _LATE_SECONDS if options.late is None else options.late
    if not 0 < every <= _SECONDS_MAX or not 0 < late <= _SECONDS_MAX:
        raise UsageError("--every and --late are seconds: more than 0, no more than a day's")
    tenants = options.tenants or 0
    if tenants < 0:
        raise UsageError("--tenants must be 0 or more")
    return Plan(
        every,
        WAIT_SECONDS if options.wait is None else options.wait,
        late,
        tenants,
        None if options.listen == "off" else address_of(options.listen or str(PORT)),
        bool(options.last_drain),
    )


def address_of(text: str) -> tuple[str, int]:
    """HOST:PORT, or PORT alone, which is this machine's own.

    Raises:
        UsageError: if it is neither.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if colon else HOST
    if not host or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise UsageError(f"--listen {text}: write HOST:PORT, such as {HOST}:{PORT}, or off")
    return host, int(port)
