"""What `costspan invoices` says of an invoice, and of one that was just imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.moments import when
from costspan.cli.printing import Page, amount, counted, joined
from costspan.core.invoices.importing import Change, Imported
from costspan.core.invoices.invoice import CATEGORIES, Invoice, InvoiceLine
from costspan.core.money import format_usd


def facts(invoice: Invoice) -> dict[str, Any]:
    """An invoice's fields for programs, times readable."""
    fields: dict[str, Any] = msgspec.structs.asdict(invoice)
    return fields | {"imported_at": when(invoice.imported_at)}


def plain(kept: Imported) -> dict[str, Any]:
    """What was imported, for programs."""
    changes = kept.changes
    has_money = kept.invoice.currency != ""
    return {
        **facts(kept.invoice),
        "is_new": kept.is_new,
        "lines": kept.lines,
        "amounts": {name: format_usd(each) for name, each in kept.amounts.items() if has_money},
        "replaces": None if kept.previous is None else kept.previous.id,
        "differs_in": None if changes is None else changes.lines,
        "changes": [] if changes is None else [change_text(each) for each in changes.shown],
        "notes": kept.notes,
    }


def heading(invoice: Invoice) -> Text:
    """Which invoice it is, in words."""
    account = f"account {invoice.account}" if invoice.account else ""
    provisional = Text("provisional", "yellow") if invoice.is_provisional else ""
    said = (invoice.source, invoice.provider, account, invoice.period)
    return joined(*said, f"version {invoice.version}", provisional)


def print_one(page: Page, kept: Imported) -> None:
    """What an import kept, what it differs in, and what was noted."""
    invoice = kept.invoice
    page.line(joined(Text(invoice.id[:12], "bold"), heading(invoice), counted(kept.lines, "line")))
    if not kept.is_new:
        page.line("  the same as is kept already: nothing changed", "dim")
    print_sums(page, invoice, kept.amounts)
    if kept.previous is not None and kept.changes is not None:
        many = counted(kept.changes.lines, "line")
        page.line(
            f"  version {invoice.version}, differs in {many} from version {kept.previous.version}"
            + (":" if kept.changes.lines else _standing(kept.previous, invoice)),
            "yellow",
        )
        for change in kept.changes.shown:
            page.line(f"    {change_text(change)}")
        if (left := kept.changes.lines - len(kept.changes.shown)) > 0:
            page.line(f"    … and {counted(left, 'line')} more", "dim")
    for note in kept.notes:
        page.line(f"  {note}", "yellow")


def print_sums(page: Page, invoice: Invoice, amounts: Mapping[str, int]) -> None:
    """The sum of each category, and of all."""
    if not invoice.currency:
        return
    known = [name for name in CATEGORIES if name in amounts]
    for name in known:
        page.line(joined(f"  {name}", amount(format_usd(amounts[name])), invoice.currency))
    if len(known) > 1:
        total = amount(format_usd(sum(amounts.values())))
        page.line(joined("  together", total, invoice.currency))


def change_text(change: Change) -> str:
    """A line that two versions tell differently."""
    line = change.after or change.before
    assert line is not None, "a change has a side"
    said = " ".join(each for each in (line.day, line.project or "", _name(line)) if each)
    return f"{said}: {_told(change.before)} -> {_told(change.after)}"


def _name(line: InvoiceLine) -> str:
    component = f" {line.component}" if line.model and not line.currency else ""
    return f"{line.description or line.model or line.category}{component}"


def _told(line: InvoiceLine | None) -> str:
    if line is None:
        return "nothing"
    said: list[str] = []
    if line.currency:
        said.append(
            f"{amount(format_usd(line.amount)).plain.rstrip('0').rstrip('.')} {line.currency}"
        )
    if line.requests is not None:
        said.append(f"{line.requests:,} requests")
    if line.quantity is not None:
        said.append(f"{line.quantity:,} {line.unit or ''}".strip())
    if line.is_provisional:
        said.append("provisional")
    return ", ".join(said) or line.category


def _standing(previous: Invoice, invoice: Invoice) -> str:
    if previous.is_provisional and not invoice.is_provisional:
        return ": no longer provisional"
    return ", in their order alone"
