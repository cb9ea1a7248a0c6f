"""Rows of a file, each with where it stands: CSV, NDJSON or one JSON document; gzip too."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from costspan.core.backfill.claim import Rejected

_GZIP = b"\x1f\x8b"
_CELL_CHARS_MAX = 64 * 1024 * 1024
_LISTS = ("data", "rows", "observations", "spend_logs", "logs", "response")


class Placed(NamedTuple):
    """A row, or why there is none, and where it stands."""

    where: str
    row: dict[str, Any] | Rejected


class UnreadableSource(ValueError):
    """A file or table that cannot be read as rows; the text says why."""


def read(path: Path) -> Iterator[Placed]:
    """Every row of a file.

    Raises:
        UnreadableSource: if it is no file of rows at all.
        OSError: if it cannot be read.
    """
    with path.open("rb") as probe:
        packed = probe.read(2) == _GZIP
    with ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(path.open("rb"))
        if packed:
            raw = cast("IO[bytes]", stack.enter_context(gzip.GzipFile(fileobj=raw)))
        lines = io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="")
        first = lines.readline()
        lines.seek(0)
        head = first.lstrip()[:1]
        if head == "[" or (head == "{" and not _is_json(first)):
            yield from _document(lines)
        elif head == "{":
            yield from _lines(lines)
        else:
            yield from _csv(lines, path)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(lines: io.TextIOWrapper) -> Iterator[Placed]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number}"
        try:
            found: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Placed(where, Rejected(f"not JSON: {error}", line))
            continue
        inside = _listed(found)
        if inside is not None:
            yield from _items(inside, f"{where}, ")  # a whole page of an API's answer
        else:
            yield _placed(where, found)


def _document(lines: io.TextIOWrapper) -> Iterator[Placed]:
    try:
        found: object = json.load(lines)
    except (ValueError, RecursionError) as error:
        raise UnreadableSource(f"not JSON: {error} (torn?)") from error
    items = cast("list[object]", found) if isinstance(found, list) else _listed(found)
    yield from _items([found] if items is None else items, "")


def _listed(found: object) -> list[object] | None:
    """The rows in an API's answer: a list under one of the names that such answers use."""
    document = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if "request_id" in document or "id" in document:
        return None
    for name in _LISTS:
        if isinstance(document.get(name), list):
            return cast("list[object]", document[name])
    return None


def _items(items: list[object], before: str) -> Iterator[Placed]:
    for number, item in enumerate(items, 1):
        yield _placed(f"{before}row {number}", item)


def _placed(where: str, found: object) -> Placed:
    if isinstance(found, dict):
        return Placed(where, cast("dict[str, Any]", found))
    return Placed(where, Rejected("not a JSON object", json.dumps(found)))


def _csv(lines: io.TextIOWrapper, path: Path) -> Iterator[Placed]:
    before = csv.field_size_limit(_CELL_CHARS_MAX)  # metadata and messages are long
    try:
        reader = csv.reader(lines)
        names = [name.strip() for name in next(reader, list[str]())]
        if len(names) < 2 or len(set(names)) != len(names):
            raise UnreadableSource(f"{path}: neither JSON nor CSV with headings of their own")
        while True:
            where = f"line {reader.line_num + 1}"
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Placed(where, Rejected(f"not CSV: {error}"))
                continue
            if not cells:
                continue
            if len(cells) != len(names):
                many = f"{len(cells)} cells, the headings are {len(names)} (torn?)"
                yield Placed(where, Rejected(many, json.dumps(cells)))
                continue
            yield Placed(where, dict(zip(names, cells, strict=True)))
    finally:
        csv.field_size_limit(before)
