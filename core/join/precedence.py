"""Who is believed about what: the orders of DESIGN.md section 2, "Merging observations"."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from costspan.core.schema import Observation, Outcome, oid_of

_FROM_PROVIDER = {"provider": 0, "gateway": 1, "sdk": 2, "otel": 2, "framework": 3, "manual": 4}
_FROM_USER = {layer: 4 - rank for layer, rank in _FROM_PROVIDER.items()}
_LAST = 9

SWEEP = "sweep"
"""The source of a sweeper's END: any other observation is believed before it."""
SWEPT = "swept"
"""The flag of an event that started, never ended, and was swept."""

TRUST: dict[str | None, int] = {
    "assignment": 0,
    "principal": 1,
    "signed": 2,
    "delegating_principal": 3,
    "context": 4,
    "metadata": 5,
    None: 6,
}
CAUSE_TRUST: dict[str | None, int] = {"explicit": 0, None: 0, "structure": 1, "inferred": 2}
USAGE_TRUST: dict[str | None, int] = {"provider": 0, None: 0, "estimated": 1, "missing": 2}

SortKey = tuple[int, bool, int, str]


def rank_of(seen: Observation, nearest: Literal["provider", "user"]) -> int:
    """How near its layer is; 0 is nearest, and a sweep is last from either side."""
    if seen.source == SWEEP:
        return _LAST
    return (_FROM_PROVIDER if nearest == "provider" else _FROM_USER)[seen.layer]


def sort_key(seen: Observation, nearest: Literal["provider", "user"]) -> SortKey:
    """Nearest first; ties: END before START, greatest seq, least oid."""
    seq = seen.seq if seen.seq is not None else _seq_in(oid_of(seen))
    return (rank_of(seen, nearest), seen.phase == "start", -seq, seen.oid or oid_of(seen))


def _seq_in(oid: str) -> int:
    """The sequence number that only the oid `writer:seq` says; -1 if it is no such oid."""
    digits = oid.rpartition(":")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 19 else -1


def closes(seen: Observation) -> bool:
    """Whether this END brings usage or a result; a mere verdict on the delivery does not."""
    return seen.phase == "end" and (
        seen.provider_result is not None
        or seen.usage is not None
        or seen.usage_source is not None
        or seen.flat_cost is not None
        or seen.provider_billed is not None
        or seen.cache is not None
        or seen.error_type is not None
    )


def is_sweep(seen: Observation) -> bool:
    """Whether this only says that nobody saw the end of the event it was made for.

    An END of source `sweep` that says anything more is an observation like any other, believed
    last: what it measured must not be lost.
    """
    return (
        seen.source == SWEEP
        and seen.phase == "end"
        and seen.provider_result == "unknown"
        and (seen.attempt_id is not None or bool(seen.operation_ids))
        and all(
            value is None
            for value in (
                seen.usage,
                seen.flat_cost,
                seen.provider_billed,
                seen.cache,
                seen.error_type,
                seen.delivery,
                seen.tenant,
                seen.members,
            )
        )
    )


def outcome_of(own: Iterable[Observation]) -> Outcome:
    """What came out of an attempt, by these observations alone."""
    by_provider = sorted(own, key=lambda seen: sort_key(seen, "provider"))
    results = [seen.provider_result for seen in by_provider if seen.provider_result is not None]
    known = [result for result in results if result != "unknown"]
    by_user = sorted(by_provider, key=lambda seen: sort_key(seen, "user"))
    deliveries = [seen.delivery for seen in by_user if seen.delivery is not None]
    return derive_outcome(
        known[0] if known else (results[0] if results else None),
        deliveries[0] if deliveries else None,
    )


def derive_outcome(provider_result: str | None, delivery: str | None) -> Outcome:
    """A delivery other than delivered wins over ok and unknown, never over failed.

    An END without a result is unknown.
    """
    if provider_result == "failed":
        return "failed"
    if delivery == "blocked":
        return "blocked"
    if delivery == "cancelled_by_user":
        return "cancelled_by_user"
    if delivery == "cancelled_by_platform":
        return "cancelled_by_platform"
    return "ok" if provider_result == "ok" else "unknown"
