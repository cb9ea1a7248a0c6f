"""Calls of a fixed cost, a policy, and a look at the books from somebody else's connection."""

from __future__ import annotations

import psycopg

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


def flat(number: int, usd: str = "1", attempt: str | None = None, **facts: object) -> Observation:
    return Observation(
        oid=f"w:{number}", attempt_id=attempt or f"a{number}", tenant="acme", provider_result="ok",
        flat_cost=usd, **facts,
    )  # fmt: skip


def ask(url: str, sql: str) -> list[tuple[object, ...]]:
    """What somebody else's connection is answered."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = costspan")
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []
