"""`costspan report`: who spent what."""

from __future__ import annotations

import argparse
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli import spikes, unpriced
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.moments import moment_ns, period
from costspan.cli.printing import (
    Column,
    Page,
    amount,
    counted,
    joined,
    print_csv,
    print_json,
    text_of,
    to_stderr,
)
from costspan.cli.settings import directory_of, open_books, reader_settings_of
from costspan.core.money import format_usd, parse_usd
from costspan.core.read.books import Books
from costspan.core.read.grouping import DIRECTORY_FIELDS, Selection
from costspan.core.read.sheet import Sheet
from costspan.core.read.waiting import Waiting, waiting

_BY = "owner,bucket"
_AMOUNTS = ("cost", "charge", "events")
_IN_ORDER_OF_TIME = ("day", "period", "started_at", "ended_at", "effective_period")
_OF_OWNERS = ("owner", *DIRECTORY_FIELDS)
_BAR_CELLS = 12
_BAR_CELLS_MIN = 4
_GAP_CELLS = 2


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `report`."""
    parser.add_argument(
        "--by",
        metavar="FIELDS",
        help="owner, bucket, pool, day, period, model, cause, outcome, any field of the schema,"
        " label:KEY, or cost_centre or parent_tenant of the directory; several with commas"
        f" (default: {_BY}; with --spikes one more dimension)",
    )
    parser.add_argument(
        "--directory", metavar="FILE", help="TOML or CSV of tenants: their parents, cost centres"
    )
    parser.add_argument("--period", metavar="YYYY-MM", help="an effective period (UTC)")
    parser.add_argument("--since", metavar="DATE", help="of this moment or later (UTC)")
    parser.add_argument("--until", metavar="DATE", help="before this moment (UTC)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--unattributed", action="store_true", help="list the events without owner, and why"
    )
    what.add_argument(
        "--unpriced", action="store_true", help="list the events of unknown cost, and why"
    )
    what.add_argument("--spikes", action="store_true", help="what drove a rise between two windows")
    parser.add_argument(
        "--before",
        metavar="FROM..TO",
        help="with --spikes: compare with this window (default: the equally long one before)",
    )
    parser.add_argument(
        "--pseudonyms", action="store_true", help="by user: leave persons behind their pseudonyms"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")


def run(options: argparse.Namespace) -> int:
    """Print the report; 1 if the books are not balanced."""
    settings = reader_settings_of(options)
    if options.spikes:
        with open_books(settings) as books:
            return spikes.run(books, options)
    if options.before is not None:
        raise UsageError("--before compares windows: it goes with --spikes")
    selection = _selection(options)
    with open_books(settings) as books:
        if options.unattributed or options.unpriced:
            return unpriced.run(books, selection, options)
        fields = tuple(field.strip() for field in (options.by or _BY).split(","))
        directory = directory_of(options, settings) if _is_placed(fields) else None
        if _is_placed(fields) and directory is None:
            raise UsageError(
                f"by {' and '.join(DIRECTORY_FIELDS)} needs a directory: --directory FILE, or the"
                " setting"
            )
        try:
            found = books.sheet(fields, *selection, directory=directory)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if "user" in fields and not options.pseudonyms:
            found = _with_names(found, books)
        if options.json or options.csv:
            to_stderr(f"ledger: {books.url}")
        if options.json:
            print_json(found.plain())
        elif options.csv:
            columns = [*_keys(found, fields), *_AMOUNTS]
            many = [[each] if any(found.unpriced) else [] for each in found.unpriced]
            print_csv(
                [*columns, *(["unpriced"] if any(found.unpriced) else [])],
                (
                    [*(row[name] for name in columns), *extra]
                    for row, extra in zip(found.rows, many, strict=True)
                ),
            )
        else:
            report = _Report(found, _keys(found, fields))
            report.print(books, waiting(settings.spool), options)
    if found.is_balanced:
        return OK
    if options.json or options.csv:
        to_stderr(_NOT_BALANCED)
    return BAD


_NOT_BALANCED = (
    "NOT BALANCED: the postings do not add up to the decisions. Do not bill from these books;"
    " keep the file, and compare with costspan rebuild"
)
_ROLLED_UP = Text("(the sums of the roll-up: costspan doctor adds every posting up)", "dim")


def _selection(options: argparse.Namespace) -> Selection:
    since = None if options.since is None else moment_ns(options.since)
    until = None if options.until is None else moment_ns(options.until)
    if since is not None and until is not None and since >= until:
        raise UsageError("--since must be before --until")
    return Selection(None if options.period is None else period(options.period), since, until)


def _is_placed(fields: tuple[str, ...]) -> bool:
    """Whether the rows are by what the directory says."""
    return any(field in DIRECTORY_FIELDS for field in fields)


def _with_names(found: Sheet, books: Books) -> Sheet:
    """The sheet with persons in the place of their pseudonyms; who was erased stays behind his."""
    if not books.ledger.persons.is_readable():
        to_stderr("users stay behind their pseudonyms: this role may not read who they are")
        return found
    names = books.ledger.persons.names({row["user"] for row in found.rows})
    rows = [{**row, "user": names.get(row["user"], row["user"])} for row in found.rows]
    return msgspec.structs.replace(found, rows=rows)


def _keys(found: Sheet, fields: tuple[str, ...]) -> list[str]:
    """The names the rows use for what was asked for (`tenant` is `owner`)."""
    if found.rows:
        return [name for name in found.rows[0] if name not in _AMOUNTS]
    return ["owner" if field == "tenant" else field for field in fields]


class _Report:
    """The report as a table."""

    def __init__(self, found: Sheet, keys: list[str]) -> None:
        self._keys = keys
        self._has_unpriced = any(found.unpriced)
        self._totals = found.totals
        self._found = found
        self._rows = self._sorted(
            [
                {**row, "unpriced": many}
                for row, many in zip(found.rows, found.unpriced, strict=True)
            ]
        )
        self._page = Page()

    def _sorted(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """By cost within each key, so that what costs most comes first; times stay in order."""
        sums: dict[tuple[str, ...], int] = {}
        for row in rows:
            for depth in range(1, len(self._keys) + 1):
                prefix = tuple(row[key] for key in self._keys[:depth])
                sums[prefix] = sums.get(prefix, 0) + parse_usd(row["cost"] or "0")

        def place(row: dict[str, Any]) -> list[tuple[bool, int, str]]:
            order: list[tuple[bool, int, str]] = []
            for depth, key in enumerate(self._keys, 1):
                prefix = tuple(row[name] for name in self._keys[:depth])
                cost = 0 if key in _IN_ORDER_OF_TIME else -sums[prefix]
                # The platform and the unattributed come after the tenants.
                is_last = key in _OF_OWNERS and row[key].startswith("@")
                order.append((is_last, cost, row[key]))
            return order

        return sorted(rows, key=place)

    def print(self, books: Books, spool: Waiting, options: argparse.Namespace) -> None:
        """The table, what it adds up to, and what is not in it."""
        chosen = _chosen(options)
        self._page.line(f"ledger {books.url}{chosen}", "dim")
        if self._rows:
            self._table()
        elif books.ledger.counts("events")["events"] == 0:
            self._page.line("no events here yet")
        else:
            self._page.line("none in this selection" if chosen else "no event has a cost yet")
        self._sums()
        self._left_out(spool)

    def _table(self) -> None:
        columns = [
            *(Column(key) for key in self._keys),
            Column("cost USD", True),
            Column("charge USD", True),
            Column("events", True),
            *([Column("unpriced", True)] if self._has_unpriced else []),
            Column("share", True),
        ]
        totals = self._totals
        footer: list[str | Text] = ["total", *[""] * (len(self._keys) - 1)]
        footer += [amount(totals["cost"]), amount(totals["charge"])]
        lines = self._lines()
        if (
            self._page.is_terminal
            and self._taken(columns, lines, footer) > self._page.console.width
        ):
            columns.pop()  # the shares make room: no name is broken for them
            lines = [line[:-1] for line in lines]
        if self._page.is_terminal and (cells := self._bar_cells(columns, lines, footer)):
            columns.append(Column("", style="cyan", whole=True))
            for line, row in zip(lines, self._rows, strict=True):
                line.append("█" * max(0, (self._permille(row) * cells + 500) // 1000))
        self._page.table(columns, lines, footer)

    def _bar_cells(self, columns: list[Column], lines: list[list[Any]], footer: list[Any]) -> int:
        """How long the bars may be beside everything else; 0 where there is no room for them."""
        room = self._page.console.width - self._taken(columns, lines, footer) - _GAP_CELLS
        return min(room, _BAR_CELLS) if room >= _BAR_CELLS_MIN else 0

    @staticmethod
    def _taken(columns: list[Column], lines: list[list[Any]], footer: list[Any]) -> int:
        taken = -_GAP_CELLS
        for at, column in enumerate(columns):
            cells = [column.heading, *(line[at] for line in lines), *footer[at : at + 1]]
            taken += max(text_of(cell).cell_len for cell in cells) + _GAP_CELLS
        return taken

    def _permille(self, row: dict[str, Any]) -> int:
        whole = parse_usd(self._totals["cost"])
        return parse_usd(row["cost"] or "0") * 1000 // whole if whole > 0 else 0

    def _lines(self) -> list[list[Any]]:
        has_shares = parse_usd(self._totals["cost"]) > 0
        lines: list[list[Any]] = []
        above = ""
        for row in self._rows:
            keys = [row[key] or "(none)" for key in self._keys]
            repeats = self._page.is_terminal and len(keys) > 1 and keys[0] == above
            above = keys[0]
            if repeats:
                keys[0] = ""
            permille = self._permille(row)
            share = f"{permille // 10}.{permille % 10} %" if has_shares and row["cost"] else ""
            line: list[Any] = [*keys, amount(row["cost"]), amount(row["charge"])]
            line.append(f"{row['events']:,}")
            if self._has_unpriced:
                line.append(f"{row['unpriced']:,}" if row["unpriced"] else "")
            lines.append([*line, share])
        return lines

    def _sums(self) -> None:
        totals, page = self._totals, self._page
        tenants = format_usd(
            parse_usd(totals["cost"])
            - parse_usd(totals["platform"])
            - parse_usd(totals["unattributed"])
        )
        parts = {
            "tenants": tenants,
            **{name: totals[name] for name in ("platform", "unattributed")},
        }
        page.line()
        page.line(_equation(totals["cost"], parts))
        page.line(
            _equation(totals["cost"], {name: totals[name] for name in ("charge", "absorbed")})
        )
        if not self._found.is_balanced:
            page.line(_NOT_BALANCED, "bold red reverse")
        elif self._found.is_rolled_up:
            page.line(joined(Text("balanced", "green"), _ROLLED_UP))
        else:
            page.line("balanced", "green")

    def _left_out(self, spool: Waiting) -> None:
        totals, warn = self._totals, "yellow"
        if totals["absorbed"].startswith("-"):
            self._page.line("charged above cost: cheaper models answered than were asked for", warn)
        if totals["open"]:
            self._page.line(f"{totals['open']} open: started, not ended (costspan doctor)", warn)
        if totals["swept"]:
            text = f"swept: {totals['swept']} started, never ended (unknown; costspan doctor)"
            self._page.line(text, warn)
        if totals["unpriced_events"]:
            many = totals["unpriced_events"]
            self._page.line(f"{many} of unknown cost, not in the sums: report --unpriced", warn)
        if totals["unmatched"]:
            many = totals["unmatched"]
            self._page.line(f"{many} unmatched: they post nothing (costspan doctor)", warn)
        if parse_usd(totals["unattributed"]):
            self._page.line("some of it is nobody's: report --unattributed says why", warn)
        if spool.unreadable is not None:
            self._page.line(f"what waits in the spool is unknown: {spool.unreadable}", warn)
        if spool.complete or spool.live:
            many = spool.complete + spool.live
            still = f", {spool.live} still being written" if spool.live else ""
            text = f"not drained yet: {counted(many, 'segment')} in {spool.folder}{still}"
            self._page.line(f"{text} (costspan drain)", warn)


def _equation(cost: str, parts: dict[str, str]) -> Text:
    sums = [joined(name, amount(usd), by=" ") for name, usd in parts.items()]
    return joined(joined("cost", amount(cost), by=" "), joined(*sums, by=" + "), by=" = ")


def _chosen(options: argparse.Namespace) -> str:
    chosen = [
        f"{name} {getattr(options, name)}"
        for name in ("period", "since", "until")
        if getattr(options, name) is not None
    ]
    return ", " + ", ".join(chosen) if chosen else ""
