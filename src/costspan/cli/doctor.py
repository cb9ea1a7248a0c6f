"""`costspan doctor`: every silent trap that can be seen, and what to do about it."""

from __future__ import annotations

import argparse
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from rich.text import Text

from costspan.cli.exits import BAD, NOT_FOUND, OK
from costspan.cli.finding import Finding
from costspan.cli.findings import of_books
from costspan.cli.printing import Block, Page, counted, joined, print_json, shown, to_stderr
from costspan.cli.progress import progress
from costspan.cli.settings import open_books, settings_of
from costspan.cli.surroundings import of_place, of_process, of_settings, of_spool
from costspan.core.config import Config
from costspan.core.read.waiting import waiting
from costspan.core.settle.ledger import LedgerError, LedgerMissing

_ORDER = ("error", "warning", "note")
_STYLE = {"error": "bold red", "warning": "yellow", "note": "dim"}
_SQLITE = "sqlite:///"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `doctor`."""
    parser.add_argument("--json", action="store_true", help="one JSON document")


def run(options: argparse.Namespace) -> int:
    """Print what was found; 1 if any of it is an error, 3 if there is no ledger."""
    settings = settings_of(options)
    examined = _Examined(settings)
    if options.json:
        print_json(examined.plain())
        to_stderr(f"ledger: {settings.ledger_url}")
    else:
        examined.print(Page())
    if not examined.has_ledger:
        return NOT_FOUND
    return BAD if any(finding.severity == "error" for finding in examined.findings) else OK


class _Examined:
    """The books and what is around them, looked at once."""

    def __init__(self, settings: Config) -> None:
        self._settings = settings
        self._now_ns = time.time_ns()
        self._spool = waiting(settings.spool)
        self.has_ledger = True
        self._counts: dict[str, int] = {}
        found = [*self._around(), *self._in_the_books()]
        # Last: opening the ledger has loaded the plugins and called them.
        found += of_process()
        self.findings = sorted(found, key=lambda finding: _ORDER.index(finding.severity))

    def _around(self) -> Iterator[Finding]:
        yield from of_settings(self._settings)
        url = self._settings.ledger_url
        if url.startswith(_SQLITE):
            yield from of_place("ledger", Path(url.removeprefix(_SQLITE)))
        yield from of_place("spool", self._settings.spool)
        yield from of_spool(self._spool, self._now_ns)

    def _in_the_books(self) -> Iterator[Finding]:
        try:
            yield from self._opened()
        except (LedgerError, sqlite3.Error, msgspec.MsgspecError) as error:
            yield Finding(
                severity="error",
                check="ledger_unusable",
                count=1,
                what=f"{self._settings.ledger_url} cannot be read to its end: {error}",
                do="keep the file as it is; restore a copy of it, or move it away and drain anew:"
                " what still waits in the spool is safe there",
            )

    def _opened(self) -> Iterator[Finding]:
        try:
            books = open_books(self._settings)
        except LedgerMissing as missing:
            self.has_ledger = False
            what = "; nothing was recorded here either" if not self._has_records() else ""
            yield Finding(
                severity="error",
                check="no_ledger",
                count=1,
                what=f"{missing}{what}",
                do="run costspan drain where records wait, or name the right ledger and spool",
            )
            return
        with books:
            self._counts = books.ledger.counts()
            with progress("examining", "events", self._counts["events"]) as tell:
                yield from of_books(books, self._now_ns, self._has_records(), tell)

    def _has_records(self) -> bool:
        return bool(self._spool.complete or self._spool.live)

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "ledger": self._settings.ledger_url,
            "spool": str(self._settings.spool),
            "counts": self._counts,
            "findings": msgspec.to_builtins(self.findings),
        }

    def print(self, page: Page) -> None:
        """For people: where everything is, and each finding with what to do."""
        page.line(f"ledger {self._settings.ledger_url}", "dim")
        page.line(f"spool  {self._settings.spool}", "dim")
        if self._counts:
            kinds = ("event", "observation", "posting")
            page.line(", ".join(counted(self._counts[f"{kind}s"], kind) for kind in kinds), "dim")
        page.line()
        page.tree(map(_block, self.findings))
        many = {kind: sum(f.severity == kind for f in self.findings) for kind in _ORDER}
        if not self.findings:
            page.line("nothing to report: the books are balanced and complete", "green")
        else:
            said = ", ".join(counted(count, kind) for kind, count in many.items() if count)
            page.line(said, _STYLE["error"] if many["error"] else "")


def _block(finding: Finding) -> Block:
    style = _STYLE[finding.severity]
    head = joined(
        Text(f"{finding.severity.upper():<7}", style),
        Text(finding.check, "bold"),
        f"{finding.count:,}",
    )
    return Block(head, [("what", Text(shown(finding.what))), ("do", Text(shown(finding.do)))], [])
