"""The columns of an event's row beside its content, and the keys that it is found under."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

from costspan.core.settle.entries import Settled
from costspan.core.settle.posting import would_be
from costspan.core.settle.sweep import awaited


def place_of(each: Settled) -> tuple[Any, ...]:
    """Columns of an event's row: session, parent, started_at, request_id, trace_id."""
    event = each.event
    facts = event.facts
    return (facts.session, facts.parent, event.at_ns, facts.request_id, facts.trace_id)


def state_of(each: Settled) -> tuple[str, str | None, bool]:
    """Columns of an event's row: status, about, is_swept."""
    decision = each.decision
    about: str | None = None
    if decision is None:
        status, about = "open", awaited(each.event)
    elif decision.cost is None:
        status = "unmeasured" if "unmeasured" in decision.flags else "unpriced"
        line = would_be(each.event, decision)
        about = f"{line.effective_period} {line.owner}"
    elif not decision.is_money:
        status = "not_money"
    else:
        status = "posted" if len(each.posted) < 2 else "split"
    return status, about, each.event.is_swept


def digest_of(key: str) -> int:
    """64 signed bits that stand for a key."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
