"""Rows of a file, each with where it stands: CSV, NDJSON or one JSON document; gzip too."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, cast

from costspan.core.backfill.claim import Rejected
from costspan.plugins.backfill import json_rows
from costspan.plugins.backfill.csv_rows import headings_of, of_csv
from costspan.plugins.backfill.placed import Placed, UnreadableSource

TORN: Final = (EOFError, zlib.error, gzip.BadGzipFile)
"""What reading says of a gzip file that breaks off."""
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
_ROWS_PROBED = 100


def read(path: Path) -> Iterator[Placed]:
    """Every row of a file; of a file that breaks off, those before.

    Raises:
        UnreadableSource: if it is no file of rows at all.
        OSError: if it cannot be read.
    """
    with _lines(path) as lines:
        where = "its beginning"
        try:
            for placed in _rows(lines):
                where = placed.where
                yield placed
        except TORN as error:
            yield Placed(f"after {where}", Rejected(f"the gzip file is torn: {error}"))


def look(path: Path) -> list[dict[str, Any]]:
    """What the first rows of a file have. Of CSV the headings say it, also where no row follows.

    Raises:
        UnreadableSource: if it is no file of rows at all.
        OSError: if it cannot be read.
    """
    with _lines(path) as lines:
        try:
            if _first_char(lines) not in "[{":
                return [dict.fromkeys(headings_of(lines))]
            first = islice(_rows(lines), _ROWS_PROBED)
            return [placed.row for placed in first if isinstance(placed.row, dict)]
        except TORN as error:
            raise UnreadableSource(f"{path}: the gzip file is torn: {error}") from error
        except UnreadableSource as error:
            raise UnreadableSource(f"{path}: {error}") from error


@contextmanager
def unpacked(path: Path) -> Generator[IO[bytes]]:
    """The bytes of a file, out of their gzip.

    Raises:
        UnreadableSource: if its rows cannot be read as it is; the text says what to do.
        OSError: if it cannot be read.
    """
    if path.is_dir():
        raise UnreadableSource(f"{path} is a directory: name its files ({path / '*'})")
    if path.exists() and not path.is_file():
        raise UnreadableSource(f"{path} is no regular file, and is read twice: write it to one")
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        head = raw.read(8)
        raw.seek(0)
        for magic, what in _OTHERS.items():
            if head.startswith(magic):
                raise UnreadableSource(f"{path} is {what}")
        if head.startswith(_GZIP):
            yield cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw)))
        else:
            yield raw


@contextmanager
def _lines(path: Path) -> Generator[io.TextIOWrapper]:
    with unpacked(path) as raw:
        yield io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")


def _first_char(lines: io.TextIOWrapper) -> str:
    head = lines.read(_HEAD_CHARS).lstrip()[:1]
    lines.seek(0)
    if not head:
        raise UnreadableSource("it is empty")
    return head


def _rows(lines: io.TextIOWrapper) -> Iterator[Placed]:
    head = _first_char(lines)
    if head not in "[{":
        return of_csv(lines)
    if head == "{":
        first = lines.readline(_FIRST_LINE_CHARS_MAX)
        lines.seek(0)
        if json_rows.is_json(first):
            return json_rows.of_lines(lines)
    return json_rows.of_document(lines)
