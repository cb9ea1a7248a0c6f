"""A policy and calls of a known cost, settled as they come, in whatever ledger."""

from __future__ import annotations

from typing import Any

from costspan.core.decide import load_profile
from costspan.core.journal.records import Policy
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger


def begin(ledger: Ledger) -> None:
    with ledger.settling(1) as settlement:
        rules = load_profile("billing")
        settlement.keep_rule_set(rules)
        settle(settlement, [], [Policy(rules.sha256, (), 0, "test")])


def keep(ledger: Ledger, *observations: Observation) -> None:
    with ledger.settling(1) as settlement:
        settle(settlement, observations)


def flat(number: int, usd: str = "1", attempt: str | None = None, **facts: Any) -> Observation:
    return Observation(
        oid=f"w:{number}", attempt_id=attempt or f"a{number}", tenant="acme", provider_result="ok",
        flat_cost=usd, **facts,
    )  # fmt: skip
