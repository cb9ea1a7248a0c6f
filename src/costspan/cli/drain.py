"""`costspan drain`: settle what waits in the spool."""

from __future__ import annotations

import argparse

import msgspec

from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import Page, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of, spools_of
from costspan.core.drain import Drained, drain
from costspan.core.read.waiting import waiting


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `drain`."""
    parser.add_argument(
        "--spool",
        action="extend",
        nargs="+",
        metavar="DIR",
        default=argparse.SUPPRESS,
        help="folders to drain, any number (those of other machines too)",
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=int,
        default=30,
        help="for another process that is settling (default %(default)s)",
    )
    parser.add_argument(
        "--sweep-older",
        metavar="SECONDS",
        type=int,
        help="give up every call that is open for longer, batches too; 0: all of them, those under"
        " way as well (default: the setting open_ttl, and 26 hours for a batch)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Drain; 1 if there were records that nobody can read."""
    settings, given = settings_of(options), spools_of(options)
    if options.sweep_older is not None and options.sweep_older < 0:
        raise UsageError("--sweep-older must be 0 or more seconds")
    for folder in given:
        if not folder.is_dir():
            what = "it is no folder" if folder.exists() else "there is no such folder"
            raise UsageError(f"--spool {folder}: {what}")
    folders = given or [settings.spool]
    segments = sum(waiting(folder).complete for folder in folders)
    with progress("draining", "segments", segments) as tell:
        done = drain(
            settings,
            folders,
            timeout_seconds=options.wait,
            progress=lambda so_far: tell(so_far.segments),
            sweep_older_seconds=options.sweep_older,
        )
    if options.json:
        print_json(_plain(done))
        to_stderr(f"ledger: {done.ledger}")
    else:
        _print(done)
    return BAD if done.unreadable else OK


def _plain(done: Drained) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(done)
    return plain


def _print(done: Drained) -> None:
    page, settled = Page(), done.settled
    page.line(f"ledger {done.ledger}", "dim")
    page.line(
        f"drained {counted(done.segments, 'segment')}: "
        f"{counted(settled.observations, 'new observation')},"
        f" {counted(settled.events, 'event')} decided, {counted(settled.postings, 'posting')}"
    )
    if settled.duplicates:
        page.line(f"{settled.duplicates:,} were in the ledger already", "dim")
    if settled.conflicts:
        page.line(
            f"{counted(settled.conflicts, 'conflict')}: one oid, two payloads; both are kept",
            "yellow",
        )
    if done.swept:
        page.line(
            f"{done.swept:,} swept: started, never ended; their outcome is unknown until an end"
            " comes after all (costspan doctor)",
            "yellow",
        )
    if done.waiting:
        page.line(f"{counted(done.waiting, 'segment')} still held by live writers", "dim")
    if done.quarantined:
        page.line(
            f"{counted(done.quarantined, 'torn tail')} put into quarantine, not deleted", "yellow"
        )
    if done.unreadable:
        text = f"{counted(done.unreadable, 'record')} of no version known here: the segments stay"
        page.line(f"{text} in the spool. Drain them with a newer costspan", "bold red")
