"""`costspan prices history` and `diff`: what a model cost over time, and where two books differ."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec

from costspan.cli.exits import BAD, NOT_FOUND, OK, UsageError
from costspan.cli.moments import span
from costspan.cli.printing import Column, Page, print_csv, print_json, to_stderr
from costspan.cli.settings import open_books, settings_of
from costspan.core.ledger_errors import LedgerMissing
from costspan.core.policy import contract_from, contract_of, public_books
from costspan.core.prices import PriceBook, PriceChange, PriceRow, diff
from costspan.core.prices.history import Step, history
from costspan.core.restate import RestateError, book_named

_STYLE = {"added": "green", "removed": "red", "changed": "yellow"}
_COLUMNS = ("book", "provider", "model", "tier", "region", "dates", "rates", "moved")


def run_history(options: argparse.Namespace, books: Sequence[PriceBook]) -> int:
    """Print the rows of a model over time."""
    steps = history(books, options.model, options.provider, options.tier)
    if options.json:
        print_json({"model": options.model, "rows": msgspec.to_builtins(steps)})
    elif options.csv:
        print_csv(_COLUMNS, map(_cells, steps))
    else:
        page = Page()
        if steps:
            page.table([Column(name) for name in _COLUMNS], map(_cells, steps))
            page.line()
        page.line(f"{len(steps):,} rows; USD per 1M tokens, or per one unit; days are UTC")
    return OK if steps else NOT_FOUND


def _cells(step: Step) -> list[str]:
    row = step.row
    moved = ", ".join(f"{name} {was} -> {now}" for name, (was, now) in step.moved.items())
    return [
        f"{step.book} {step.source_version or ''}".strip(),
        *(row.provider or "", row.model, row.tier or "", row.region or ""),
        span(row.effective_from, row.effective_to),
        rates_of(row),
        moved.replace("None", "none"),
    ]


def rates_of(row: PriceRow) -> str:
    """The rates of a row, those of longer prompts behind them."""
    rates = " ".join(f"{name}={rate}" for name, rate in row.rates.items())
    above = "".join(
        f"; above {tier.above_input_tokens:,} tokens "
        + " ".join(f"{name}={rate}" for name, rate in tier.rates.items())
        for tier in row.above
    )
    return rates + above


def run_diff(options: argparse.Namespace) -> int:
    """Print the rows that two books do not share."""
    before, after = (_named(name, options) for name in (options.before, options.after))
    changes = [each for each in diff(before, after) if _fits(each, options.of_model)]
    counts = Counter[str](each.kind for each in changes)
    if options.json:
        print_json(
            {
                "before": _plain_book(before),
                "after": _plain_book(after),
                "changes": msgspec.to_builtins(changes),
            }
        )
    else:
        _print_diff(Page(), before, after, changes, counts)
    return BAD if changes and options.exit_code else OK


def _named(name: str, options: argparse.Namespace) -> PriceBook:
    """A TOML file, an installed book, or one that the ledger kept (id@version, hash)."""
    if name.endswith(".toml") or Path(name).is_file():
        return contract_from(Path(name))
    settings = settings_of(options)
    installed = [*contract_of(settings), *public_books()]
    for book in installed:
        if name in (book.id, f"{book.id}@{book.source_version}", book.sha256):
            return book
    try:
        with open_books(settings) as books:
            to_stderr(f"ledger: {books.url}")
            reading = books.ledger.reading()
            return reading.price_book(book_named(reading.price_book_versions(), name))
    except (LedgerMissing, RestateError) as error:
        known = ", ".join(f"{book.id}@{book.source_version}" for book in installed) or "none"
        raise UsageError(
            f"{name!r} is no TOML file and no installed price book (installed: {known}); {error}"
        ) from error


def _fits(change: PriceChange, pattern: str | None) -> bool:
    row = change.after or change.before
    if pattern is None or row is None:
        return True
    wanted, name = pattern.lower(), row.model.lower()
    return fnmatchcase(name, wanted) or wanted in name


def _plain_book(book: PriceBook) -> dict[str, Any]:
    return {
        "id": book.id,
        "version": book.source_version,
        "sha256": book.sha256,
        "rows": len(book.rows),
    }


def _print_diff(
    page: Page,
    before: PriceBook,
    after: PriceBook,
    changes: Sequence[PriceChange],
    counts: Counter[str],
) -> None:
    for sign, book in (("-", before), ("+", after)):
        page.line(f"{sign} {book!r} {book.sha256[:12]}", "dim")
    if changes:
        columns = [Column(name) for name in ("", "provider", "model", "tier", "dates", "rates")]
        page.table(columns, map(_change_cells, changes))
        page.line()
    said = ", ".join(f"{counts[kind]:,} {kind}" for kind in _STYLE if counts[kind])
    page.line(said or "the same prices", "" if said else "green")


def _change_cells(change: PriceChange) -> list[str]:
    row = change.after or change.before
    assert row is not None
    terms = [row.provider or "", row.model, row.tier or ""]
    return [change.kind, *terms, span(row.effective_from, row.effective_to), _what(change)]


def _what(change: PriceChange) -> str:
    was, now = change.before, change.after
    if was is None or now is None:
        row = was if now is None else now
        return "" if row is None else rates_of(row)
    parts = [
        f"{name} {was.rates.get(name, 'none')} -> {now.rates.get(name, 'none')}"
        for name in change.components
    ]
    if was.above != now.above:
        parts.append("context tiers differ")
    if was.effective_to != now.effective_to:
        old, new = (span(row.effective_from, row.effective_to) for row in (was, now))
        parts.append(f"dates {old} -> {new}")
    return "; ".join(parts)
