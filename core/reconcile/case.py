"""One grain under investigation: both sides, what is left of the difference, what explained it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from costspan.core.reconcile.billed import Billed
from costspan.core.reconcile.recorded import Noted, Recorded
from costspan.core.reconcile.variance import Amounts, Evidence, Grain


class Finding(msgspec.Struct, frozen=True):
    """What one cause explains of a grain, in all three units."""

    kind: str
    amounts: Amounts
    text: str
    evidence: Evidence
    is_shared: bool


class Case(msgspec.Struct):
    """A grain, and what of its difference (invoice - ledger) no finding explains yet.

    Either side is None where it has nothing there. What cannot be compared is 0 in `left`.
    """

    grain: Grain
    recorded: Recorded | None
    billed: Billed | None
    difference: Amounts
    left: Amounts
    findings: list[Finding] = []
    has_requests: bool = True
    has_tokens: bool = True

    @classmethod
    def of(
        cls,
        grain: Grain,
        recorded: Recorded | None,
        billed: Billed | None,
        has_requests: bool,
        has_tokens: bool,
    ) -> Case:
        """The case before anything is found."""
        theirs = billed.amounts if billed else Amounts()
        ours = recorded.amounts if recorded else Amounts()
        whole = theirs.minus(ours)
        compared = Amounts(
            whole.requests if has_requests else 0,
            whole.tokens if has_tokens else 0,
            whole.money,
        )
        return cls(
            grain=grain,
            recorded=recorded,
            billed=billed,
            difference=compared,
            left=compared,
            has_requests=has_requests,
            has_tokens=has_tokens,
        )

    def take(
        self,
        kind: str,
        amounts: Amounts,
        text: str,
        evidence: Evidence | None = None,
        is_shared: bool = False,
    ) -> None:
        """Let a cause explain this much; nothing is not noted."""
        amounts = Amounts(
            amounts.requests if self.has_requests else 0,
            amounts.tokens if self.has_tokens else 0,
            amounts.money,
        )
        if amounts != Amounts():
            found = Finding(kind, amounts, text, evidence or self.evidence(), is_shared)
            self.findings.append(found)
            self.left = self.left.minus(amounts)

    def count(self, kind: str) -> int:
        """How many events of a kind were recorded here."""
        return self.recorded.count(kind) if self.recorded else 0

    def noted(self, kinds: Iterable[str]) -> Noted:
        """The events of some kinds."""
        total = Noted()
        for kind in kinds:
            if self.recorded and kind in self.recorded.noted:
                total.merge(self.recorded.noted[kind])
        return total

    def evidence(self, kinds: Sequence[str] = (), rows: tuple[str, ...] = ()) -> Evidence:
        """The lines of the grain, and events of some kinds."""
        noted, billed = self.noted(kinds), self.billed
        return Evidence(
            tuple(noted.events),
            noted.count,
            tuple(billed.lines) if billed else (),
            billed.lines_count if billed else 0,
            rows,
        )
