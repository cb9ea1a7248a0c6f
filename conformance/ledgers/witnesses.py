"""Two instruments that see the same calls: a framework in the application, and a gateway.

Neither knows the other. The gateway knows what a call cost and not for whom; the application knows
for whom, and has ids of its own. What joins them is the provider's id of the response, or the id
that the application sent along.
"""

from __future__ import annotations

from costspan.conformance.ledgers.books import FEBRUARY
from costspan.core.join.gateways import DOWNSTREAM
from costspan.core.schema import Observation


def from_gateway(number: int) -> Observation:
    """What the gateway saw: an attempt of its own, or the one whose id was sent along."""
    attempt = f"app{number}" if number % 3 == 0 else f"gateway{number}"
    return Observation(
        oid=f"gateway:{number}", attempt_id=attempt, response_id=f"resp-{number}",
        layer="gateway", provider_result="ok", flat_cost="1", started_at=FEBRUARY,
    )  # fmt: skip


def from_app(number: int) -> Observation:
    """What the application saw: whose call it is, and which one below which."""
    return Observation(
        oid=f"app:{number}", attempt_id=f"app{number}", operation_ids=(f"run:{number}",),
        response_id=f"resp-{number}", layer="framework", tenant=f"t{number % 7}",
        flags=(DOWNSTREAM,), started_at=FEBRUARY,
    )  # fmt: skip
