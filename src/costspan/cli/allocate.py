"""`costspan allocate`: share the platform's pools among tenants, as entries of their own."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

from rich.text import Text

from costspan.cli.exits import OK, UsageError
from costspan.cli.moments import period
from costspan.cli.printing import (
    Column,
    Page,
    amount,
    counted,
    print_csv,
    print_json,
    to_stderr,
)
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.allocate import (
    METHODS,
    Allocated,
    AllocationError,
    AllocationRule,
    allocate_in,
    load_rule,
    measured_for,
)
from costspan.core.allocate.plan import Allocation
from costspan.core.money import PICO, format_usd, round_half_even
from costspan.core.settle.free import FreePostingError
from costspan.core.settle.ledger import Ledger

_SHOWN_MAX = 20
_LEASE_SECONDS = 30
_COLUMNS = ("pool", "method", "tenant", "weight", "unit", "share", "charge", "more", "more_charge")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `allocate`."""
    parser.add_argument("period", metavar="PERIOD", help="an effective period, YYYY-MM (UTC)")
    parser.add_argument(
        "--rule",
        metavar="FILE",
        help="TOML: which pool goes by which method, to whom (default: every pool of the platform"
        " by the tenants' own cost, not charged)",
    )
    parser.add_argument("--method", choices=METHODS, help="this method for every pool of the rule")
    parser.add_argument("--charged", action="store_true", help="tenants pay for their shares")
    parser.add_argument(
        "--undo",
        action="store_true",
        help="take back whatever was allocated in this period, and whole invoices brought in",
    )
    parser.add_argument("--dry-run", action="store_true", help="say it, and post nothing")
    parser.add_argument("--by", default="", metavar="NAME", help="whose hand this is")
    parser.add_argument("--reason", default="", metavar="TEXT", help="why")
    parser.add_argument("--all", action="store_true", help="every tenant, however many")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON document")
    form.add_argument("--csv", action="store_true", help="for a spreadsheet")


def run(options: argparse.Namespace) -> int:
    """Allocate, and show each pool: what went in, and who has it now."""
    settings = reader_settings_of(options)
    if not options.dry_run and not (options.by.strip() and options.reason.strip()):
        raise UsageError(
            "say --by NAME and --reason TEXT: every hand that moves money has a name."
            " --dry-run posts nothing and needs neither"
        )
    month = period(options.period)
    rule = _rule(options)
    with open_books(settings) as books:
        try:
            found = _allocated(books.ledger, month, rule, options)
        except (AllocationError, FreePostingError) as error:
            raise UsageError(str(error)) from error
        if options.json or options.csv:
            to_stderr(f"ledger: {books.url}")
        if options.json:
            print_json(plain(found, dry_run=options.dry_run))
        elif options.csv:
            print_csv(_COLUMNS, _rows(found))
        else:
            page = Page()
            page.line(f"ledger {books.url}, period {month}, rule {rule.name}", "dim")
            _print(page, found, options)
    return OK


def _allocated(
    ledger: Ledger, month: str, rule: AllocationRule, options: argparse.Namespace
) -> Allocated:
    """`allocate_period` in its two parts: each may be long, so each shows its progress."""
    events = ledger.counts("events")["events"]
    with progress("measuring", "events", events) as tell:
        known = measured_for(ledger, month, rule, tell)
    with (
        progress("posting", "entries") as tell,
        ledger.snapshot() if options.dry_run else ledger.settling(_LEASE_SECONDS) as settlement,
    ):
        return allocate_in(
            ledger, settlement, month, rule, known,
            by=options.by, reason=options.reason, now_ns=time.time_ns(),
            at_most=None if options.all or options.json or options.csv else _SHOWN_MAX,
            tell=tell,
        )  # fmt: skip


def read_rule(path: str | None) -> AllocationRule:
    """The rule in a file; the default one without.

    Raises:
        UsageError: for a file that cannot be used.
    """
    if path is None:
        return AllocationRule()
    try:
        return load_rule(Path(path).read_text("utf-8"))
    except (AllocationError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error


def _rule(options: argparse.Namespace) -> AllocationRule:
    rule = read_rule(options.rule)
    if options.undo:
        if options.method or options.charged:
            raise UsageError("--undo shares out nothing: --method and --charged say nothing to it")
        return rule.undone()
    if options.method:
        rule = rule.with_method(options.method)
    return rule.all_charged() if options.charged else rule


def plain(found: Allocated, *, dry_run: bool) -> dict[str, Any]:
    """As plain JSON values; amounts are decimal strings of USD."""
    return {
        "period": found.period,
        "rule": found.rule.name,
        "rule_sha256": found.rule.sha256,
        "dry_run": dry_run,
        "posted": found.posted,
        "invoices": [
            {"invoice": each.said, "amount": format_usd(each.amount)}
            | {"brought_in": format_usd(each.missing), "note": each.note or None}
            for each in found.invoices
        ],
        "pools": [_plain_pool(each) for each in found.allocations],
    }


def _plain_pool(each: Allocation) -> dict[str, Any]:
    return {
        "pool": each.pool,
        "owner": each.owner,
        "method": each.method,
        "by": each.said,
        "charged": each.is_charged,
        "in": format_usd(each.cost),
        "out": format_usd(each.out),
        "kept": format_usd(each.kept),
        "why_kept": each.why or None,
        "was_allocated": format_usd(each.was),
        "unit": each.unit or None,
        "tenants": [
            {
                "tenant": part.tenant,
                "weight": weight_text(each.unit, part.weight),
                "share": format_usd(part.cost),
                "charge": format_usd(part.charge),
                "more": format_usd(part.more_cost),
                "more_charge": format_usd(part.more_charge),
            }
            for part in each.parts
        ],
    }


def weight_text(unit: str, weight: int | Fraction) -> str:
    """A weight as people write it; a fraction of a pico-USD is rounded, others are not."""
    if unit == "USD":
        return format_usd(round_half_even(weight))
    exact = Fraction(weight) * PICO
    if exact.denominator == 1:
        whole, _, places = format_usd(exact.numerator).partition(".")
        return f"{whole}.{places}".rstrip("0").rstrip(".")
    return str(weight)


def _rows(found: Allocated) -> Iterator[tuple[object, ...]]:
    for each in found.allocations:
        for part in each.parts:
            yield (
                each.pool, each.said, part.tenant, weight_text(each.unit, part.weight), each.unit,
                format_usd(part.cost), format_usd(part.charge), format_usd(part.more_cost),
                format_usd(part.more_charge),
            )  # fmt: skip
        if each.kept:
            kept = format_usd(each.kept)
            yield (each.pool, each.said, each.owner, "", "", kept, format_usd(0), "", "")


def _print(page: Page, found: Allocated, options: argparse.Namespace) -> None:
    for invoice in found.invoices:
        page.line(f"invoice {invoice.said}: {format_usd(invoice.amount)} USD, of no known call")
        if invoice.note:
            taken = f"{format_usd(-invoice.missing)} USD taken out; " if invoice.missing < 0 else ""
            page.line(f"  {taken}{invoice.note}", "bold yellow")
    if not found.allocations:
        page.line(f"nothing to allocate: the platform bore nothing in {found.period}")
    for each in found.allocations:
        page.line()
        _print_pool(page, each)
    page.line()
    changed = sum(each.changed for each in found.allocations)
    if options.dry_run:
        page.line(f"dry run: nothing was posted; {counted(changed, 'share')} would change", "bold")
    elif found.posted:
        entries = "entry" if found.posted == 1 else "entries"
        page.line(
            f"posted {found.posted:,} {entries}: direct and agent rows are as they were", "green"
        )
    else:
        page.line("all of it stood in the books already: nothing was posted", "green")


def _print_pool(page: Page, each: Allocation) -> None:
    charged = "charged to tenants" if each.is_charged else "shown to tenants, not charged"
    how = f"{each.said}, {charged}" if each.parts else each.why
    page.line(f"pool {each.pool} of {each.owner}: {how}", "bold")
    if each.parts:
        columns = [
            Column("tenant"),
            Column(f"weight {each.unit}".rstrip(), True),
            Column("share USD", True),
            Column("charge USD", True),
            Column("changes by", True),
        ]
        out: list[str | Text] = [amount(format_usd(each.out)), amount(format_usd(each.charge))]
        page.table(columns, _lines(each), ["out", "", *out])
        if left := each.tenants - len(each.parts):
            text = f"and {counted(left, 'tenant')} more: --all, --csv or --json lists them"
            page.line(text, "dim")
    if each.kept and each.parts:
        page.line(f"{format_usd(each.kept)} stays with {each.owner}: {each.why}", "yellow")
    out_kept = f"out {format_usd(each.out)} + kept {format_usd(each.kept)}"
    page.line(f"in {format_usd(each.cost)} = {out_kept}")


def _lines(each: Allocation) -> Iterator[list[Any]]:
    """The largest first."""
    for part in sorted(each.parts, key=lambda part: (-abs(part.cost), part.tenant)):
        yield [
            part.tenant,
            weight_text(each.unit, part.weight),
            amount(format_usd(part.cost)),
            amount(format_usd(part.charge)),
            amount(format_usd(part.more_cost)),
        ]
