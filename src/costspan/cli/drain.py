"""`costspan drain`: settle what waits in the spool, and bring the sinks what was posted."""

from __future__ import annotations

import argparse
from contextlib import closing

import msgspec

from costspan.cli import watch_options
from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.printing import Page, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of, spools_of
from costspan.core import sinks
from costspan.core.config import Config
from costspan.core.drain import Drained, drain
from costspan.core.journal import spool
from costspan.core.read.waiting import waiting
from costspan.core.settle.ledger import open_url

_WAIT_SECONDS = 30


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
        help=f"for another process that is settling (default {_WAIT_SECONDS}; with --watch"
        f" {watch_options.WAIT_SECONDS})",
    )
    parser.add_argument(
        "--sweep-older",
        metavar="SECONDS",
        type=int,
        help="give up every call that is open for longer, batches too; 0: all of them, those under"
        " way as well (default: the setting open_ttl, and 26 hours for a batch)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document")
    watch_options.arguments(parser)


def run(options: argparse.Namespace) -> int:
    """Drain; 1 if there was something that nobody can read. A sink that fails waits, no more."""
    settings, given = settings_of(options), spools_of(options)
    if options.watch:
        from costspan.cli.watch import watch  # a plain drain needs no server

        return watch(settings, given, watch_options.plan_of(options, given))
    watch_options.check_absent(options)
    if options.sweep_older is not None and options.sweep_older < 0:
        raise UsageError("--sweep-older must be 0 or more seconds")
    for folder in given:
        if not folder.is_dir():
            what = "it is no folder" if folder.exists() else "there is no such folder"
            raise UsageError(f"--spool {folder}: {what}")
    folders = spool.folders_of(settings, given)
    segments = sum(waiting(folder).complete for folder in folders)
    with progress("draining", "segments", segments) as tell:
        done = drain(
            settings,
            folders,
            timeout_seconds=_WAIT_SECONDS if options.wait is None else options.wait,
            progress=lambda so_far: tell(so_far.segments),
            sweep_older_seconds=options.sweep_older,
        )
    reached = _delivered(settings)
    if options.json:
        print_json(_plain(done, reached))
        to_stderr(f"ledger: {done.ledger}")
    else:
        _print(done)
        _print_sinks(reached)
    return BAD if done.unreadable or done.newer or done.failed else OK


def _delivered(settings: Config) -> list[sinks.Standing]:
    """How far each sink has come, after every one had its turn."""
    with progress("delivering", "postings") as tell:
        sinks.deliver(settings, wait=True, progress=tell)
    with closing(open_url(settings.ledger_url, create=False)) as ledger:
        return sinks.standings(ledger)


def _plain(done: Drained, reached: list[sinks.Standing]) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(done)
    return {**plain, "sinks": msgspec.to_builtins(reached)}


def _print_sinks(reached: list[sinks.Standing]) -> None:
    page = Page()
    for each in reached:
        if not each.waiting:
            page.line(f"sink {each.sink}: has every posting (up to {each.taken:,})", "dim")
            continue
        many = f"{'at least ' if each.waits_for_more else ''}{counted(each.waiting, 'posting')}"
        why = each.last_failure or (
            "another process delivers to it" if each.is_installed else "it is not installed here"
        )
        page.line(f"sink {each.sink}: {many} to take, from {each.taken + 1:,}: {why}", "yellow")


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
        why = f" ({done.why})" if done.why else ""
        page.line(f"{text} in the spool{why}. Drain them with a newer costspan", "bold red")
    if done.newer:
        text = f"{counted(done.newer, 'segment')} of a newer format stay in the spool"
        page.line(f"{text}: drain them with a newer costspan", "bold red")
    if done.failed:
        text = f"{counted(done.failed, 'folder')} could not be read"
        page.line(f"{text}: see who owns it, and what the disk says", "bold red")
