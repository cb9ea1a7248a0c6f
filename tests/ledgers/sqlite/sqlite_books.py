"""What the tests of the SQLite ledger share: calls of known cost, settled one by one."""

from __future__ import annotations

from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger


def keep(ledger: Ledger, *observations: Observation) -> None:
    with ledger.settling(1) as settlement:
        settle(settlement, observations)


def flat(number: int, usd: str = "1", attempt: str | None = None, **facts: object) -> Observation:
    return Observation(
        oid=f"w:{number}", attempt_id=attempt or f"a{number}", tenant="acme", provider_result="ok",
        flat_cost=usd, **facts,
    )  # fmt: skip
