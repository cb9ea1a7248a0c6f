"""Rows of a CSV file, plain or gzip: strict, one at a time, each with the number of its line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Final, NamedTuple

from costspan.core.invoices.document import InvoiceError, Notes

_TEXT_BYTES_MAX: Final = 16 * 2**30
_GZIP: Final = b"\x1f\x8b"


class Row(NamedTuple):
    """A row: where it stands ("line 7"), and heading -> cell, stripped."""

    where: str
    cells: dict[str, str]


def headings(raw: bytes | None) -> list[str]:
    """The first line's cells, as they are; none if this is no text of lines."""
    if raw is None:
        return []
    try:
        with _opened(raw) as stream:
            line = stream.readline(1_000_000)
            return next(csv.reader([line.decode("utf-8-sig")]), list[str]())
    except (OSError, EOFError, zlib.error, ValueError, csv.Error):
        return []


def rows(raw: bytes, notes: Notes, *, delimiter: str = ",") -> Iterator[Row]:
    """Every row under the headings of the first line. Identical rows are kept, and noted.

    Raises:
        InvoiceError: if the bytes are no CSV in UTF-8, are torn, or a row has more or fewer cells
            than there are headings.
    """
    seen: set[int] = set()
    if not raw.startswith(_GZIP) and not raw.endswith((b"\n", b"\r")):
        notes.note("the last line has no end, as in a torn file", f"byte {len(raw):,}")
    number = 0
    try:
        with _opened(raw) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as lines:
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            names = _names(next(reader, list[str]()))
            for cells in reader:
                if not cells:
                    continue
                number = reader.line_num
                if len(cells) != len(names):
                    raise InvoiceError(
                        f"line {number} has {len(cells)} cells, the headings are {len(names)}: is"
                        " it torn?"
                    )
                digest = hash(blake2b("\x1f".join(cells).encode(), digest_size=8).digest())
                if digest in seen:
                    notes.note("rows identical to one before them, kept", f"line {number}")
                seen.add(digest)
                yield Row(f"line {number}", dict(zip(names, map(str.strip, cells), strict=True)))
    except (OSError, EOFError, zlib.error) as error:
        raise InvoiceError(f"after line {number}: not whole gzip (torn?): {error}") from error
    except UnicodeError as error:
        raise InvoiceError(f"after line {number}: not UTF-8: {error}") from error
    except csv.Error as error:
        raise InvoiceError(f"after line {number}: not CSV (torn?): {error}") from error


def moment(text: str, where: str) -> datetime:
    """A UTC moment as FOCUS and CUR write it; one without a zone is UTC.

    Raises:
        InvoiceError: if it is none.
    """
    try:
        return _moment(text)
    except (ValueError, OverflowError):
        raise InvoiceError(f"{where}: {text[:40]!r} is no date and time (ISO 8601)") from None


@lru_cache(4096)  # a bill repeats its hours
def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _names(cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    for name in names:
        if name and names.count(name) > 1:
            raise InvoiceError(f"two columns have the heading {name[:80]!r}")
    return names


def _opened(raw: bytes) -> io.BytesIO | io.BufferedReader:
    if not raw.startswith(_GZIP):
        return io.BytesIO(raw)
    return io.BufferedReader(_Bounded(gzip.GzipFile(fileobj=io.BytesIO(raw))))


class _Bounded(io.RawIOBase):
    """A stream that ends with an error before it fills the disk: gzip packs 1000 to 1."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream
        self._left = _TEXT_BYTES_MAX

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]  # the buffer protocol has no type yet
        block = self._stream.read(len(view))
        self._left -= len(block)
        if self._left < 0:
            raise InvoiceError(f"it unpacks to more than {_TEXT_BYTES_MAX:,} bytes")
        view[: len(block)] = block
        return len(block)
