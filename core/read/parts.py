"""What a ledger keeps beside its events: rule sets, price rows, problems, postings, invoices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from costspan.core.decide import Decision, RuleSet
from costspan.core.decide.rules import TableName, Tried
from costspan.core.join import Event
from costspan.core.journal.records import Policy, Restatement
from costspan.core.prices import PriceBook, PriceRow, Prices
from costspan.core.prices.charges import ChargeEntry
from costspan.core.read.billed import Bills
from costspan.core.read.corrections import Corrections, Entry, Months, entry_of
from costspan.core.read.priced import Priced, priced
from costspan.core.read.reasons import Reasons
from costspan.core.settle.corrections import restated
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.policy import InForce, Policies

_TABLES_IN_ORDER: tuple[TableName, ...] = get_args(TableName)
POLICIES_MAX = 4
"""Of so many policies the prices are put beside those that were in force."""
CHARGED_BY = "CB:"
"""The flag of a decision that an entry of a charge book decided a charge; its id follows."""


class Parts:
    """The look-ups of one explanation; each thing is asked for once."""

    def __init__(self, ledger: Ledger, events: Mapping[str, Settled]) -> None:
        self.reasons = Reasons(ledger)
        self.corrections = Corrections(ledger, events.values())
        self.bills = Bills(ledger)
        self._ledger = ledger
        self._reading = ledger.reading()
        self._months = Months(ledger.closes())
        self._policies = Policies(self._reading)
        self._restated = restated(self._reading, events)
        self._rules: dict[str, RuleSet] = {}
        self._tried: dict[str, tuple[Tried, ...]] = {}
        self._rows: dict[str, tuple[PriceRow, PriceBook] | None] = {}
        self._problems: dict[str, list[str]] = {}
        self._kept: list[Policy] | None = None
        self._has_archive: bool | None = None
        names = {
            name for each in events.values() for name in (each.event.id, *each.event.oid_names)
        }
        for kind, oid, event_id in ledger.problems(names):
            self._problems.setdefault(event_id or oid, []).append(f"{kind} of {oid}")

    def tried(self, decision: Decision) -> tuple[Tried, ...]:
        """Every rule that was tried, table by table."""
        key = decision.ruling.key
        if key not in self._tried:
            sha256 = decision.rules_sha256
            if sha256 not in self._rules:
                self._rules[sha256] = self._reading.rule_set(sha256)
            explain_table = self._rules[sha256].explain
            self._tried[key] = tuple(
                tried
                for table in _TABLES_IN_ORDER
                for tried in explain_table(table, decision.features)
            )
        return self._tried[key]

    def problems_of(self, event: Event) -> tuple[str, ...]:
        """What was refused of an event, or came twice differently."""
        names = (event.id, *event.oid_names)
        return tuple(problem for name in names for problem in self._problems.get(name, ()))

    def priced(self, row_id: str | None, each: Settled) -> Priced | None:
        """A price row and what it makes of the event's usage; None if there is none."""
        if row_id is None:
            return None
        if row_id not in self._rows:
            self._rows[row_id] = self._ledger.price_row(row_id)
        found = self._rows[row_id]
        if found is None:
            return None
        row, book = found
        prices = self._in_force(each).prices
        return priced(row, book, each, prices, self._others(each, prices))

    def _in_force(self, each: Settled) -> InForce:
        return self._policies.at(each.event, self._restated.get(each.event.id))

    def _others(self, each: Settled, prices: Prices) -> Iterator[tuple[int, Prices]]:
        """The price books of the ledger's other policies, the latest ones."""
        if self._kept is None:
            self._kept = self._reading.policies()[-POLICIES_MAX:]
        for policy in self._kept:
            instead = Restatement(None, None, None, policy.books, policy.by, "", 0)
            found = self._policies.at(each.event, instead).prices
            if found.books != prices.books:
                yield policy.effective_from, found

    def charge_entries(self, decision: Decision, each: Settled) -> tuple[ChargeEntry, ...]:
        """The entries of the charge book in force that decided a charge."""
        ids = {
            flag.removeprefix(CHARGED_BY) for flag in decision.flags if flag.startswith(CHARGED_BY)
        }
        book = self._in_force(each).charges if ids else None
        return () if book is None else tuple(one for one in book.entries if one.id in ids)

    def archived(self, event: Event) -> int:
        """How many observations of an event are in an archive, and say nothing here."""
        if self._has_archive is None:
            self._has_archive = self._reading.has_archive()
        return len(self._reading.archived(event.oid_names)) if self._has_archive else 0

    def entries(self, event_id: str) -> Iterator[Entry]:
        """What was posted for an event, oldest first."""
        for posting in self._ledger.postings(event_id):
            yield entry_of(posting, self._months)
