"""What a connection service file says, for it counts more than our own defaults.

libpq takes it under what it is given, so it would be covered by them. Its own reading of a URL does
not look there, and leaves a ledger named by a service without any limit of time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path


def words_of_service(said: Mapping[str, object]) -> frozenset[str]:
    """The parameters that the service which a URL or PGSERVICE names sets; empty if none is found.

    Looked for where libpq looks, but in the folder that it was built with.
    """
    name = said.get("service") or os.environ.get("PGSERVICE")
    if not name:
        return frozenset()
    for path in _files():
        try:
            lines = path.read_text("utf-8", "replace").splitlines()
        except OSError:
            continue  # libpq says what it makes of that
        if (found := _section(lines, str(name))) is not None:
            return found
    return frozenset()


def _files() -> Iterator[Path]:
    own = os.environ.get("PGSERVICEFILE")
    yield Path(own) if own else Path(os.path.expanduser("~/.pg_service.conf"))
    if folder := os.environ.get("PGSYSCONFDIR"):
        yield Path(folder) / "pg_service.conf"


def _section(lines: list[str], name: str) -> frozenset[str] | None:
    """The words before the `=` in `[name]`; None if there is no such section."""
    found: set[str] | None = None
    for line in map(str.strip, lines):
        if line.startswith("["):
            if found is not None:
                break
            found = set() if line == f"[{name}]" else None
        elif found is not None and not line.startswith("#") and "=" in line:
            found.add(line.partition("=")[0].strip())
    return None if found is None else frozenset(found)
