"""What the processes and an operator do to the ledger. Any of it may be cut short by a fault."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

import msgspec
from journals import policy_record
from oracle import Rule

from costspan.core import drain, rebuild
from costspan.core.config import Config
from costspan.core.journal.records import Assignment, Control, SessionOwner
from costspan.core.ledger_errors import LedgerError
from costspan.core.settle import settle
from costspan.core.settle.close import CloseError, close_period
from costspan.core.settle.ledger import Ledger, open_url
from simulator import owed
from simulator.books import url_for
from simulator.checks import Violation, check
from simulator.faults import Fault
from simulator.hosts import Entry, Host, acting
from simulator.race import Race
from simulator.recording import BESIDE, SPOOL, Recording
from simulator.work import HOUR_NS

OPEN_TTL_SECONDS = 3600


class World(Recording):
    """Processes that record, settle, and are told what an operator wants."""

    def __init__(self) -> None:
        super().__init__()
        self.is_racing = False
        self.controls: list[Control] = []
        """What the operator said, and the ledger took."""

    def _settings(self, host: Host) -> Config:
        """As a process has them: its way to the ledger is its own."""
        return Config(
            ledger=url_for(host.process, self.ledger_path),
            spool=SPOOL,
            open_ttl_seconds=OPEN_TTL_SECONDS,
            since_ns=0,
        )

    def _ledger(self, host: Host) -> closing[Ledger]:
        return closing(open_url(self._settings(host).ledger_url, create=False))

    def _settler_call(self, host: Host, call: Callable[[], Any]) -> bool:
        """Whether it came to its end. It may fail, but only if something went wrong."""
        hits = self.computer.faults_hit
        with acting(host), host.process.running():
            try:
                call()
            except (LedgerError, OSError, sqlite3.Error) as error:
                if hits == self.computer.faults_hit and not self.is_racing:
                    raise Violation("settler", f"failed without a fault: {error!r}") from error
                return False
        return host.is_alive

    def drain(self, host: Host, sweep_older_seconds: int | None = None) -> None:
        """Settle what no living process holds."""
        hits = self.computer.faults_hit

        def call() -> None:
            done = drain.drain(
                self._settings(host),
                (SPOOL, BESIDE),
                timeout_seconds=0,
                sweep_older_seconds=sweep_older_seconds,
                now_ns=self.computer.wall_ns,
                files=host.process.files,
            )
            check(not done.unreadable, "settler", "cannot settle", done.unreadable, done.why)

        is_done = self._settler_call(host, call)
        if is_done and hits == self.computer.faults_hit and not self.is_racing:
            owed.check_settled(self, [each for each in self.hosts if not each.is_alive])

    def import_again(self, host: Host, entry: Entry, change: dict[str, Any]) -> None:
        """The same record another way; with a change, another payload under its name."""
        again = msgspec.structs.replace(entry.seen, oid=entry.oid, **change)
        if change:
            entry = self.new_entry(again)
            again, entry.oid = entry.seen, again.oid
        if self._settler_call(
            host,
            lambda: drain.add_observations(self._settings(host), [again], timeout_seconds=0),
        ):
            entry.state, entry.is_safe = "acked", True
            check(entry.mark in self.books.read_marks(), 6, "imported, and lost:", entry)

    # --- the operator --------------------------------------------------------------------------

    def _say(self, host: Host, record: Control, policy: Rule | None = None) -> None:
        def call() -> None:
            with self._ledger(host) as ledger, ledger.settling(0) as settlement:
                if policy is not None:
                    settlement.keep_rule_set(policy.rules)
                    for book in policy.books:
                        settlement.keep_price_book(book)
                settle(settlement, [], [record])

        if self._settler_call(host, call):
            self.controls.append(record)

    def change_policy(self, host: Host, rule: Rule, effective_from: int) -> None:
        """Other rules or prices from then on."""
        at = effective_from + 1 + next(self.numbers)  # no two from one moment
        self._say(host, policy_record(rule._replace(effective_from=at)), rule)

    def own_session(self, host: Host, session: str, tenant: str) -> None:
        """A directory row."""
        at = self.computer.wall_ns + next(self.numbers)
        self._say(host, SessionOwner(session, tenant, "operator", at))

    def assign(self, host: Host, event: str, tenant: str) -> None:
        """A correction: whose an event is."""
        at = self.computer.wall_ns + next(self.numbers)
        self._say(host, Assignment(event, tenant, "operator", "because", at))

    def close_period(self, host: Host, period: str) -> None:
        """The books up to this month are sealed."""

        def call() -> None:
            with self._ledger(host) as ledger, suppress(CloseError):
                now_ns = self.computer.wall_ns
                close = close_period(
                    ledger, period, "operator", "because", now_ns, timeout_seconds=0
                )
                self.controls.append(close)

        self._settler_call(host, call)

    def deliver(self, host: Host, sink: str) -> None:
        """A sink takes what it has not taken yet."""

        def call() -> None:
            with self._ledger(host) as ledger:
                page = ledger.postings_after(ledger.cursors().get(sink, 0), 3)
                if page:
                    with ledger.settling(0) as settlement:
                        settlement.move_cursor(sink, page[-1][0])

        self._settler_call(host, call)

    def rebuild(self, host: Host) -> None:
        """Build the books anew, in place."""

        def call() -> None:
            try:
                rebuild.rebuild(self._settings(host))
            except rebuild.Differs as error:
                raise Violation(19, f"rebuilt books differ: {error.differences}") from error

        self.books.check_changes()
        self._settler_call(host, call)
        self.books.check_changes(is_rebuilt=True)

    # --- the machine below ---------------------------------------------------------------------

    def race(self, schedule: Sequence[int], *jobs: Callable[[], None]) -> None:
        """Several at once."""
        before, self.is_racing = self.is_racing, True
        try:
            Race(self.computer, schedule).run(*jobs)
        finally:
            self.is_racing = before

    def break_at(self, fault: Fault) -> None:
        """Let something happen at a later call."""
        self.computer.fault = fault

    def pass_time(self, wall_ns: int, monotonic_ns: int) -> None:
        """Time goes by; the wall clock may be set to anything."""
        self.computer.wall_ns = max(HOUR_NS, self.computer.wall_ns + wall_ns)
        self.computer.monotonic_now_ns += monotonic_ns
