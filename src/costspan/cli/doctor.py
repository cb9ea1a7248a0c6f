"""`costspan doctor`: every silent trap that can be seen, and what to do about it."""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.counted import counters_of
from costspan.cli.exits import BAD, NOT_FOUND, OK
from costspan.cli.finding import Finding
from costspan.cli.findings import of_books, of_ledger
from costspan.cli.patience import books_in_time
from costspan.cli.printing import Block, Page, counted, joined, print_json, shown, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import settings_of, spools_of
from costspan.cli.surroundings import (
    LATE_NS,
    lease_of,
    newer_segments,
    of_lease,
    of_place,
    of_process,
    of_settings,
    of_sinks,
    of_spool,
)
from costspan.cli.writing import plain_writer, print_writers
from costspan.core import sinks
from costspan.core.config import Config
from costspan.core.journal import spool
from costspan.core.ledger_errors import LedgerError, LedgerMissing
from costspan.core.ledger_urls import shown_url
from costspan.core.read.books import Books
from costspan.core.read.waiting import Waiting, waiting
from costspan.core.read.writers import Writer, writers_of

_ORDER = ("error", "warning", "note")
_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}
_SQLITE = "sqlite:///"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="one JSON document")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="look at the spool, the plugins and the ledger's lists, not at every event",
    )


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if any of it is an error, 3 if there is no ledger."""
    settings = settings_of(options)
    examined = _Examined(settings, spools_of(options))
    page = None if options.json else Page()
    examined.look_around()
    if page is not None:
        _print_places(page, examined)
        _print_findings(page, examined.findings)
        print_writers(page, examined.writers, examined.now_ns)
    if not options.quick:
        around = len(examined.findings)
        examined.look_at_events()
        if page is not None:
            _print_findings(page, examined.findings[around:])
    examined.close()
    if page is None:
        print_json(examined.plain())
        to_stderr(f"ledger: {examined.shown}")
    else:
        _print_sum(page, examined.findings, options.quick)
    if not examined.has_ledger:
        return NOT_FOUND
    return BAD if any(finding.severity == "error" for finding in examined.findings) else OK


class _Examined:
    """The books and what is around them, looked at once."""

    def __init__(self, settings: Config, given: list[Path]) -> None:
        self.settings = settings
        self._given = given
        self.has_ledger = True
        self.findings: list[Finding] = []
        self.spools: list[Waiting] = []
        self.counts: dict[str, int] = {}
        self.shown = shown_url(settings.ledger_url)
        self.writers: list[Writer] = []
        self.is_reached = False
        self.now_ns = time.time_ns()
        self._books: Books | None = None
        self._counters: dict[str, int] = {}
        self._sinks: list[sinks.Standing] = []
        self._busy: str | None = None

    def look_around(self) -> None:
        """Everything that takes no look at the events: it must come first, and soon."""
        self.spools = [waiting(folder) for folder in spool.folders_of(self.settings, self._given)]
        found = [*self._around(), *self._guarded(self._of_ledger)]
        # Last: opening the ledger has loaded the plugins and called them.
        self._add([*found, *of_process()])

    def look_at_events(self) -> None:
        """One pass over every event."""
        self._add(list(self._guarded(self._of_events)))

    def close(self) -> None:
        """Let go of the ledger."""
        if self._books is not None:
            self._books.close()

    def _add(self, found: list[Finding]) -> None:
        self.findings += sorted(found, key=lambda finding: _ORDER.index(finding.severity))

    def _around(self) -> Iterator[Finding]:
        yield from of_settings(self.settings)
        url = self.settings.ledger_url
        if url.startswith(_SQLITE):
            yield from of_place("ledger", Path(url.removeprefix(_SQLITE)))
        for found in self.spools:
            # The folder beside the spool lies in memory as a rule; what lies there is to know.
            if found.folder == self.settings.spool or found.complete or found.live:
                yield from of_place("spool", found.folder)
            yield from of_spool(found, self.now_ns)

    def _guarded(self, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
        try:
            yield from look()
        except (LedgerError, sqlite3.Error, msgspec.MsgspecError) as error:
            yield Finding(
                severity="error",
                check="ledger_unusable",
                count=1,
                what=f"{self.shown} cannot be read to its end: {error}",
                do="keep the file as it is; restore a copy of it, or move it away and drain anew:"
                " what still waits in the spool is safe there"
                if self.settings.ledger_url.startswith(_SQLITE)
                else "see to its server, and look again; what still waits in the spool is safe",
            )

    def _of_ledger(self) -> Iterator[Finding]:
        try:
            self._books = books_in_time(self.settings)
        except LedgerMissing as missing:
            self.has_ledger = False
            what = "; nothing was recorded here either" if not self._has_records() else ""
            self.is_reached = True
            yield Finding(
                severity="error",
                check="no_ledger",
                count=1,
                what=f"{missing}{what}",
                do="run costspan drain where records wait, or name the right ledger and spool",
            )
            return
        except LedgerError as error:
            if self.settings.ledger_url.startswith(_SQLITE):
                raise
            yield Finding(
                severity="error",
                check="ledger_unreachable",
                count=1,
                what=str(error),
                do="see to its server, and the way to it; records wait in the spools meanwhile, and"
                " nothing of them is lost",
            )
            self.writers = writers_of(None, self.spools)
            return
        self.is_reached = True
        ledger = self._books.ledger
        self._busy = lease_of(self.settings.ledger_url)
        yield from of_lease(self._busy, any(map(self._is_late, self.spools)))
        self._sinks = sinks.standings(ledger)
        yield from of_sinks(self._sinks)
        self._counters = dict(counters_of(ledger.controls()))
        self.counts = ledger.counts()
        self.writers = writers_of(ledger, self.spools)
        yield from of_ledger(ledger, self.counts, self._has_records(), self.now_ns)

    def _of_events(self) -> Iterator[Finding]:
        if self._books is not None:
            with progress("examining", "events", self.counts.get("events")) as tell:
                yield from of_books(self._books, self.now_ns, tell)

    def _has_records(self) -> bool:
        return any(found.complete or found.live for found in self.spools)

    def _is_late(self, found: Waiting) -> bool:
        return found.oldest_ns is not None and self.now_ns - found.oldest_ns > LATE_NS

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        findings = sorted(self.findings, key=lambda finding: _ORDER.index(finding.severity))
        return {
            "ledger": self.shown,
            "is_reached": self.is_reached,
            "spool": str(self.settings.spool),
            "spools": [self._plain_spool(found) for found in self.spools],
            "busy": self._busy,
            "writers": [plain_writer(each, self.now_ns) for each in self.writers],
            "sinks": msgspec.to_builtins(self._sinks),
            "counters": dict(sorted(self._counters.items())),
            "counts": self.counts,
            "findings": msgspec.to_builtins(findings),
        }

    def _plain_spool(self, found: Waiting) -> dict[str, Any]:
        oldest = found.oldest_ns
        return {
            "folder": str(found.folder),
            "segments": found.complete,
            "bytes": found.size_bytes,
            "oldest_seconds": None if oldest is None else (self.now_ns - oldest) // 10**9,
            "live": found.live,
            "newer": newer_segments(found.folder),
            "quarantined": [
                {"file": tail.path.name, "bytes": tail.size_bytes, "is_damage": tail.is_damage}
                for tail in found.quarantined
            ],
        }


def _print_places(page: Page, examined: _Examined) -> None:
    """For people: where everything is."""
    reached = "" if examined.is_reached else " (cannot be opened)"
    page.line(f"ledger {examined.shown}{reached}", "dim")
    for found in examined.spools:
        page.line(f"spool  {found.folder}", "dim")
    if counts := examined.counts:
        kinds = ("event", "observation", "posting")
        page.line(", ".join(counted(counts[f"{kind}s"], kind) for kind in kinds), "dim")
    page.line()


def _print_findings(page: Page, findings: list[Finding]) -> None:
    page.tree(map(_block, findings))


def _print_sum(page: Page, findings: list[Finding], is_quick: bool) -> None:
    many = {kind: sum(f.severity == kind for f in findings) for kind in _ORDER}
    said = ", ".join(counted(count, kind) for kind, count in many.items() if count)
    if is_quick:
        page.line(f"{said or 'nothing to report'}; the events were not looked at (--quick)")
    elif not findings:
        page.line("nothing to report: the books are balanced and complete", "green")
    else:
        page.line(said, _STYLE["error"] if many["error"] else "")


def _block(finding: Finding) -> Block:
    style = _STYLE[finding.severity]
    head = joined(
        Text(f"{finding.severity.upper():<7}", style),
        Text(finding.check, "bold"),
        f"{finding.count:,}",
    )
    return Block(head, [("what", Text(shown(finding.what))), ("do", Text(shown(finding.do)))], [])
