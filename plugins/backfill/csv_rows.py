"""Rows of CSV: commas, or what a spreadsheet or psql puts in their place.

A row that is torn, or a quote that never ends, takes no other row with it: what the reader made
one row of is read again line by line, and lines that are rows of their own are rows.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from typing import Self, TextIO

from costspan.core.backfill.claim import LeftOut, Rejected
from costspan.plugins.backfill.placed import Placed, UnreadableSource

_CELL_CHARS_MAX = 16 * 1024 * 1024
_DELIMITERS = ",\t;|"


class _Taped:
    """Lines that are kept until the row that they make is known to be one."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self.taken: list[str] = []

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        self.taken.append(line)
        return line


def of_csv(lines: TextIO) -> Iterator[Placed]:
    """The rows under the headings.

    Raises:
        UnreadableSource: if there are no headings, or one stands twice.
    """
    before = csv.field_size_limit(_CELL_CHARS_MAX)  # metadata and messages are long
    try:
        yield from _of_csv(lines)
    finally:
        csv.field_size_limit(before)


def headings_of(lines: TextIO) -> list[str]:
    """The headings alone.

    Raises:
        UnreadableSource: if there are none, or one stands twice.
    """
    return _headings(lines.readline())[0]


def _of_csv(lines: TextIO) -> Iterator[Placed]:
    names, delimiter = _headings(lines.readline())
    tape = _Taped(lines)
    reader = csv.reader(tape, delimiter=delimiter)
    start = 2
    while True:
        tape.taken.clear()
        problem: str | None = None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells, problem = [], f"not CSV: {error}"
        if problem is None and cells and len(cells) != len(names):
            problem = f"{len(cells)} cells, the headings are {len(names)} (torn?)"
        if problem is not None:
            yield from _mended(tape.taken, start, names, delimiter, problem)
        elif cells:
            yield _placed(start, names, cells)
        start += len(tape.taken)


def _headings(line: str) -> tuple[list[str], str]:
    """The headings, and what stands between them."""
    delimiter = max(_DELIMITERS, key=line.count)
    try:
        found = next(csv.reader([line], delimiter=delimiter), list[str]())
    except csv.Error:  # no heading is that long
        found = []
    names = [name.strip() for name in found]
    if len(names) < 2:
        raise UnreadableSource("neither JSON nor CSV: its first line is no line of headings")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UnreadableSource(f"the heading {twice[0]!r} stands twice: which is meant?")
    return names, delimiter


def _placed(number: int, names: list[str], cells: list[str]) -> Placed:
    where = f"line {number}"
    if cells == names:
        return Placed(where, LeftOut("the headings again"))
    return Placed(where, dict(zip(names, cells, strict=True)))


def _mended(
    taken: list[str], start: int, names: list[str], delimiter: str, problem: str
) -> Iterator[Placed]:
    """The lines of a row that is none: those that are rows by themselves, and the rest."""
    rest: list[str] = []
    torn_at = start
    found: list[Placed] = []
    for number, line in enumerate(taken, start):
        try:
            alone = list(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error:
            alone = []
        if len(taken) > 1 and len(alone) == 1 and len(alone[0]) == len(names):
            found.append(_placed(number, names, alone[0]))
        else:
            torn_at = torn_at if rest else number
            rest.append(line)
    if rest:
        yield Placed(f"line {torn_at}", Rejected(problem, json.dumps("".join(rest))))
    yield from found
