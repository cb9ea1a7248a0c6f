"""`costspan invoices`: what providers bill, kept as it came."""

from __future__ import annotations

import argparse
import getpass
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.text import Text

from costspan.cli import imported
from costspan.cli.exits import OK, UsageError
from costspan.cli.moments import moment_ns, period, when
from costspan.cli.options import settings_options
from costspan.cli.printing import (
    Column,
    Page,
    amount,
    counted,
    joined,
    print_csv,
    print_json,
    to_stderr,
)
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.config import Config
from costspan.core.invoices.document import RAW_BYTES_MAX, Document, InvoiceError, Order
from costspan.core.invoices.importing import Imported, check, documents_of, keep
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.invoices.store import InvoiceStore
from costspan.core.ledger_errors import LedgerMissing
from costspan.core.ledger_urls import shown_url
from costspan.core.money import format_usd
from costspan.core.read.books import NotFound
from costspan.core.settle.ledger import Ledger, open_url

_ID_SHOWN: Final = 12
_LINE_FIELDS = tuple(name for name in InvoiceLine.__struct_fields__ if name != "invoice")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The sub-commands of `invoices`."""
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _import_arguments(
        commands.add_parser(
            "import", parents=[settings_options()], help="fetch or read documents, and keep them"
        )
    )
    listing = commands.add_parser(
        "list", parents=[settings_options()], help="every invoice kept, with its versions"
    )
    listing.add_argument("--period", metavar="YYYY-MM", help="of this month alone")
    show = commands.add_parser("show", parents=[settings_options()], help="one invoice's lines")
    show.add_argument("id", metavar="ID", help="an invoice's id, or its beginning")
    for command in (listing, show):
        form = command.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="one JSON document")
        form.add_argument("--csv", action="store_true", help="for a spreadsheet")
    form.add_argument("--raw", action="store_true", help="the document's bytes, as they came")


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE|FILE",
        nargs="+",
        help="openai or anthropic (their API), or files: pages of these APIs (JSON), FOCUS or AWS"
        " CUR (CSV, CSV.gz), any CSV with --columns",
    )
    add("--provider", metavar="NAME", help="who bills, where a file does not say it")
    add("--period", metavar="YYYY-MM", help="the month to ask for; of a file, the only one to keep")
    add("--account", metavar="NAME", default="", help="whose bill, where a file does not say it")
    add(
        "--replace",
        action="store_true",
        help="the document is all there is of its provider and month: what was kept of accounts"
        " that it does not name counts no longer",
    )
    add("--service", metavar="NAME", action="append", help="of a cloud's bill, this service alone")
    add("--columns", metavar="FILE", type=Path, help="TOML: what the columns of a CSV file mean")
    add("--base-url", metavar="URL", help="another root of the API")
    add("--key-env", metavar="NAME", help="the environment variable that holds the admin key")
    add("--as-of", metavar="DATE", help="when a file was written, if not when it says")
    add("--round", action="store_true", help="round amounts finer than a pico, and say how many")
    add("--by", metavar="NAME", help="who imports (default: the user of this machine)")
    add("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Import, list or show."""
    return {"import": _import, "list": _list, "show": _show}[options.action](options)


def _import(options: argparse.Namespace) -> int:
    settings = reader_settings_of(options)
    if options.replace and options.account:
        raise UsageError("--replace is about every account: leave --account out")
    orders = [_order(options, place) for place in options.source]
    by = options.by or getpass.getuser()
    kept: list[Imported] = []
    with ExitStack() as stack:
        ledger: Ledger | None = None
        for order in orders:
            unit = "pages" if order.raw is None else "lines read and kept"
            try:
                with progress(f"importing {order.place}", unit) as tell:
                    told = msgspec.structs.replace(order, tell=tell)
                    for document in documents_of(told):
                        if ledger is None:
                            ledger = _opened(settings, document, told)
                            stack.callback(ledger.close)
                        kept += keep(ledger.invoices, document, told, by=by, at=time.time_ns())
            except InvoiceError as error:
                before = f" ({counted(len(kept), 'invoice')} before it stay kept)" if kept else ""
                raise UsageError(f"{order.place}: {error}{before}") from error
    if options.json:
        print_json({"invoices": [imported.plain(each) for each in kept]})
        to_stderr(f"ledger: {shown_url(settings.ledger_url)}")
    else:
        page = Page()
        page.line(f"ledger {shown_url(settings.ledger_url)}", "dim")
        for each in kept:
            imported.print_one(page, each)
    return OK


def _opened(settings: Config, document: Document, order: Order) -> Ledger:
    """The ledger; a new one is only made once there is something good to keep."""
    try:
        return open_url(settings.ledger_url, create=False)
    except LedgerMissing:
        check(document, order)
        to_stderr(f"new ledger: {shown_url(settings.ledger_url)}")
        return open_url(settings.ledger_url, create=True)


def _order(options: argparse.Namespace, place: str) -> Order:
    """What to import; a name without a dot or a slash is an API's."""
    now = time.time_ns()
    raw, at = None, now
    if "." in place or "/" in place or "\\" in place:
        file = Path(place)
        size = file.stat().st_size
        if size > RAW_BYTES_MAX:
            raise UsageError(f"{place} has {size:,} bytes, more than {RAW_BYTES_MAX:,}: part it")
        raw, at = file.read_bytes(), min(now, file.stat().st_mtime_ns)
    if options.as_of is not None:
        at = moment_ns(options.as_of)
    try:
        columns = None if options.columns is None else options.columns.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{options.columns} is not UTF-8: {error}") from error
    return Order(
        place=place,
        raw=raw,
        at=at,
        provider=options.provider,
        period=None if options.period is None else period(options.period),
        account=options.account,
        replaces=options.replace,
        services=tuple(options.service or ()),
        base_url=options.base_url,
        key_env=options.key_env,
        columns=columns,
        rounding=options.round,
    )


def _list(options: argparse.Namespace) -> int:
    settings = reader_settings_of(options)
    wanted = None if options.period is None else period(options.period)
    with open_books(settings) as books:
        store = books.ledger.invoices
        found = store.invoices(wanted)
        current = {each.id for named in {x.period for x in found} for each in store.current(named)}
        rows = [_listed(store, each, each.id in current) for each in found]
        url = books.url
    if options.json:
        print_json({"invoices": rows})
    elif options.csv:
        print_csv(list(rows[0]) if rows else ["id"], (list(row.values()) for row in rows))
    else:
        _print_list(Page(), url, rows)
        return OK
    to_stderr(f"ledger: {url}")
    return OK


def _listed(store: InvoiceStore, invoice: Invoice, is_current: bool) -> dict[str, Any]:
    sums = store.sums(invoice.id)
    return {
        **imported.facts(invoice),
        "is_current": is_current,
        "lines": sum(lines for lines, _ in sums.values()),
        "amount": format_usd(sum(pico for _, pico in sums.values())) if invoice.currency else None,
    }


def _print_list(page: Page, url: str, rows: Iterable[dict[str, Any]]) -> None:
    page.line(f"ledger {url}", "dim")
    columns = [
        Column("invoice", whole=True),
        *map(Column, ("period", "source", "provider", "account")),
        Column("version", is_number=True),
        Column("lines", is_number=True),
        Column("amount", is_number=True),
        *map(Column, ("currency", "imported", "by", "")),
    ]
    cells = [
        [
            *(row["id"][:_ID_SHOWN], row["period"], row["source"], row["provider"]),
            *(row["account"], str(row["version"]), f"{row['lines']:,}"),
            amount(row["amount"]) if row["currency"] else Text("no money", "dim"),
            *(row["currency"], row["imported_at"], row["by"]),
            ", ".join(
                word
                for word, is_said in (
                    ("provisional", row["is_provisional"]),
                    ("replaced", not row["is_current"]),
                )
                if is_said
            ),
        ]
        for row in rows
    ]
    if not cells:
        page.line("no invoices yet: costspan invoices import SOURCE|FILE", "yellow")
        return
    page.table(columns, cells)


def _show(options: argparse.Namespace) -> int:
    settings = reader_settings_of(options)
    with open_books(settings) as books:
        store = books.ledger.invoices
        invoice = _find(store, options.id)
        to_stderr(f"ledger: {books.url}")
        if options.raw:
            sys.stdout.flush()
            sys.stdout.buffer.write(store.raw(invoice.id))
        elif options.csv:
            rows = (
                [_plain(line)[name] for name in _LINE_FIELDS] for line in store.lines(invoice.id)
            )
            print_csv(_LINE_FIELDS, rows)
        elif options.json:
            lines = [_plain(line) for line in store.lines(invoice.id)]
            print_json({"invoice": imported.facts(invoice), "lines": lines})
        else:
            _print_invoice(Page(), invoice, store)
    return OK


def _find(store: InvoiceStore, wanted: str) -> Invoice:
    found = [each for each in store.invoices() if each.id.startswith(wanted.lower())]
    if not wanted or not found:
        raise NotFound(f"no invoice {wanted!r}: costspan invoices list names them")
    if len(found) > 1:
        ids = ", ".join(each.id[: _ID_SHOWN + len(wanted)] for each in found[:5])
        raise UsageError(f"{wanted!r} begins the ids of {len(found)} invoices: {ids}")
    return found[0]


def _plain(line: InvoiceLine) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(line)
    del fields["invoice"]
    return fields | {"amount": format_usd(line.amount) if line.currency else None}


def _print_invoice(page: Page, invoice: Invoice, store: InvoiceStore) -> None:
    page.line(joined(Text(f"invoice {invoice.id}", "bold"), imported.heading(invoice)))
    page.line(f"imported {when(invoice.imported_at)} by {invoice.by}", "dim")
    columns = [
        Column("line", is_number=True),
        *map(Column, ("day", "project", "model", "component", "tier", "category")),
        Column("requests", is_number=True),
        Column("quantity", is_number=True),
        Column("unit"),
        Column("amount", is_number=True),
        Column("description"),
    ]
    page.table(columns, [_cells(line) for line in store.lines(invoice.id)])
    imported.print_sums(
        page, invoice, {name: each for name, (_, each) in store.sums(invoice.id).items()}
    )


def _cells(line: InvoiceLine) -> list[str | Text]:
    return [
        str(line.number),
        (line.day or line.category) + (" provisional" if line.is_provisional else ""),
        *(line.project or "", line.model or "", line.component, line.tier or "", line.category),
        "" if line.requests is None else f"{line.requests:,}",
        "" if line.quantity is None else f"{line.quantity:,}",
        line.unit or "",
        amount(format_usd(line.amount)) if line.currency else "",
        line.description,
    ]
