"""`costspan restate`: decide events again with other prices, rules or charges; post differences."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from costspan.cli.exits import OK, UsageError
from costspan.cli.hands import hand_of, hand_options, now_ns
from costspan.cli.moments import period
from costspan.cli.printing import Column, Page, amount, counted, print_json, shown, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, settings_of
from costspan.core.journal.records import POLICY_BOOKS
from costspan.core.money import format_usd
from costspan.core.policy import charges_from, contract_from, rules_from
from costspan.core.prices.capacity_file import load_capacity
from costspan.core.read.books import NotFound
from costspan.core.restate import (
    Change,
    Hand,
    Hosted,
    Target,
    restate,
    restate_capacity,
)
from costspan.core.settle.ledger import Ledger

_WITH = ("prices", "book", "rules", "charges", "capacity", "undo")


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `restate`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--event", metavar="ID", help="one event")
    what.add_argument("--period", metavar="YYYY-MM", help="the events of a month")
    parser.add_argument("--prices", metavar="FILE", help="a price file, in front of all others")
    parser.add_argument("--book", metavar="SHA", help="a price book that the ledger kept, likewise")
    parser.add_argument("--rules", metavar="FILE", help="a rules file, instead of those in force")
    parser.add_argument("--charges", metavar="FILE", help="a charge book, instead of that in force")
    parser.add_argument(
        "--capacity", metavar="FILE", help="what GPUs cost that month: prices for your own models"
    )
    parser.add_argument("--undo", action="store_true", help="take earlier restatements back")
    parser.add_argument("--dry-run", action="store_true", help="say what would change, only")
    hand_options(parser)


def run(options: argparse.Namespace) -> int:
    """Restate, and print what changed."""
    asked = [name for name in _WITH if getattr(options, name, None)]
    if len(asked) != 1:
        raise UsageError(
            "say one thing to restate with: --prices FILE, --book SHA, --rules FILE,"
            " --charges FILE, --capacity FILE, or --undo"
        )
    hand = Hand(*hand_of(options), now_ns())
    with open_books(settings_of(options)) as books:
        target = _target(books.ledger, options)
        change, models = _restate(books.ledger, target, hand, asked[0], options)
        names = _book_names(books.ledger, change.books)
        url = books.url
    plain = _plain(target, change, models, names, options.dry_run)
    if options.json:
        to_stderr(f"ledger: {url}")
        print_json(plain)
    else:
        _print(Page(), url, plain, change)
    return OK


def _target(ledger: Ledger, options: argparse.Namespace) -> Target:
    if options.period is not None:
        return Target(None, period(options.period))
    found = ledger.find_events(options.event, 20)
    if not found:
        raise NotFound(f"no event has the id {shown(options.event)}")
    if len(found) > 1:
        raise UsageError(f"{shown(options.event)} names several events: {', '.join(found)}")
    return Target(found[0], None)


def _restate(
    ledger: Ledger, target: Target, hand: Hand, how: str, options: argparse.Namespace
) -> tuple[Change, Sequence[Hosted]]:
    path = (
        Path(getattr(options, how)) if how in ("prices", "rules", "charges", "capacity") else None
    )
    with progress("restating", "events") as tell:
        if how == "capacity" and path is not None:
            if target.period is None:
                raise UsageError("--capacity is of a month: give --period")
            bills = load_capacity(path)
            done = restate_capacity(
                ledger, target.period, bills, hand, dry_run=options.dry_run, tell=tell
            )
            return done.change, done.models
        change = restate(
            ledger,
            target,
            hand,
            prices=contract_from(path) if how == "prices" and path else options.book,
            rules=rules_from(path, None) if how == "rules" and path else None,
            charges=charges_from(path) if how == "charges" and path else None,
            undo=options.undo,
            dry_run=options.dry_run,
            tell=tell,
        )
        return change, ()


def _book_names(ledger: Ledger, hashes: Sequence[str]) -> list[str]:
    """The books for people; one that was only tried is known by its hash."""
    kept = {sha: (id, version) for sha, id, version in ledger.reading().price_book_versions()}
    names: list[str] = []
    for sha in hashes:
        if sha == POLICY_BOOKS:
            names.append("those of the policy in force")
            continue
        id, version = kept.get(sha, ("the given one", None))
        names.append(f"{id}{f'@{version}' if version else ''} {sha[:12]}")
    return names


def _plain(
    target: Target,
    change: Change,
    models: Sequence[Hosted],
    books: list[str],
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "event": target.event,
        "period": target.period,
        "dry_run": dry_run,
        "recorded": change.recorded,
        "events": change.events,
        "changed": change.changed,
        "postings": change.postings,
        "differences": [
            {"owner": owner, "cost": format_usd(each.cost), "charge": format_usd(each.charge)}
            for owner, each in change.differences.items()
        ],
        "books": books,
        "models": [
            {
                "model": each.name,
                "basis": each.basis,
                "paid": format_usd(each.paid),
                "tokens": str(round(each.tokens)),
                "rate": each.rate,
                "used": format_usd(each.used),
                "idle": format_usd(each.idle),
                "idle_posted": format_usd(each.posted),
            }
            for each in models
        ],
        "notes": list(change.notes),
    }


def _print(page: Page, url: str, plain: dict[str, Any], change: Change) -> None:
    page.line(f"ledger {url}", "dim")
    if plain["models"]:
        columns = [
            Column("model"), Column("basis"),
            *(Column(name, True) for name in ("paid", "tokens", "USD per 1M", "used", "idle")),
        ]  # fmt: skip
        rows = [
            [
                *(each["model"], each["basis"], amount(each["paid"]), each["tokens"]),
                *(each["rate"] or "no tokens", amount(each["used"]), amount(each["idle"])),
            ]
            for each in plain["models"]
        ]
        page.table(columns, rows)
        page.line()
    if plain["differences"]:
        page.table(
            [Column("owner"), Column("cost by", True), Column("charge by", True)],
            (
                [each["owner"], amount(each["cost"]), amount(each["charge"])]
                for each in plain["differences"]
            ),
            _totals(change),
        )
        page.line()
    if plain["books"]:
        page.line(f"prices now: {', '.join(plain['books'])}", "dim")
    for note in change.notes:
        page.line(note, "yellow")
    what = plain["event"] or plain["period"]
    page.line(
        f"{what}: {counted(change.events, 'event')} decided again, {change.changed:,} changed;"
        f" {counted(change.postings, 'posting')}"
    )
    if plain["dry_run"]:
        page.line("tried only: nothing was changed", "yellow")
    elif not change.recorded:
        page.line("it was so already: nothing was recorded", "green")


def _totals(change: Change) -> list[Any]:
    cost = sum(each.cost for each in change.differences.values())
    charge = sum(each.charge for each in change.differences.values())
    return ["in all", amount(format_usd(cost)), amount(format_usd(charge))]
