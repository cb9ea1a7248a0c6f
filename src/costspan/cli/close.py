"""`costspan close PERIOD`: seal a month. What comes later is an adjustment in the open one."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from costspan.cli.exits import BAD, OK, UsageError
from costspan.cli.hands import hand_of, hand_options, now_ns
from costspan.cli.moments import period as period_of
from costspan.cli.printing import Page, counted, print_json, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, reader_settings_of, spools_of
from costspan.core.checkpoints import PROVES, Key, hash_of, read_key
from costspan.core.closing import against_closing, unsettled
from costspan.core.config import Config
from costspan.core.journal import spool
from costspan.core.journal.records import Close
from costspan.core.settle.close import (
    CloseError,
    check_period_to_close,
    check_still_open,
    close_period,
)
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settlement import Settlement

if TYPE_CHECKING:
    from costspan.core.allocate import Allocated


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `close`."""
    parser.add_argument("period", metavar="PERIOD", help="a month that is over, YYYY-MM (UTC)")
    hand_options(parser)
    parser.add_argument(
        "--force", action="store_true", help="close in spite of what stands against it, on record"
    )
    parser.add_argument(
        "--unpriced-threshold",
        metavar="N",
        type=int,
        help="events of unknown cost that may be left out (default: the setting, else 0)",
    )
    parser.add_argument(
        "--allocate",
        metavar="RULE",
        help="share out the pools first: a TOML file, or a method (even, activity)",
    )
    parser.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        help="sign with this key, Ed25519 as PEM or a secret (default: the setting checkpoint_key)",
    )


def run(options: argparse.Namespace) -> int:
    """Close; 1, and nothing is changed, if something stands against it."""
    settings = reader_settings_of(options)
    month, (by, reason) = period_of(options.period), hand_of(options)
    threshold = options.unpriced_threshold
    if threshold is None:
        threshold = settings.unpriced_threshold
    if threshold < 0:
        raise UsageError("--unpriced-threshold is 0 or more events")
    key = signing_key(settings, options.key)
    if key is not None:
        key.sign(b"")  # a public key is refused before anything is done
    folders = spool.folders_of(settings, spools_of(options))
    with open_books(settings) as books:
        ledger = books.ledger

        def against() -> list[str]:
            return against_closing(ledger, month, folders, threshold)

        at = now_ns()
        check_period_to_close(month, at)
        check_still_open(ledger, month)
        if (found := against()) and not options.force:
            return _refused(options, month, found)
        warnings = _warnings(ledger, month)
        share_out = _allocation(ledger, month, options, (by, reason), at)
        posted: list[int] = []

        def before_seal(settlement: Settlement) -> None:
            if share_out is not None:
                with progress("sharing out", "entries") as tell:
                    posted.append(share_out(settlement, tell).posted)

        try:
            with progress("sealing", "postings") as tell:
                close = close_period(
                    ledger, month, by, reason, at, key=key, against=against,
                    force=options.force, before_seal=before_seal, tell=tell,
                )  # fmt: skip
        except CloseError:
            if not options.force and (found := against()):
                return _refused(options, month, found)
            raise
        _print(options, books.url, close, posted[0] if posted else None, warnings)
    return OK


def _refused(options: argparse.Namespace, month: str, found: list[str]) -> int:
    if options.json:
        print_json({"period": month, "closed": False, "against": found})
        return BAD
    page = Page()
    page.line(f"{month} stays open; nothing was changed:", "bold red")
    for text in found:
        page.line(f"  {text}")
    page.line("see to it, or close in spite of it with --force: the record will say so", "dim")
    return BAD


def _allocation(
    ledger: Ledger, month: str, options: argparse.Namespace, hand: tuple[str, str], at: int
) -> Callable[[Settlement, Callable[[int], None]], Allocated] | None:
    """What shares out the pools in the transaction of the close; None if it was not asked for.

    The rule is read, and the events are measured, before anything is held.
    """
    if options.allocate is None:
        return None
    from costspan.cli.allocate import read_rule
    from costspan.core.allocate import METHODS, AllocationRule, allocate_in, measured_for

    if options.allocate in METHODS:
        rule = AllocationRule().with_method(options.allocate)
    else:
        rule = read_rule(options.allocate)
    with progress("measuring", "events") as tell:
        known = measured_for(ledger, month, rule, tell)
    by, reason = hand
    return lambda settlement, tell: allocate_in(
        ledger, settlement, month, rule, known,
        by=by, reason=reason, now_ns=at, at_most=0, tell=tell,
    )  # fmt: skip


def _warnings(ledger: Ledger, month: str) -> list[str]:
    """What does not stand in the way, and should be known."""
    from costspan.core.reconcile import open_variances

    found: list[str] = []
    if variances := open_variances(ledger.invoices, month):
        found.append(
            f"{counted(len(variances), 'difference')} with the invoices of {month} that nobody"
            f" reviewed (costspan reconcile {month}): what comes of them is an adjustment now"
        )
    if earlier := unsettled(ledger, month).earlier:
        found.append(
            f"{counted(earlier, 'event')} of closed months still without an end or a price: what"
            " they cost will be an adjustment"
        )
    return found


def _print(
    options: argparse.Namespace, url: str, close: Close, posted: int | None, warnings: list[str]
) -> None:
    if options.json:
        to_stderr(f"ledger: {url}")
        print_json(_plain(close, posted, warnings))
        return
    page = Page()
    page.line(f"ledger {url}", "dim")
    if posted is not None:
        page.line(f"pools shared out: {counted(posted, 'posting')}")
    page.line(
        f"{close.period} is closed: {counted(close.postings, 'posting')} sealed by {close.by}"
        f" ({close.reason})",
        "bold green",
    )
    page.line(f"root        {close.root}")
    page.line(f"checkpoint  {hash_of(close)}")
    signed = "unsigned" if close.algorithm is None else f"{close.algorithm}, key {close.key_id}"
    page.line(f"signed      {signed}: {PROVES[close.algorithm]}")
    for text in close.forced:
        page.line(f"forced over: {text}", "bold yellow")
    for text in warnings:
        page.line(f"note: {text}", "yellow")
    page.line(
        "keep this checkpoint somewhere that whoever can write the ledger cannot (close --json,"
        " verify --json): only so can anybody tell that the last ones were not cut off",
        "dim",
    )


def _plain(close: Close, posted: int | None, warnings: list[str]) -> dict[str, Any]:
    return {
        "period": close.period,
        "closed": True,
        "checkpoint": checkpoint_plain(close),
        "checkpoint_sha256": hash_of(close),
        "allocated_entries": posted,
        "warnings": warnings,
    }


def checkpoint_plain(close: Close) -> dict[str, Any]:
    """A checkpoint as JSON: what `costspan verify --checkpoint` reads."""
    plain: dict[str, Any] = msgspec.to_builtins(close)
    return plain


def signing_key(settings: Config, given: Path | None) -> Key | None:
    """The key that the options or the settings name."""
    path = given or settings.checkpoint_key
    return None if path is None else read_key(path)
