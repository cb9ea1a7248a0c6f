"""The merge, field by field, as the table of DESIGN.md section 2 reads: the oracle of the fast one.

Nothing here is shared with `costspan.core.join` but the types: orders, sweeps and outcomes are
spelled out again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from costspan.core.join import Event
from costspan.core.join.identity import Reach, Spoken
from costspan.core.schema import Observation, Outcome, oid_of

FROM_PROVIDER = {"provider": 0, "gateway": 1, "sdk": 2, "otel": 2, "framework": 3, "manual": 4}
TRUST = (
    *("assignment", "principal", "signed", "delegating_principal", "context", "metadata"),
    None,
)

BY_PROVIDER = tuple(
    "executed_model provider provider_account deployment region tier provider_billed fault"
    " error_type cache fill_event avoided_cost flat_cost host_cost response_id route route_reason"
    " ended_at price_book period effective_period".split()
)
BY_USER = tuple(
    "requested_model delivered_usage user agent feature workload labels members shared"
    " shared_prefix policy_owner kind name tool_call_id request_id client_request_id trace_id"
    " trace_origin span_id hops prompt_template prompt_hash attributes client_claims".split()
)
OWN_ONLY = ("attempt", "retry_of", "retry_reason", "attempts_hidden")
OF_SHARED = tuple(
    "user agent feature workload labels members shared shared_prefix policy_owner request_id"
    " client_request_id trace_id trace_origin client_claims".split()
)


def merge(event_id: str, everybody: Sequence[Spoken]) -> Event:
    """The event that these observations make."""
    spoken = [each for each in everybody if not is_sweep(each.observation)]
    by_provider = sorted(spoken, key=lambda each: order(each.observation, 1))
    by_user = sorted(spoken, key=lambda each: order(each.observation, -1))
    full = [each.observation for each in by_provider if each.reach != Reach.SHARED]
    own = [each.observation for each in by_provider if each.reach == Reach.OWN]
    users = [each.observation for each in by_user]

    facts: dict[str, Any] = {}
    for name in BY_PROVIDER:
        facts[name] = first(name, full)
    for name in BY_USER:
        may = [s for s, reach in by_user if reach != Reach.SHARED or name in OF_SHARED]
        facts[name] = first(name, may)
    for name in OWN_ONLY:
        facts[name] = first(name, own)
    facts |= usage(full) | owner(users) | cause(users)
    results = [s.provider_result for s in full if s.provider_result is not None]
    known = [result for result in results if result != "unknown"]
    facts["provider_result"] = (known or results or [None])[0]
    facts["delivery"] = first("delivery", own_first(by_user))
    for name in ("started_at", "recorded_at"):
        times = [getattr(s, name) for s in own or full if getattr(s, name) is not None]
        facts[name] = min(times, default=None)
    facts["operation_ids"] = union(each.observation.operation_ids for each in spoken)
    facts["flags"] = union(each.observation.flags for each in spoken)
    if any(s.attempt_id == event_id for s in own):
        facts["attempt_id"] = event_id

    is_open = any(s.phase == "start" for s in full) and not any(map(closes, full))
    is_swept = is_open and any(reach == Reach.OWN and is_sweep(s) for s, reach in everybody)
    if is_swept:
        facts["flags"] = union([facts["flags"], ("swept",)])
        facts["provider_result"] = facts["provider_result"] or "unknown"
        facts["usage_source"] = facts["usage_source"] or "missing"
    return Event(
        id=event_id,
        facts=Observation(**facts),
        outcome=outcome(facts["provider_result"], facts["delivery"]),
        is_open=is_open and not is_swept,
        is_swept=is_swept,
        operation_names=facts["operation_ids"],
        oid_names=tuple(sorted(oid_of(each.observation) for each in everybody)),
        span_names=union([(s.span_id,) for s in full if s.span_id is not None]),
    )


def order(seen: Observation, sign: int) -> tuple[bool, int, bool, int, str]:
    """Nearest first (a sweep last); ties: END before START, greatest seq, least oid."""
    oid = oid_of(seen)
    seq = seen.seq
    if seq is None:
        digits = oid.rpartition(":")[2]
        seq = int(digits) if digits.isdecimal() and len(digits) < 19 else -1
    near = sign * FROM_PROVIDER[seen.layer] if seen.source != "sweep" else 0
    return (seen.source == "sweep", near, seen.phase == "start", -seq, oid)


def first(name: str, ordered: Sequence[Observation]) -> Any:
    """The first that is not null."""
    return next((v for seen in ordered if (v := getattr(seen, name)) is not None), None)


def union(groups: Any) -> tuple[str, ...]:
    """A set, in one order."""
    return tuple(sorted({value for group in groups for value in group}))


def own_first(by_user: Sequence[Spoken]) -> list[Observation]:
    """The attempt's own word before anybody else's."""
    return [each.observation for each in sorted(by_user, key=lambda e: e.reach != Reach.OWN)]


def usage(full: Sequence[Observation]) -> dict[str, Any]:
    """Provider-reported > estimated > missing; then the layer nearest the provider; whole."""

    def source(seen: Observation) -> str:
        return "missing" if not seen.usage else seen.usage_source or "provider"

    said = [s for s in full if s.usage is not None or s.usage_source is not None]
    if not said:
        return {"usage": None, "usage_source": None, "raw_usage": None}
    best = min(said, key=lambda s: ("provider", "estimated", "missing").index(source(s)))
    return {
        "usage": best.usage or None,
        "usage_source": source(best),
        "raw_usage": best.raw_usage,
    }


def owner(by_user: Sequence[Observation]) -> dict[str, Any]:
    """Tenant by trust; session and parent whole, those a caller chose being absent."""
    facts: dict[str, Any] = {}
    owned = [s for s in by_user if s.tenant is not None]
    if owned:
        best = min(owned, key=lambda s: TRUST.index(s.tenant_source))
        facts = {"tenant": best.tenant, "tenant_source": best.tenant_source}
    for name in ("session", "parent"):
        ours = [s for s in by_user if getattr(s, f"{name}_origin") != "caller"]
        chosen = next((s for s in ours if getattr(s, name) is not None), None)
        if chosen is not None:
            facts[name] = getattr(chosen, name)
            facts[f"{name}_origin"] = getattr(chosen, f"{name}_origin")
    return facts


def cause(by_user: Sequence[Observation]) -> dict[str, Any]:
    """Said before structure before inferred, each of the two on its own."""
    facts: dict[str, Any] = {}
    trust = {"explicit": 0, None: 0, "structure": 1, "inferred": 2}
    for name in ("cause", "initiator"):
        said = [s for s in by_user if getattr(s, name) is not None]
        if said:
            best = min(said, key=lambda s: trust[s.cause_source])
            facts[name] = getattr(best, name)
            if name == "cause":
                facts["cause_source"] = best.cause_source
    return facts


def closes(seen: Observation) -> bool:
    """An END that brings usage or a result."""
    telling = (
        *("provider_result", "usage", "usage_source", "flat_cost", "provider_billed", "cache"),
        "error_type",
    )
    return seen.phase == "end" and any(getattr(seen, name) is not None for name in telling)


def is_sweep(seen: Observation) -> bool:
    """An END of source sweep that only says unknown, of an event it names."""
    silent = (
        *("usage", "flat_cost", "provider_billed", "cache", "error_type", "delivery", "tenant"),
        "members",
    )
    return (
        (seen.source, seen.phase, seen.provider_result) == ("sweep", "end", "unknown")
        and (seen.attempt_id is not None or seen.operation_ids != ())
        and all(getattr(seen, name) is None for name in silent)
    )


def outcome(result: str | None, delivery: Any) -> Outcome:
    """A delivery other than delivered wins over ok and unknown, never over failed."""
    if result != "failed" and delivery not in (None, "delivered"):
        return delivery  # type: ignore[no-any-return]  # a Delivery, of which these are Outcomes
    return "failed" if result == "failed" else "ok" if result == "ok" else "unknown"
