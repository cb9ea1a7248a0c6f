"""What a host says its calls cost, beside what the books say: every difference has a cause.

A row is compared when all of them are in, with the event that it became, or that it met: what the
books hold then is what they knew better, and no order of the rows changes the report.
"""

from __future__ import annotations

import msgspec

from costspan.core.backfill.causes import cause_of
from costspan.core.backfill.claim import Told
from costspan.core.prices import Prices
from costspan.core.settle.entries import Settled

UNMATCHED_MAX = 1000
"""So many rows that are in no event are named; the others are counted."""


class Line(msgspec.Struct):
    """Rows that have something in common: what the host says they cost and what the books say.

    Amounts are pico-USD. `unknown` is how many of the rows have no cost in the books.
    """

    rows: int = 0
    theirs: int = 0
    ours: int = 0
    unknown: int = 0

    def add(self, theirs: int, ours: int, *, unknown: bool = False) -> None:
        """Count one row."""
        self.rows += 1
        self.theirs += theirs
        self.ours += ours
        self.unknown += unknown


class Comparison:
    """Sums of what was compared: the differences add up to the whole, exactly.

    Attributes:
        differences: by cause and model.
        owners: by owner and bucket, as the books decided.
        places: of the rows that named a tenant: by where it stood.
        unattributed: by why it is nobody's.
        all: every row.
        met: how many rows are on an event that somebody else saw too.
        unmatched: the names of rows that are in no event, as far as they are kept.
    """

    def __init__(self) -> None:
        self.differences: dict[tuple[str, str], Line] = {}
        self.owners: dict[tuple[str, str], Line] = {}
        self.places: dict[str, Line] = {}
        self.unattributed: dict[str, Line] = {}
        self.all = Line()
        self.met = 0
        self.unmatched: list[str] = []

    def add(self, told: Told, found: Settled | None, prices: Prices | None, rows: int) -> None:
        """Compare one row with the event it is part of.

        Args:
            told: The row.
            found: The event; None if the row is in no event.
            prices: The books in force when the event started.
            rows: How many rows of this host the event has; the event's cost is this row's once.
        """
        theirs = told.said.spend or 0
        if found is None:
            if len(self.unmatched) < UNMATCHED_MAX:
                self.unmatched.append(told.oid)
            self.all.add(theirs, 0, unknown=True)
            self.differences.setdefault(("unmatched", ""), Line()).add(theirs, 0, unknown=True)
            return
        self.met += len(found.event.oid_names) > rows
        decision = found.decision
        # Only the row that the event has its usage from answers for its cost.
        answers = rows <= 1 or _is_first(told, found)
        cost = None if decision is None else decision.cost
        ours = (cost or 0) if answers else 0
        unknown = cost is None
        lines = [self.all]
        if told.said.place is not None:
            lines.append(self.places.setdefault(told.said.place, Line()))
        if decision is not None:
            whose = (decision.owner, decision.ruling.bucket)
            lines.append(self.owners.setdefault(whose, Line()))
            if decision.owner == "@unattributed":
                reason = told.said.no_tenant or "the books did not believe the row's tenant"
                lines.append(self.unattributed.setdefault(reason, Line()))
        cause = cause_of(told, found, cost, prices) if answers else "one_call_of_several_rows"
        facts = found.event.facts
        model = facts.executed_model or facts.requested_model or ""
        lines.append(self.differences.setdefault((cause, model), Line()))
        for line in lines:
            line.add(theirs, ours, unknown=unknown)


def _is_first(told: Told, found: Settled) -> bool:
    source = told.oid.partition("/")[0] + "/"
    same = (name for name in found.event.oid_names if name.startswith(source))
    return told.oid == min(same, default=told.oid)
