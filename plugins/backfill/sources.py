"""Rows of a file, each with where it stands: CSV, NDJSON or one JSON document; gzip too."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, cast

from costspan.core.backfill.claim import Rejected
from costspan.plugins.backfill import json_rows
from costspan.plugins.backfill.csv_rows import of_csv
from costspan.plugins.backfill.placed import Placed, UnreadableSource

_GZIP = b"\x1f\x8b"
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet: unpack it, or save it as CSV",
    b"PAR1": "Parquet: write it as CSV or NDJSON (DuckDB: COPY (FROM 'x.parquet') TO 'x.csv')",
    b"\x28\xb5\x2f\xfd": "zstd: unpack it (zstd -d)",
    b"PGDMP": "a dump of PostgreSQL: restore it, and name the database's URL",
    b"SQLite": "an SQLite database: export the table as CSV",
    b"\xff\xfe": "UTF-16: save it as UTF-8",
    b"\xfe\xff": "UTF-16: save it as UTF-8",
}
"""How files begin that are no rows yet, and what to do with them."""
_HEAD_CHARS = 4096
_FIRST_LINE_CHARS_MAX = 16 * 1024 * 1024


def read(path: Path) -> Iterator[Placed]:
    """Every row of a file; of a file that breaks off, those before.

    Raises:
        UnreadableSource: if it is no file of rows at all.
        OSError: if it cannot be read.
    """
    with path.open("rb") as probe:
        head = probe.read(8)
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise UnreadableSource(f"{path} is {what}")
    with ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        if head.startswith(_GZIP):
            raw = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw)))
        lines = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")
        where = "its beginning"
        try:
            for placed in _rows(lines, path):
                where = placed.where
                yield placed
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            yield Placed(f"after {where}", Rejected(f"the gzip file is torn: {error}"))


def _rows(lines: io.TextIOWrapper, path: Path) -> Iterator[Placed]:
    head = lines.read(_HEAD_CHARS).lstrip()[:1]
    lines.seek(0)
    if not head:
        raise UnreadableSource(f"{path} is empty")
    if head not in "[{":
        return of_csv(lines)
    if head == "{":
        first = lines.readline(_FIRST_LINE_CHARS_MAX)
        lines.seek(0)
        if json_rows.is_json(first):
            return json_rows.of_lines(lines)
    return json_rows.of_document(lines)
