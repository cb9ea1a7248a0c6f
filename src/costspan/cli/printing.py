"""Pages for people, and the same facts for programs and spreadsheets.

On a terminal: tables, trees and colour. Anywhere else (a pipe, a file): plain text without escape
codes or box characters, one fact a line, nothing cut, so that `grep` and `awk` can read it.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TextIO

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from costspan.core.read.words import counted, shown

__all__ = [
    "Block",
    "Column",
    "Page",
    "amount",
    "counted",
    "csv_cell",
    "joined",
    "print_csv",
    "print_json",
    "shown",
    "text_of",
    "to_stderr",
]

_PLAIN_WIDTH = 100_000
_STYLED_ROWS_MAX = 1_000
"""Longer tables are plain on a terminal too: fitting them to its width takes seconds."""
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # noqa: RUF001 -- the full-width forms start formulas too


class Column(NamedTuple):
    """A column of a table: its heading, whether it is a number, and a style for its cells.

    The cells of a `whole` column are never broken into lines: an id must be copied in one piece.
    """

    heading: str
    is_number: bool = False
    style: str = ""
    whole: bool = False


class Block(NamedTuple):
    """A node of a tree: a headline, named lines of detail, and what is below it."""

    head: Text
    lines: list[tuple[str, Text]]
    below: list[Block]


class Page:
    """Standard output (or another stream) as a page for people."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = sys.stdout if stream is None else stream
        self.is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        styled = self.is_terminal and not os.environ.get("NO_COLOR")
        self.console = Console(
            file=self._stream,
            force_terminal=self.is_terminal,
            color_system="auto" if styled else None,
            width=None if self.is_terminal else _PLAIN_WIDTH,
            markup=False,
            emoji=False,
            highlight=False,
        )

    def line(self, text: str | Text = "", style: str = "") -> None:
        """One line (on a terminal wrapped to its width)."""
        self._print(Text(shown(text), style) if isinstance(text, str) else text)

    def table(
        self,
        columns: Sequence[Column],
        rows: Iterable[Sequence[str | Text]],
        footer: Sequence[str | Text] = (),
    ) -> None:
        """Rows under headings; a footer is the line of totals."""
        cells = [[text_of(cell) for cell in row] for row in rows]
        totals = [text_of(cell) for cell in footer]
        if self.is_terminal and len(cells) <= _STYLED_ROWS_MAX:
            self.console.print(_table(columns, cells, totals))
            return
        heading = [Text(column.heading) for column in columns]
        whole = [heading, *cells, *([totals] if totals else [])]
        for line in _aligned([column.is_number for column in columns], whole):
            self._stream.write(line + "\n")

    def tree(self, roots: Iterable[Block]) -> None:
        """Blocks and what is below them."""
        for root in roots:
            if self.is_terminal:
                self._print(_branch(root, Tree(_block(root), guide_style="dim")))
            else:
                for line in _indented(root, 0):
                    self._print(line)

    def _print(self, what: RenderableType) -> None:
        if self.is_terminal:
            self.console.print(what)
            return
        with self.console.capture() as captured:
            self.console.print(what)
        for line in captured.get().split("\n")[:-1]:
            self._stream.write(line.rstrip() + "\n")


def _table(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], footer: Sequence[Text]
) -> Table:
    table = Table(
        box=box.SIMPLE,
        show_edge=False,
        show_footer=bool(footer),
        pad_edge=False,
        padding=(0, 1, 0, 0),  # with the line between columns, two cells
        header_style="bold",
        footer_style="bold",
    )
    totals = [*footer, *[Text()] * (len(columns) - len(footer))]
    for at, (column, total) in enumerate(zip(columns, totals, strict=True)):
        widest = max((row[at].cell_len for row in rows if at < len(row)), default=0)
        table.add_column(
            Text(column.heading),
            total,
            justify="right" if column.is_number else "left",
            style=column.style,
            no_wrap=column.is_number or column.whole,
            min_width=widest if column.whole else None,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*row)
    return table


def _aligned(is_number: Sequence[bool], rows: Sequence[Sequence[Text]]) -> Iterator[str]:
    """Plain lines with the cells under one another; numbers to the right."""
    widths = [
        max((row[at].cell_len for row in rows if at < len(row)), default=0)
        for at in range(len(is_number))
    ]
    for row in rows:
        line: list[str] = []
        for cell, width, to_the_right in zip(row, widths, is_number, strict=False):
            space = " " * (width - cell.cell_len)
            line.append(space + cell.plain if to_the_right else cell.plain + space)
        yield "  ".join(line).rstrip()


def _branch(block: Block, tree: Tree) -> Tree:
    for child in block.below:
        _branch(child, tree.add(_block(child)))
    return tree


def _block(block: Block) -> RenderableType:
    if not block.lines:
        return block.head
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in block.lines:
        grid.add_row(Text(name), text)
    return Group(block.head, Padding(grid, (0, 0, 1, 2)))


def _indented(block: Block, depth: int) -> Iterator[Text]:
    yield Text("  " * depth).append_text(block.head)
    width = max((len(name) for name, _ in block.lines), default=0)
    for name, text in block.lines:
        yield Text("  " * (depth + 2) + f"{name:<{width}}  ").append_text(text)
    for child in block.below:
        yield from _indented(child, depth + 1)


def text_of(cell: str | Text) -> Text:
    """A cell as text that no terminal takes for a command."""
    return Text(shown(cell)) if isinstance(cell, str) else cell


def amount(usd: str | None, style: str = "") -> Text:
    """An amount, exact to its 12 places; what adds nothing stands back."""
    if usd is None:
        return Text("unknown", "yellow")
    whole, _, places = usd.partition(".")
    kept = max(len(places.rstrip("0")), min(2, len(places)))
    said = Text(f"{whole}.{places[:kept]}", style or ("red" if usd.startswith("-") else ""))
    return said.append(places[kept:], "dim")


def joined(*parts: str | Text, by: str = "  ") -> Text:
    """The parts that are not empty, side by side."""
    return Text(by).join(text_of(part) for part in parts if part)


def print_json(content: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(content, indent=2))


def print_csv(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """RFC 4180, safe to open in a spreadsheet."""
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow([csv_cell(heading) for heading in headings])
    for row in rows:
        writer.writerow([csv_cell(cell) for cell in row])


def csv_cell(value: object) -> str:
    """A cell that no spreadsheet runs as a formula (a number is none), and no terminal obeys."""
    text = "" if value is None else str(value)
    if text.startswith(_FORMULA) and not _NUMBER.fullmatch(text):
        return "'" + shown(text)
    return shown(text)


def to_stderr(text: str) -> None:
    """A line about the answer that is not the answer."""
    print(shown(text), file=sys.stderr)
