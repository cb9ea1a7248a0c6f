"""What the tests of the signed context share: keys, a call whose cost is said, what is counted."""

from __future__ import annotations

from collections.abc import Callable

from costspan.adapter import Attempt
from costspan.carrier import Keys
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
KEYS = Keys({"k1": "s" * 32}, "k1", "front", audiences="back")
PARENT = "0a" * 16
COUNTED = ("signed_", "carrier_", "may_act_for_", "tenant_", "asgi_")


def call(name: str = "call", cost: str = "0.02") -> None:
    """The LLM call of these tests; its cost is said, so that no price list decides."""
    attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o", name=name)
    attempt.end(usage={"input": 1}, flat_cost=cost)


def new_counts(before: dict[str, int]) -> dict[str, int]:
    now = counters.snapshot()
    changed = {name: now[name] - before.get(name, 0) for name in now}
    return {name: n for name, n in changed.items() if n and name.startswith(COUNTED)}
