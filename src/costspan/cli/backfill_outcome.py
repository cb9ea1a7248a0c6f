"""What became of another system's rows, as it is counted while they are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from costspan.core.backfill.compare import Comparison
from costspan.core.settle import Report
from costspan.plugins.backfill.parts import Parts

REJECTED_KEPT_MAX = 10_000
"""So many rejected rows are named; the others are counted (--rejected FILE has all of them)."""


class Outcome:
    """Everything that is to be said of one run.

    Attributes:
        kind: what the source is an export of.
        files: its files, each once; none where it is a table.
        again: files that are one of these: (path, the one that was read).
        ledger_url: the ledger's, without a password.
        tenant_from: where the tenant was looked for, best first.
        rows: how many rows were read.
        rejected: where rejected rows stand, and why, as far as they are kept.
        rejected_rows: how many there are.
        torn_rows: how many of them are no rows at all.
        withheld: sums that are others in the books and did not go in, as far as they are kept.
        withheld_sums: how many there are.
        left_out: rows that are no calls of a model, by reason.
        flags: what could not be used of rows that went in, and how often.
        first_ns: when the first call began, ns UTC.
        last_ns: when the last one did.
        settled: what the settler did.
        compared: the amounts.
        seconds: how long it took.
    """

    def __init__(
        self, kind: str, parts: Parts, ledger_url: str, tenant_from: Sequence[str]
    ) -> None:
        self.kind = kind
        self.files = [str(path) for path in parts.files]
        self.again = [(str(path), str(read)) for path, read in parts.again]
        self.ledger_url = ledger_url
        self.tenant_from = tuple(tenant_from)
        self.rows = 0
        self.rejected: list[tuple[str, str]] = []
        self.rejected_rows = 0
        self.torn_rows = 0
        self.withheld: list[str] = []
        self.withheld_sums = 0
        self.left_out: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self.settled = Report()
        self.compared = Comparison()
        self.seconds = 0.0

    def reject(self, where: str, reason: str) -> None:
        """Count a rejected row."""
        self.rejected_rows += 1
        if len(self.rejected) < REJECTED_KEPT_MAX:
            self.rejected.append((where, reason))

    def withhold(self, said: str) -> None:
        """Count a sum that did not go in."""
        self.withheld_sums += 1
        if len(self.withheld) < REJECTED_KEPT_MAX:
            self.withheld.append(said)

    def began(self, at_ns: int | None) -> None:
        """Note when a call began."""
        if at_ns is not None:
            self.first_ns = at_ns if self.first_ns is None else min(self.first_ns, at_ns)
            self.last_ns = at_ns if self.last_ns is None else max(self.last_ns, at_ns)
