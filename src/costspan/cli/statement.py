"""`costspan statement`: what one tenant is charged for a month, and why."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from costspan.cli.exits import OK, UsageError
from costspan.cli.hands import tenant_of
from costspan.cli.moments import period
from costspan.cli.printing import Column, Page, amount, print_csv, print_json, to_stderr
from costspan.cli.settings import directory_of, open_books, reader_settings_of
from costspan.core.money import format_usd
from costspan.core.read import words
from costspan.core.read.amounts import Amounts
from costspan.core.read.corrected import Correction
from costspan.core.read.html import render
from costspan.core.read.statement_page import KIND_WORDS, StatementPage, lines_of, page_of

_STYLES = {"bad": "bold red", "warn": "yellow", "": "dim"}
_AMOUNTS = (Column("charge USD", True), Column("cost USD", True), Column("calls", True))


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `statement`."""
    parser.add_argument("tenant", metavar="TENANT")
    parser.add_argument("--period", metavar="YYYY-MM", required=True, help="a month (UTC)")
    parser.add_argument(
        "--directory", metavar="FILE", help="TOML or CSV of tenants: names, parents, cost centres"
    )
    parser.add_argument(
        "--with-children",
        action="store_true",
        help="also those below the tenant in the directory, and the sum of all",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")
    form.add_argument("--html", metavar="FILE", help="a page to attach or print; - writes it here")


def run(options: argparse.Namespace) -> int:
    """Print the statement, or write it as a page."""
    settings = reader_settings_of(options)
    month, tenant = period(options.period), tenant_of(options.tenant)
    directory = directory_of(options, settings)
    if directory is None and options.with_children:
        raise UsageError("--with-children needs a directory: --directory FILE, or the setting")
    with open_books(settings) as books:
        with books.ledger.snapshot():
            page = page_of(
                books.ledger, tenant, month, directory, with_children=options.with_children
            )
        url = books.url
    if options.json or options.csv or options.html:
        to_stderr(f"ledger: {url}")
    if options.json:
        print_json(page.plain())
    elif options.csv:
        rows = [line for each in page.everybody for line in lines_of(each)]
        print_csv(list(rows[0]), ([*row.values()] for row in rows))
    elif options.html:
        _write(options.html, html_of(page))
    else:
        _Printed(Page()).print(page, url)
    return OK


def html_of(page: StatementPage) -> str:
    """The statement as one self-contained page."""
    title = f"{page.name}, {page.month}"
    return render(
        "statement.html",
        page=page, title=title, words=words, format_usd=format_usd, kind_words=KIND_WORDS,
    )  # fmt: skip


def _write(path: str, html: str) -> None:
    if path == "-":
        sys.stdout.write(html)
        return
    Path(path).write_text(html, "utf-8")
    to_stderr(f"written: {path}")


class _Printed:
    """The statement on a page for people."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def print(self, found: StatementPage, url: str) -> None:
        self._page.line(f"ledger {url}", "dim")
        if found.children:
            self._group(found)
        for each in found.everybody:
            self._one(each)
        self._page.line()
        for policy in found.decided:
            since = f" since {words.day(policy.since)}" if policy.since else ""
            book = f", charge book {policy.charge_book}" if policy.charge_book else ""
            by = f"profile {policy.profile}{since}, rule set {policy.rules_sha256}"
            text = f"decided by {by}{book}"
            self._page.line(text, "dim")

    def _group(self, found: StatementPage) -> None:
        total = words.dollars(found.with_children.charge)
        self._page.line(f"{found.name} and below are charged {total} for {found.month}", "bold")
        self._page.line()
        rows = {each.title: each.statement.total for each in found.everybody}
        self._table("tenant", rows, found.with_children)
        self._page.line()

    def _one(self, found: StatementPage) -> None:
        page, statement = self._page, found.statement
        charge = words.dollars(statement.total.charge)
        page.line(f"{found.title} is charged {charge} for {found.month}", "bold")
        if found.entry is not None:
            said = {
                "cost centre": found.entry.cost_centre,
                "parent": found.entry.parent,
                "billing anchor": found.entry.billing_anchor,
                "time zone": found.entry.time_zone,
            }
            if text := ", ".join(f"{name} {value}" for name, value in said.items() if value):
                page.line(text)
        for grave, text in found.notes:
            page.line(text, _STYLES[grave])
        page.line()
        rows = {
            "direct": statement.direct,
            "agent": statement.agent,
            "allocated": statement.allocated,
            "adjustments": statement.adjusted,
        }
        self._table("", rows, statement.total)
        page.line(_equation(rows, statement.total))
        self._part("allocated, by pool", "pool", statement.pools)
        self._corrections(statement.corrections)
        self._part("direct and agent, by model", "model", statement.models)
        self._part("direct and agent, by day (UTC)", "day", statement.days)

    def _part(self, title: str, first: str, rows: Mapping[str, Amounts]) -> None:
        if rows:
            self._page.line()
            self._page.line(title, "bold")
            self._table(first, rows)

    def _table(self, first: str, rows: Mapping[str, Amounts], total: Amounts | None = None) -> None:
        cells = [[name or "(none)", *_cells(each)] for name, each in rows.items()]
        footer = [] if total is None else ["total", *_cells(total)]
        self._page.table([Column(first), *_AMOUNTS], cells, footer)

    def _corrections(self, corrections: Iterable[Correction]) -> None:
        rows: list[list[Any]] = []
        for each in corrections:
            what = KIND_WORDS.get(each.kind, each.kind)
            if each.pool and each.pool != each.kind:
                what = f"{what} ({each.pool})"
            charge, cost, _ = _cells(each.amounts)
            by = each.by or ""
            rows.append([what, each.period, charge, cost, by, each.reason or "", each.id or ""])
        if rows:
            self._page.line()
            self._page.line("adjustments, one by one", "bold")
            columns = [Column("what"), Column("of month"), *_AMOUNTS[:2]]
            columns += [Column("by"), Column("reason"), Column("costspan explain", style="dim")]
            self._page.table(columns, rows)


def _equation(rows: Mapping[str, Amounts], total: Amounts) -> str:
    parts = [f"{name} {words.trimmed(format_usd(each.charge))}" for name, each in rows.items()]
    return f"{' + '.join(parts)} = total {words.trimmed(format_usd(total.charge))}, exactly"


def _cells(each: Amounts) -> list[str | Text]:
    return [amount(format_usd(each.charge)), amount(format_usd(each.cost)), f"{each.events:,}"]
