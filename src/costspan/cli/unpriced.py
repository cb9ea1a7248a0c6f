"""The lists behind a report: the events nobody owns, and those whose cost is unknown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from costspan.cli.exits import OK
from costspan.cli.moments import when
from costspan.cli.printing import (
    Block,
    Column,
    Page,
    amount,
    joined,
    print_csv,
    print_json,
    text_of,
    to_stderr,
)
from costspan.core.decide.decision import UNATTRIBUTED
from costspan.core.money import format_usd
from costspan.core.read.books import Books
from costspan.core.read.grouping import Selection
from costspan.core.read.reasons import Reasons
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

_COLUMNS = ("event", "started", "kind", "name", "model", "outcome", "cost", "why")


def run(books: Books, selection: Selection, options: argparse.Namespace) -> int:
    """Print one list."""
    listed = _unattributed if options.unattributed else _unpriced
    with books.ledger.snapshot():
        rows = sorted(listed(books, selection), key=lambda row: row["event"])
    what = "unattributed" if options.unattributed else "unpriced"
    if options.json or options.csv:
        to_stderr(f"ledger: {books.url}")
    if options.json:
        print_json({what: rows})
    elif options.csv:
        print_csv(_COLUMNS, ([row[name] for name in _COLUMNS] for row in rows))
    else:
        _print(Page(), books.url, what, rows)
    return OK


def _print(page: Page, url: str, what: str, rows: list[dict[str, Any]]) -> None:
    page.line(f"ledger {url}", "dim")
    if not rows:
        page.line(f"nothing is {what}", "green")
        return
    # What no event of the list has needs no column.
    columns = [
        name for name in _COLUMNS if name in ("cost", "why") or any(row[name] for row in rows)
    ]
    if page.is_terminal:  # a reason is a sentence: side by side with ids it has no room
        page.tree(_block(row) for row in rows)
    else:
        _table(page, columns, rows)
    page.line()
    page.line(f"{len(rows)} {what}; costspan explain EVENT says everything about one")


def _block(row: dict[str, Any]) -> Block:
    facts = joined(*(row[name] or "" for name in ("started", "kind", "name", "model", "outcome")))
    lines = [("what", facts), ("cost", amount(row["cost"])), ("why", text_of(row["why"]))]
    return Block(text_of(row["event"]), lines, [])


def _table(page: Page, columns: list[str], rows: list[dict[str, Any]]) -> None:
    page.table(
        [Column(name, name == "cost", whole=name == "event") for name in columns],
        (
            [amount(row["cost"]) if name == "cost" else row[name] or "" for name in columns]
            for row in rows
        ),
    )


def _unattributed(books: Books, selection: Selection) -> Iterator[dict[str, Any]]:
    reasons = Reasons(books.ledger)
    for each in _perhaps_unattributed(books.ledger, selection):
        decision = each.decision
        if decision is None or not decision.is_money or not selection.has(each):
            continue
        shares = [share.cost for share in decision.shares if share.owner == UNATTRIBUTED]
        if shares or (decision.owner == UNATTRIBUTED and decision.cost is None):
            cost = format_usd(sum(shares)) if shares else None
            yield _row(each, cost, reasons.no_owner(each))


def _perhaps_unattributed(ledger: Ledger, selection: Selection) -> Iterator[Settled]:
    """Every event, if any line says that nobody owns some; else those that no line tells of."""
    lines = ledger.sums((), owner=UNATTRIBUTED, period=selection.period)
    return ledger.events() if any(each.events for _, each in lines) else ledger.untold()


def _unpriced(books: Books, selection: Selection) -> Iterator[dict[str, Any]]:
    reasons = Reasons(books.ledger)
    for each in books.ledger.untold():
        if each.decision is not None and each.decision.cost is None and selection.has(each):
            yield _row(each, None, reasons.no_price(each))


def _row(each: Settled, cost: str | None, why: str) -> dict[str, Any]:
    facts = each.event.facts
    return {
        "event": each.event.id,
        "started": when(facts.started_at),
        "kind": facts.kind or "model",
        "name": facts.name,
        "model": facts.executed_model or facts.requested_model,
        "outcome": each.event.outcome,
        "cost": cost,
        "why": why,
    }
