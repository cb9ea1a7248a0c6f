"""`costspan prices`: what models cost, and why."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.exits import NOT_FOUND, OK, UsageError
from costspan.cli.moments import moment_ns, span, when
from costspan.cli.options import settings_options
from costspan.cli.price_books import rates_of, run_diff, run_history
from costspan.cli.price_events import run_event, run_unpriced
from costspan.cli.printing import (
    Block,
    Column,
    Page,
    joined,
    print_csv,
    print_json,
    shown,
    to_stderr,
)
from costspan.cli.settings import open_books, settings_of
from costspan.core.policy import contract_of, public_books
from costspan.core.prices import PriceBook, PriceRow, Prices, Verdict
from costspan.core.read.policies import KeptPolicies

_TERMS = ("book", "provider", "model", "tier", "region", "endpoint")
_STYLE = {"chosen": "green", "shadowed": "dim", "missed": "yellow"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `prices`."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = commands.add_parser(
        "list", parents=[settings_options()], help="price rows, book by book"
    )
    listing.add_argument("--model", metavar="PATTERN", help="part of a name, or a pattern with * ?")
    listing.add_argument("--book", metavar="ID", help="of this book alone")
    listing.add_argument("--csv", action="store_true", help="for a spreadsheet")
    past = commands.add_parser(
        "history", parents=[settings_options()], help="what a model cost over time"
    )
    past.add_argument("model", metavar="MODEL")
    past.add_argument("--csv", action="store_true", help="for a spreadsheet")
    why = commands.add_parser(
        "why",
        parents=[settings_options()],
        help="which row prices a model, or an event, and why that one",
    )
    why.add_argument("model", metavar="MODEL", nargs="?")
    why.add_argument("--event", metavar="ID", help="an event of the ledger, instead of a model")
    why.add_argument("--region", metavar="NAME", help="region of the request")
    why.add_argument("--endpoint", metavar="NAME", help="endpoint of the request")
    why.add_argument("--at", metavar="DATE", help="when the request started (UTC; default now)")
    for command in (past, why):
        command.add_argument("--provider", metavar="NAME", help="who bills")
        command.add_argument("--tier", metavar="NAME", help="service tier, such as batch")
    compare = commands.add_parser(
        "diff", parents=[settings_options()], help="where two price books differ"
    )
    for name in ("before", "after"):
        compare.add_argument(
            name,
            metavar=f"BOOK_{'A' if name == 'before' else 'B'}",
            help="a TOML file, an installed book (genai-prices), or one that the ledger kept:"
            " ID@VERSION or its hash",
        )
    compare.add_argument("--model", dest="of_model", metavar="PATTERN", help="of these models")
    compare.add_argument("--exit-code", action="store_true", help="exit with 1 if they differ")
    without = commands.add_parser(
        "unpriced", parents=[settings_options()], help="which models of the ledger have no price"
    )
    without.add_argument("--period", metavar="YYYY-MM", help="of this month")
    without.add_argument("--csv", action="store_true", help="for a spreadsheet")
    for command in (listing, past, why):
        command.add_argument(
            "--ledger-books", action="store_true", help="the books that the ledger kept, instead"
        )
    for command in (listing, past, why, compare, without):
        command.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """List rows, explain one, compare books, or say what has no price."""
    if options.action == "list":
        return _list(options)
    if options.action == "history":
        return run_history(options, _books(options))
    if options.action == "diff":
        return run_diff(options)
    if options.action == "unpriced":
        with open_books(settings_of(options)) as books:
            return run_unpriced(books, options)
    if (options.model is None) == (options.event is None):
        raise UsageError("name a model, or an event with --event ID")
    if options.event is not None:
        with open_books(settings_of(options)) as books:
            return run_event(books, options, _verdict)
    return _why(options)


def _list(options: argparse.Namespace) -> int:
    books = _books(options)
    if options.book is not None:
        known = ", ".join(sorted({book.id for book in books})) or "none"
        books = [book for book in books if book.id == options.book]
        if not books:
            raise UsageError(f"there is no book {options.book!r}; the books are {known}")
    rows = [(book, row) for book in books for row in book.rows if _fits(row, options.model)]
    rows.sort(key=lambda pair: (books.index(pair[0]), *_order(pair[1])))
    if options.json:
        print_json({"rows": [_plain(book, row) for book, row in rows]})
    elif options.csv:
        names = sorted({name for _, row in rows for name in row.rates})
        headings = [*_TERMS, "version", "effective_from", "effective_to", "row", *names]
        print_csv(
            headings,
            (
                [*_terms(row), book.source_version, *_days(row), row.id, *map(row.rates.get, names)]
                for book, row in rows
            ),
        )
    else:
        _print_list(Page(), rows, len(books))
    return OK if rows else NOT_FOUND


def _books(options: argparse.Namespace) -> list[PriceBook]:
    settings = settings_of(options)
    if not options.ledger_books:
        return [*contract_of(settings), *public_books()]
    with open_books(settings) as books:
        to_stderr(f"ledger: {books.url}")
        return KeptPolicies(books.ledger).books


def _fits(row: PriceRow, pattern: str | None) -> bool:
    if pattern is None:
        return True
    wanted, name = pattern.lower(), row.model.lower()
    return fnmatchcase(name, wanted) if {*"*?["} & {*wanted} else wanted in name


def _order(row: PriceRow) -> tuple[Any, ...]:
    terms = (row.model, row.provider, row.tier, row.region, row.endpoint)
    return (*(term or "" for term in terms), row.effective_from or -(2**63))


def _terms(row: PriceRow) -> list[str]:
    return [getattr(row, name) or "" for name in _TERMS]


def _days(row: PriceRow) -> list[str]:
    return ["" if at is None else when(at) for at in (row.effective_from, row.effective_to)]


def _plain(book: PriceBook, row: PriceRow) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(row)
    return {"version": book.source_version, **plain}


def _print_list(page: Page, rows: list[tuple[PriceBook, PriceRow]], books: int) -> None:
    if rows:
        columns = [
            Column(name) for name in (*_TERMS[:5], "dates", "USD per 1M tokens (or per unit)")
        ]
        page.table(columns, ([*_terms(row)[:5], *_validity(row)] for _, row in rows))
        page.line()
    page.line(f"{len(rows):,} rows of {books} books")


def _validity(row: PriceRow) -> list[str]:
    return [span(row.effective_from, row.effective_to), rates_of(row)]


def _why(options: argparse.Namespace) -> int:
    at_ns = time.time_ns() if options.at is None else moment_ns(options.at)
    prices = _prices_at(options, at_ns)
    verdicts = prices.explain(
        *(options.model, options.provider, options.tier, options.region, options.endpoint), at_ns
    )
    chosen = any(verdict.outcome == "chosen" for verdict in verdicts)
    if options.json:
        print_json({"at": at_ns, "model": options.model, "books": msgspec.to_builtins(verdicts)})
        return OK if chosen else NOT_FOUND
    page = Page()
    terms = [
        f"{name} {getattr(options, name)}"
        for name in ("provider", "tier", "region", "endpoint")
        if getattr(options, name)
    ]
    page.line(joined(Text(shown(options.model), "bold"), *terms, f"at {when(at_ns)}"))
    page.tree(map(_verdict, verdicts))
    if not verdicts:
        page.line(
            "there is no price book: pip install genai-prices, or give --prices FILE", "yellow"
        )
    elif not chosen:
        page.line("no book has a price: such an event is unpriced, never free", "yellow")
    return OK if chosen else NOT_FOUND


def _prices_at(options: argparse.Namespace, at_ns: int) -> Prices:
    if not options.ledger_books:
        return Prices(_books(options))
    with open_books(settings_of(options)) as books:
        to_stderr(f"ledger: {books.url}")
        return KeptPolicies(books.ledger).prices_at(at_ns)


def _verdict(verdict: Verdict) -> Block:
    head = joined(
        Text(shown(f"{verdict.book} {verdict.source_version or ''}".strip()), "bold"),
        Text(verdict.outcome, _STYLE.get(verdict.outcome, "")),
        shown(verdict.why),
    )
    return Block(head, list(_rows(verdict)), [])


def _rows(verdict: Verdict) -> Iterator[tuple[str, Text]]:
    if verdict.row is not None:
        dates, rates = _validity(verdict.row)
        yield "row", joined(shown(verdict.row.model), dates, Text(verdict.row.id, "dim"))
        yield "rates", Text(shown(rates))
    for other in sorted(verdict.others, key=_order):
        dates, rates = _validity(other)
        yield "not then", Text(shown(f"{dates} {rates}"), "dim")
