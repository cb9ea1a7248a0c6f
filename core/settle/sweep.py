"""The sweeper: a start without an end becomes a visible unknown, by a record like any other.

The ledger's clock decides only when that record is made; what it does to the books follows from
the journal alone, and any real end beats it, whenever it comes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from costspan.core.join import Event
from costspan.core.join.precedence import SWEEP
from costspan.core.schema import Observation
from costspan.core.settle.settle import Report, settle
from costspan.core.settle.settlement import Settlement

Awaited = Literal["call", "batch"]
"""What an open event waits for: the end of a call, or a batch job, which takes a day."""

BATCH_TTL_SECONDS = 26 * 3600
"""Providers give a batch 24 hours; then whoever polls it must see that it is over."""


class Ttl(NamedTuple):
    """How long an event may be open before it is swept, in ns."""

    call_ns: int
    batch_ns: int

    @classmethod
    def of_settings(cls, open_ttl_seconds: int) -> Ttl:
        """That of the setting `open_ttl`; a batch is given its day in any case."""
        batch_seconds = max(open_ttl_seconds, BATCH_TTL_SECONDS)
        return cls(open_ttl_seconds * 10**9, batch_seconds * 10**9)

    @classmethod
    def of_everything(cls, seconds: int) -> Ttl:
        """One for whatever is open, as an operator asks for it."""
        return cls(seconds * 10**9, seconds * 10**9)


def awaited(event: Event) -> Awaited | None:
    """What an event waits for; None if it is not open, or has no name that an end could bear.

    A start that names neither attempt nor operation can never be ended: it stays open.
    """
    is_named = event.facts.attempt_id is not None or event.id in event.operation_names
    if not event.is_open or not is_named:
        return None
    return "batch" if event.facts.cause == "batch" else "call"


def sweep(
    settlement: Settlement,
    now_ns: int,
    ttl: Ttl,
    at_most: int,
    gateways: tuple[str, ...] = (),
) -> Report:
    """Sweep events that are open for longer than they may be, the oldest of each kind first.

    Args:
        settlement: The lease it happens under, so that settlers who race sweep once.
        now_ns: The time it is (ns UTC).
        ttl: How long is too long.
        at_most: How many events of either kind to sweep.
        gateways: As `settle`.

    Returns:
        What settling the sweeps did: its `observations` are the sweeps.
    """
    due = [
        *settlement.awaiting("call", max(-1, now_ns - ttl.call_ns), at_most),
        *settlement.awaiting("batch", max(-1, now_ns - ttl.batch_ns), at_most),
    ]
    found = settlement.settled(due)
    return settle(settlement, [_sweep_of(found[id].event, now_ns) for id in due], gateways=gateways)


def _sweep_of(event: Event, now_ns: int) -> Observation:
    """The record; its oid follows from the event, so it can be there only once.

    No number ends that oid: it would be taken for one of a writer's, and its neighbours missed.
    """
    is_attempt = event.facts.attempt_id is not None
    return Observation(
        oid=f"{event.id}:sweep",
        attempt_id=event.id if is_attempt else None,
        operation_ids=() if is_attempt else (event.id,),
        source=SWEEP,
        phase="end",
        provider_result="unknown",
        usage_source="missing",
        recorded_at=now_ns,
    )
