"""Why an event has no owner, or no price: the facts that are missing, said for people."""

from __future__ import annotations

from costspan.core.decide.decision import UNATTRIBUTED
from costspan.core.prices import Prices
from costspan.core.settle.corrections import restated
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.policy import Policies


class Reasons:
    """Explains events of one ledger; what it looks up is kept."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._reading = ledger.reading()
        self._policies: Policies | None = None

    def no_owner(self, each: Settled) -> str:
        """Why (a part of) an event is unattributed."""
        facts = each.event.facts
        if (facts.members or {}).get(UNATTRIBUTED):
            return "members of the batch whose tenant ids were refused or not given"
        said: list[str] = []
        if "tenant_invalid" in facts.flags:
            said.append("its tenant id was refused (tenant_invalid)")
        if facts.parent is not None:
            known = self._ledger.named(facts.parent)
            said.append(
                f"its parent {facts.parent} names no tenant, nor does anything above"
                if known
                else f"its parent {facts.parent} is not in the ledger"
            )
        if facts.session is not None:
            said.append(f"nobody trusted says whose session {facts.session} is")
        if facts.client_claims:
            said.append("what the client claims decides nothing")
        return "; ".join(said) or "no tenant was attributed, and it has no parent and no session"

    def no_price(self, each: Settled) -> str:
        """Why the cost of an event is unknown."""
        facts = each.event.facts
        if "cost_overflow" in facts.flags or "cost_overflow" in _flags(each):
            return "its cost is beyond what one event can cost: the usage is broken"
        if not facts.usage:
            return self._no_usage(each)
        name = facts.executed_model or facts.requested_model
        if name is None:
            return "it has usage, but nobody names the model"
        prices = self._prices(each)
        at_ns = each.event.at_ns or 0
        asked = (name, facts.provider, facts.tier, facts.region, None, at_ns, facts.price_book)
        match = prices.find(*asked)
        if match is not None:
            missing = ", ".join(match.missing(facts.usage))
            return f"{match.book.id} has no rate of {match.row.model} for {missing}"
        verdicts = prices.explain(*asked)
        said = "; ".join(f"{verdict.book}: {verdict.why}" for verdict in verdicts)
        return said or "there is no price book"

    def _prices(self, each: Settled) -> Prices:
        """The books that decided the event: a restatement's before the policy's."""
        if self._policies is None:
            self._policies = Policies(self._reading)
        restatement = restated(self._reading, {each.event.id: each}).get(each.event.id)
        return self._policies.at(each.event, restatement).prices

    def _no_usage(self, each: Settled) -> str:
        facts = each.event.facts
        if "invalid_usage" in facts.flags:
            return "its usage was refused (invalid_usage)"
        if each.event.is_swept:
            return "it started and nobody saw it end: it was swept, and may have cost money"
        if each.event.outcome == "failed":
            error = f" with {facts.error_type}" if facts.error_type else ""
            return f"it failed{error}, and nobody knows whether the provider billed it"
        if each.event.outcome == "unknown":
            return "nobody saw its result"
        if each.event.outcome == "ok":
            return "no usage was reported (a stream without usage?)"
        return f"no usage was reported ({each.event.outcome})"


def _flags(each: Settled) -> tuple[str, ...]:
    return () if each.decision is None else each.decision.flags
