"""`costspan explain ID`: why something cost what it cost, and what would be different if."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.text import Text

from costspan.cli.exits import OK, UsageError
from costspan.cli.printing import Block, Column, Page, joined, print_json, shown, to_stderr
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.decide import RuleError, RuleSet, load_profile, load_rules, profile_names
from costspan.core.prices import PriceBook, PriceError
from costspan.core.prices.contract import load
from costspan.core.read import words
from costspan.core.read.explain import Explanation
from costspan.core.read.story import Branch, Card, story_of
from costspan.core.read.what_if import Verdict, WhatIf, headline_of_what_if

_TONES = {"": "", "strong": "bold", "quiet": "dim", "warn": "yellow", "bad": "red"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `explain`."""
    parser.add_argument(
        "id",
        metavar="ID",
        help="an attempt, operation, request (ours or the caller's), trace, session or response id;"
        " a free posting (@KIND:...); an invoice (its id or the first digits), :NUMBER for a line",
    )
    parser.add_argument("--brief", action="store_true", help="the headline and the tree alone")
    parser.add_argument(
        "--all", dest="every_event", action="store_true", help="every event of the tree in full"
    )
    parser.add_argument(
        "--rules",
        dest="every_rule",
        action="store_true",
        help="the tables of rules that had nothing special to say, too",
    )
    shapes = parser.add_mutually_exclusive_group()
    shapes.add_argument("--json", action="store_true", help="one JSON document")
    shapes.add_argument(
        "--html",
        metavar="FILE",
        help="write one page to attach to a ticket, without scripts or links (-: standard output)",
    )
    parser.add_argument(
        "--what-if",
        metavar="RULES",
        help="a rule file (TOML) or a profile's name: what it would decide; nothing is written",
    )
    parser.add_argument(
        "--what-if-book",
        metavar="PRICES",
        type=Path,
        help="a file of prices (TOML), in front of the others: what it would cost",
    )


def run(options: argparse.Namespace) -> int:
    """Explain what the id names, or what would be different."""
    settings = reader_settings_of(options)
    if options.what_if is not None or options.what_if_book is not None:
        return _what_if(options)
    with open_books(settings) as books:
        found = books.explain(options.id)
    if options.json:
        to_stderr(f"ledger: {found.ledger}")
        print_json(found.plain())
    elif options.html is not None:
        _write_html(options, found)
    else:
        page = Page()
        page.line(f"ledger {found.ledger}", "dim")
        print_explanation(
            page,
            found,
            brief=options.brief,
            every_event=options.every_event,
            every_rule=options.every_rule,
        )
    return OK


def _write_html(options: argparse.Namespace, found: Explanation) -> None:
    from costspan.core.read.html import render  # jinja2 loads only where a page is made

    story = story_of(
        found,
        brief=options.brief,
        every_event=options.every_event,
        every_rule=options.every_rule,
    )
    page = render("explain.html", title=f"costspan explain {found.name}", story=story)
    if options.html == "-":
        sys.stdout.write(page)
        return
    Path(options.html).write_text(page, "utf-8", errors="backslashreplace")
    to_stderr(f"wrote {options.html}")


def print_explanation(
    page: Page,
    found: Explanation,
    *,
    brief: bool = False,
    every_event: bool = False,
    every_rule: bool = False,
) -> None:
    """Print an explanation: headline, tree, and a card for each event that was asked for."""
    story = story_of(found, brief=brief, every_event=every_event, every_rule=every_rule)
    page.line(shown(story.name), "bold")
    page.line(story.headline)
    for aside in story.asides:
        page.line(aside, "dim")
    if story.tree:
        page.line()
        page.tree(map(_block, story.tree))
    for card in story.cards:
        page.line()
        page.tree([_card(card)])


def _block(branch: Branch) -> Block:
    head = joined(
        Text(f"[{branch.number}]", "dim"),
        *(Text(shown(part), _TONES[branch.tone]) for part in branch.columns),
        Text(branch.marker, "magenta"),
    )
    lines: list[tuple[str, Text]] = []
    if branch.under is not None:
        lines = [("below", joined(shown(branch.under), "(a deep tree, told in pieces)"))]
    return Block(head, lines, [_block(child) for child in branch.below])


def _card(card: Card) -> Block:
    lines = [(fact.label, Text(shown(fact.text), _TONES[fact.tone])) for fact in card.facts]
    return Block(Text(shown(card.title), "bold"), lines, [])


# --- what if --------------------------------------------------------------------------------------


def _what_if(options: argparse.Namespace) -> int:
    if options.html is not None:
        raise UsageError("--html is of an explanation: --what-if has --json")
    rules = None if options.what_if is None else _rules(options.what_if)
    book = None if options.what_if_book is None else _book(options.what_if_book)
    with open_books(reader_settings_of(options)) as books:
        found = books.what_if(options.id, rules, book)
    if options.json:
        to_stderr(f"ledger: {found.ledger}")
        print_json({"headline": headline_of_what_if(found), **found.plain()})
        return OK
    page = Page()
    page.line(f"ledger {found.ledger}", "dim")
    _print_what_if(page, found)
    return OK


def _rules(name: str) -> RuleSet:
    if name in profile_names():
        return load_profile(name)
    try:
        return load_rules(Path(name).read_text("utf-8"), None)
    except FileNotFoundError:
        known = ", ".join(profile_names())
        raise UsageError(f"{name}: no such file, and no profile (they are {known})") from None
    except (RuleError, UnicodeDecodeError) as error:
        raise UsageError(f"--what-if {name}: {error}") from error


def _book(path: Path) -> PriceBook:
    try:
        return load(path)
    except (PriceError, ValueError) as error:
        raise UsageError(f"--what-if-book {path}: {error}") from error


def _print_what_if(page: Page, found: WhatIf) -> None:
    page.line(shown(found.name), "bold")
    page.line(headline_of_what_if(found))
    page.line("nothing was written: this is what stands, and what would be", "dim")
    stands, would_be = found.unknown
    if stands or would_be:
        page.line(f"of unknown cost, and in no sum: {stands:,} -> {would_be:,} events", "yellow")
    if not found.changed:
        return
    page.line()
    page.table(
        [Column("who"), Column("stands USD", True), Column("would be USD", True)],
        [
            [owner, words.trimmed(was), words.trimmed(now)]
            for owner, (was, now) in found.owners.items()
        ],
    )
    page.line()
    page.tree(_changes(found))


def _changes(found: WhatIf) -> list[Block]:
    blocks: list[Block] = []
    for each in found.changed:
        lines = [
            (name, joined(_said(each.stands, name), "->", _said(each.would_be, name), by=" "))
            for name in each.differs
        ]
        blocks.append(Block(Text(shown(each.event), "bold"), lines, []))
    return blocks


def _said(verdict: Verdict, name: str) -> Text:
    value: str | tuple[str, ...] | None = getattr(verdict, name)
    if value is None:
        return Text("unknown", "yellow")
    if isinstance(value, str):
        is_amount = name in ("cost", "charge")
        return Text(words.trimmed(value) if is_amount else shown(value))
    return Text(shown(" ".join(value)))
