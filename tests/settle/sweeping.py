"""Calls that start and end or do not, and a sweep of everything that is open."""

from __future__ import annotations

from typing import Any

from journals import (
    GATEWAY,
    JANUARY,
)
from msgspec.structs import replace

from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.sweep import Ttl, sweep

LATER = 2**62
SECOND = 10**9
HOUR = 3600 * SECOND
NOW = 1_800_000_000 * SECOND


def sweep_all(ledger: Ledger, now_ns: int = LATER, ttl: Ttl | None = None) -> int:
    """How many were swept."""
    with ledger.settling(0) as settlement:
        everything = Ttl.of_everything(0)
        return sweep(settlement, now_ns, ttl or everything, 100, (GATEWAY,)).observations


def keep(ledger: Ledger, *observations: Observation) -> None:
    with ledger.settling(0) as settlement:
        settle(settlement, observations)


def start(number: int, **facts: Any) -> Observation:
    usual: dict[str, Any] = {
        "attempt_id": f"a{number}", "kind": "model", "requested_model": "gpt-4o",
        "tenant": "acme", "tenant_source": "context", "started_at": JANUARY, "layer": "gateway",
        "source": "test",
    }  # fmt: skip
    return Observation(oid=f"w:{number}", phase="start", **{**usual, **facts})


def end(number: int, **facts: Any) -> Observation:
    usual = {"provider_result": "ok", "usage": {"input": 1000}, "executed_model": "gpt-4o"}
    return replace(start(number), oid=f"w:{100 + number}", phase="end", **{**usual, **facts})
