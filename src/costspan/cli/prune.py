"""`costspan prune`: old observations move into an archive; `--restore` brings them back."""

from __future__ import annotations

import argparse
from pathlib import Path

from costspan.cli.exits import OK, UsageError
from costspan.cli.hands import hand_of, now_ns
from costspan.cli.moments import period
from costspan.cli.printing import Page, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of
from costspan.core.config import Config
from costspan.core.journal.records import Pruned
from costspan.core.read.books import Books
from costspan.core.retention import Restored, prune, restore


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `prune`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--before", metavar="YYYY-MM", help="archive the observations of sealed months before this"
    )
    what.add_argument("--restore", metavar="DIR", help="bring back everything, from this folder")
    parser.add_argument("--archive", metavar="DIR", help="the folder the archive is written to")
    parser.add_argument("--by", metavar="NAME", default="", help="who says so")
    parser.add_argument("--reason", metavar="TEXT", default="", help="why, for whoever asks")
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Archive, or bring back."""
    settings = reader_settings_of(options)
    page = Page()
    with open_books(settings) as books:
        if options.json:
            to_stderr(f"ledger: {books.url}")
        else:
            page.line(f"ledger {books.url}", "dim")
        if options.restore is not None:
            _restored(page, _restore(books, settings, options), options)
        else:
            record, is_compact = _prune(books, options)
            _pruned(page, record, is_compact, options)
    return OK


def _prune(books: Books, options: argparse.Namespace) -> tuple[Pruned | None, bool]:
    by, reason = hand_of(options)
    before = period(options.before)
    if options.archive is None:
        raise UsageError("--archive DIR: say where the archive is to be written")
    with progress("choosing", "events", books.ledger.counts("events")["events"]) as tell:
        folder = Path(options.archive).expanduser()
        record = prune(books.ledger, before, folder, by, reason, now_ns(), tell)
    return record, record is None or books.ledger.compact()


def _restore(books: Books, settings: Config, options: argparse.Namespace) -> Restored:
    with progress("restoring", "observations", books.ledger.archive.count()) as tell:
        folder = Path(options.restore).expanduser()
        return restore(books.ledger, folder, settings.gateways, tell)


def _pruned(
    page: Page, record: Pruned | None, is_compact: bool, options: argparse.Namespace
) -> None:
    if options.json:
        print_json(
            {
                "file": None if record is None else record.file,
                "sha256": None if record is None else record.sha256,
                "observations": 0 if record is None else record.observations,
                "compacted": is_compact,
            }
        )
        return
    if record is None:
        page.line("nothing to prune: no observation of a sealed month is left that may go")
        return
    page.line(f"{counted(record.observations, 'observation')} archived in {record.file}", "green")
    page.line(f"sha256 {record.sha256}", "dim")
    page.line("keep the file: rebuild and revisions of those months need it (--restore)")
    if not is_compact:
        page.line("the ledger's file will shrink when nobody else reads it", "yellow")


def _restored(page: Page, done: Restored, options: argparse.Namespace) -> None:
    if options.json:
        print_json(done._asdict())
        return
    many = counted(done.observations, "observation")
    page.line(f"{many} brought back from {counted(len(done.files), 'archive')}", "green")
    if done.late:
        page.line(f"{counted(done.late, 'late observation')} joined, which had waited for them")
