"""What the commands that move money by hand share: who and why, amounts, and what was posted."""

from __future__ import annotations

import argparse
import re
import time

from costspan.cli.exits import UsageError
from costspan.cli.printing import Page, print_json, shown, to_stderr
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.bounded import Invalid
from costspan.core.journal.records import FreePostings
from costspan.core.money import format_usd, parse_usd
from costspan.core.names import tenant_id
from costspan.core.read import words
from costspan.core.read.books import Books
from costspan.core.read.free_entry import FreeEntry, free_entry
from costspan.core.settle import settle

WAIT_SECONDS = 30
_TEXT_CHARS_MAX = 1000
_AMOUNT = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]+)?", re.ASCII)
_PLACES = 12


def hand_options(parser: argparse.ArgumentParser) -> None:
    """Whose hand it is, and why: on everything that moves money."""
    parser.add_argument("--by", metavar="NAME", required=True, help="who says so")
    parser.add_argument("--reason", metavar="TEXT", required=True, help="why, for whoever asks")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def hand_of(options: argparse.Namespace) -> tuple[str, str]:
    """(by, reason) as they were given.

    Raises:
        UsageError: if one says nothing, is too long, or has characters that do not print.
    """
    for name in ("by", "reason"):
        text = getattr(options, name)
        if not text.strip():
            raise UsageError(f"--{name} is empty: every hand that moves money has a name")
        if len(text) > _TEXT_CHARS_MAX or not text.isprintable():
            raise UsageError(f"--{name}: one line of at most {_TEXT_CHARS_MAX:,} characters")
    return options.by.strip(), options.reason.strip()


def tenant_of(text: str) -> str:
    """A tenant's id, checked as everywhere.

    Raises:
        UsageError: if it is none.
    """
    try:
        return tenant_id(text)
    except Invalid:
        raise UsageError(
            f"{shown(text)!r} is no tenant id: 1 to 128 characters, none of them a control or"
            " format character, no space at an end, no @ in front"
        ) from None


def amount_of(text: str) -> int:
    """An amount of USD in pico-USD, signed.

    Raises:
        UsageError: if it is no plain decimal of at most 12 places.
    """
    if not _AMOUNT.fullmatch(text):
        raise UsageError(
            f"{shown(text)!r} is no amount: write USD as a plain decimal, such as 12.50 or -0.0025"
        )
    if len(text.partition(".")[2]) > _PLACES:
        raise UsageError(f"{text} is finer than a pico-dollar: at most {_PLACES} decimal places")
    return parse_usd(text)


def now_ns() -> int:
    """When a record is made (ns UTC)."""
    return time.time_ns()


def post(options: argparse.Namespace, record: FreePostings, tenant: str) -> None:
    """Settle a free posting at once, and say where it was posted."""
    with open_books(reader_settings_of(options)) as books:
        is_new = next(iter(books.ledger.roll_ups(owner=tenant)), None) is None
        with books.ledger.settling(WAIT_SECONDS) as settlement:
            settle(settlement, [], [record])
        entry = free_entry(books.ledger, record)
        if options.json:
            to_stderr(f"ledger: {books.url}")
            print_json({**_plain(entry, record), "tenant": tenant, "tenant_is_new": is_new})
        else:
            _print(books, entry, tenant)
        if is_new:
            to_stderr(f"note: the books had nothing of {shown(tenant)} before: is it the right id?")


def _plain(entry: FreeEntry, record: FreePostings) -> dict[str, object]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "period": entry.period,
        "posted_periods": sorted({each.posted_period for each in entry.postings}),
        "cost": format_usd(sum(line.cost for line in record.lines)),
        "charge": format_usd(sum(line.charge for line in record.lines)),
        "by": entry.by,
        "reason": entry.reason,
        "recorded_at": entry.recorded_at,
    }


def _print(books: Books, entry: FreeEntry, tenant: str) -> None:
    page = Page()
    page.line(f"ledger {books.url}", "dim")
    for each in entry.postings:
        amounts = f"charge {words.trimmed(each.charge)} USD, cost {words.trimmed(each.cost)} USD"
        page.line(f"{entry.kind} for {tenant}: {amounts}", "bold")
        month = f"posted in {each.posted_period}"
        if each.is_late:
            month += f", the first open month: {entry.period} is closed"
        page.line(month)
    page.line(f"by {entry.by}: {entry.reason}")
    page.line(f"costspan explain {entry.id}", "dim")
