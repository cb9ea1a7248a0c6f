"""Where another system's rows come from: its table, or the files of one export of it.

All files are looked at before the first row is read: what is no export of this kind is told before
anything is changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from costspan.cli.exits import UsageError
from costspan.cli.progress import progress
from costspan.core.ledger_urls import shown_url
from costspan.plugins.backfill import focus, langfuse, litellm, sources
from costspan.plugins.backfill.parts import Parts, parts_of
from costspan.plugins.backfill.placed import Placed, UnreadableSource

MODULES: Final[Mapping[str, Any]] = {
    "litellm-spendlogs": litellm,
    "langfuse": langfuse,
    "focus": focus,
}
"""What is read, by kind."""

_URLS = ("postgresql://", "postgres://")
_ROWS_PROBED = 100


def opened(kind: str, named: Sequence[str]) -> tuple[Parts, Iterator[Placed]]:
    """The files, none where it is a table; and every row, each with its place.

    Args:
        kind: What they are an export of.
        named: One URL, or paths.

    Raises:
        UsageError: if this cannot be read together.
        UnreadableSource: if a file or the table has no rows of this kind; nothing was changed.
        OSError: if a file cannot be read.
    """
    tables = [source for source in named if "://" in source]
    if tables and len(named) > 1:
        raise UsageError(f"{shown_url(tables[0])} is a table: it is read alone")
    if tables:
        return Parts((), ()), _of_table(kind, tables[0])
    with progress("looking at", "files", len(named)) as tell:
        for path in map(Path, named):
            _recognise(kind, sources.look(path), path)
        parts = parts_of([Path(source) for source in named], tell)
    return parts, parts.rows()


def _of_table(kind: str, url: str) -> Iterator[Placed]:
    if kind != "litellm-spendlogs":
        raise UsageError(f"{kind} is read from a file: export one")
    if not url.startswith(_URLS):
        raise UsageError(
            f"{shown_url(url)}: a table's URL begins with postgresql:// as it stands here"
        )
    try:
        from costspan.plugins.backfill import postgres
    except ImportError as error:
        raise UnreadableSource("a table needs psycopg: pip install 'costspan[postgres]'") from error
    rows = postgres.read(url)
    first = list(islice(rows, _ROWS_PROBED))
    return chain(first, rows)


def _recognise(kind: str, found: Sequence[dict[str, Any]], path: Path) -> None:
    """Raises: UnreadableSource: if none of a file's first rows is of this kind."""
    if not found or _any(kind, found):
        return
    others = [name for name in MODULES if _any(name, found)]
    said = f"costspan ingest {others[0]} reads them" if others else MODULES[kind].MEANT
    columns = ", ".join(list(found[0])[:8])
    raise UnreadableSource(
        f"{path}: these are no rows of {kind} (they have {columns}, ...): {said}"
    )


def _any(kind: str, rows: Iterable[dict[str, Any]]) -> bool:
    return any(MODULES[kind].recognises(row) for row in rows)
