"""`costspan rebuild`: the books anew from the journal."""

from __future__ import annotations

import argparse
from pathlib import Path

from costspan.cli.exits import BAD, OK
from costspan.cli.printing import Page
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.rebuild import Differs, rebuild
from costspan.core.retention import restore


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `rebuild`."""
    parser.add_argument(
        "--archive",
        metavar="DIR",
        type=Path,
        help="where the archives of costspan prune are: they are brought back first",
    )


def run(options: argparse.Namespace) -> int:
    """Rebuild in place; 1, and the old books stay, if the new ones differ."""
    settings = reader_settings_of(options)
    with open_books(settings) as books:
        if options.archive is not None:
            restore(books.ledger, options.archive, settings.gateways)
        url, kept = books.url, books.ledger.counts()["observations"]
    page = Page()
    page.line(f"ledger {url}", "dim")
    try:
        with progress("rebuilding", "observations", kept) as tell:
            report = rebuild(settings, lambda so_far: tell(so_far.observations))
    except Differs as differs:
        for line in differs.differences:
            page.line(line, "red")
        page.line(
            f"{differs}: amounts are (cost, charge) in pico-USD. The old books stay as they were;"
            " keep the file and report this: it is a bug, or somebody changed the file",
            "bold red",
        )
        return BAD
    page.line(
        f"rebuilt from {report.observations:,} observations: {report.events:,} events decided,"
        f" {report.postings:,} postings; every owner, bucket and period comes to the same sums",
        "green",
    )
    return OK
