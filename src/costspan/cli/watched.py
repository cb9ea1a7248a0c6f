"""What `drain --watch` knows of itself: how its drains went, and whether that is well enough."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from costspan.cli.counted import REFUSED, counters_of
from costspan.cli.moments import age
from costspan.core import sinks
from costspan.core.drain import Drained
from costspan.core.ledger_errors import LedgerBusy, LedgerError
from costspan.core.read.waiting import Waiting
from costspan.core.settle import Report
from costspan.core.settle.ledger import Ledger

REST = "@other"
"""The owner of what is not among the first: no tenant's id begins with an @."""


class Books(NamedTuple):
    """What is said of the ledger as a whole, and when it was looked at (ns UTC)."""

    at_ns: int
    counts: dict[str, int]
    refused: dict[str, int]
    sinks: list[sinks.Standing]
    period: str
    charges: list[tuple[str, int]]
    """Owner -> pico-USD of the period; those beyond the first as one, `REST`."""


def books_of(ledger: Ledger, at_ns: int, period: str, tenants: int) -> Books:
    """Look at the ledger; nobody is named unless `tenants` says how many."""
    told = counters_of(ledger.controls())
    refused = {name[len(REFUSED) :]: n for name, n in told.items() if name.startswith(REFUSED)}
    charges: list[tuple[str, int]] = []
    if tenants:
        sums = ledger.sums(("owner",), period=period)
        every = sorted(((owner, total.charge) for (owner,), total in sums), key=_dearest_first)
        charges = every[:tenants]
        if rest := every[tenants:]:
            charges.append((REST, sum(charge for _, charge in rest)))
    return Books(
        at_ns,
        ledger.counts("open", "swept", "unpriced", "unmeasured"),
        refused,
        sinks.standings(ledger),
        period,
        charges,
    )


def _dearest_first(each: tuple[str, int]) -> tuple[int, str]:
    return -each[1], each[0]


class Totals(msgspec.Struct):
    """What all drains together did."""

    drains: int = 0
    segments: int = 0
    quarantined: int = 0
    swept: int = 0
    settled: Report = msgspec.field(default_factory=Report)

    def add(self, done: Drained) -> None:
        """Count one drain, however far it came."""
        self.segments += done.segments
        self.quarantined += done.quarantined
        self.swept += done.swept
        self.settled.add(done.settled)


class Health(NamedTuple):
    """Whether all is well, and why or why not, in words."""

    is_well: bool
    said: str


class Watched:
    """How it goes. One thread writes it, those of the endpoint read it."""

    def __init__(self, now_ns: int, late_ns: int) -> None:
        self._lock = threading.Lock()
        self._since_ns = now_ns
        self._late_ns = late_ns
        self._totals = Totals()
        self._under_way: Drained | None = None
        self._begun_ns: int | None = None
        self.success_ns: int | None = None
        self.failures: Counter[str] = Counter()
        self.failed: str | None = None
        """What the last drain raised; None if it went well."""
        self.is_ledger_up: bool | None = None
        self.last: Drained | None = None
        self.books: Books | None = None

    def totals(self) -> Totals:
        """What was done so far, by the drain under way too."""
        with self._lock:
            found = msgspec.convert(msgspec.to_builtins(self._totals), Totals)
            if self._under_way is not None:
                found.add(self._under_way)
            return found

    def begins(self, now_ns: int) -> None:
        """A drain is under way from now on."""
        self._begun_ns = now_ns

    def come_so_far(self, done: Drained) -> None:
        """The drain under way has done this much."""
        with self._lock:
            self._under_way = done

    def went_well(self, done: Drained, now_ns: int) -> None:
        """A drain came to its end."""
        with self._lock:
            self._under_way = self._begun_ns = None
            self._totals.drains += 1
            self._totals.add(done)
            self.last = done
            self.success_ns = now_ns
            self.failed = None
            self.is_ledger_up = True

    def went_wrong(self, error: BaseException) -> None:
        """A drain raised; what it had settled by then is settled."""
        with self._lock:
            if self._under_way is not None:
                self._totals.add(self._under_way)
            self._under_way = self._begun_ns = None
            # Another, not this one changed: somebody may be reading it.
            self.failures = self.failures + Counter([type(error).__name__])
            self.failed = f"{type(error).__name__}: {error}"
            if isinstance(error, LedgerBusy):
                self.is_ledger_up = True  # it answered
            elif isinstance(error, (LedgerError, sqlite3.Error)):
                self.is_ledger_up = False
                self.books = None  # what it says now is not known

    def was_interrupted(self) -> None:
        """A drain was asked to end after the batch under way."""
        with self._lock:
            if self._under_way is not None:
                self._totals.add(self._under_way)
            self._under_way = self._begun_ns = None

    def health(self, folders: Iterable[Waiting], now_ns: int) -> Health:
        """Well, as long as drains succeed and no complete segment waits for too long."""
        wrong: list[str] = []
        since_ns = self._since_ns if self.success_ns is None else self.success_ns
        silent_ns = now_ns - since_ns
        why = "" if self.failed is None else f": {self.failed}"
        if silent_ns > self._late_ns:
            wrong.append(f"no drain has succeeded for {age(silent_ns)}{why}{self._hangs(now_ns)}")
        for found in folders:
            if found.unreadable is not None:
                wrong.append(f"{found.folder} cannot be read: {found.unreadable}")
            waited_ns = 0 if found.oldest_ns is None else now_ns - found.oldest_ns
            if waited_ns > self._late_ns:
                many = found.complete
                waits = f"{many:,} segments wait" if many > 1 else "1 segment waits"
                oldest = ", the oldest for" if many > 1 else ", for"
                wrong.append(f"{waits} in {found.folder}{oldest} {age(waited_ns)}{self._held_up()}")
        if wrong:
            return Health(False, "; ".join(wrong))
        if self.success_ns is None:
            return Health(True, f"starting: no drain has succeeded yet{why}")
        trouble = f"; the last try failed{why}" if why else ""
        return Health(True, f"ok: the last drain succeeded {age(silent_ns)} ago{trouble}")

    def _hangs(self, now_ns: int) -> str:
        """How long a drain has been under way, if that is why none succeeds."""
        begun_ns = self._begun_ns
        if begun_ns is None or now_ns - begun_ns <= self._late_ns:
            return ""
        return f"; one has been under way for {age(now_ns - begun_ns)}"

    def _held_up(self) -> str:
        """Why segments stay although drains succeed."""
        last = self.last
        if last is None or not (last.unreadable or last.newer):
            return ""
        return f" ({last.why or 'a newer costspan wrote some of them: drain with that'})"
