"""One set of facts of everything that speaks of an event. A null says nothing.

`usage` with its source and raw form, `members`, `session` with its origin and `parent` with its
origin come whole from one observation; every other field is won on its own, in the order that
the field's row of the table gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from costspan.core.join.identity import Reach, Spoken
from costspan.core.join.precedence import (
    CAUSE_TRUST,
    SWEPT,
    TRUST,
    USAGE_TRUST,
    closes,
    derive_outcome,
    is_sweep,
    sort_key,
)
from costspan.core.schema import Observation, Outcome, oid_of

_BY_PROVIDER = tuple(
    "executed_model provider provider_account deployment region tier provider_billed fault"
    " error_type cache fill_event avoided_cost flat_cost host_cost response_id route route_reason"
    " ended_at price_book period effective_period".split()
)
_BY_USER = tuple(
    "requested_model delivered_usage user agent feature workload labels members shared"
    " shared_prefix policy_owner kind name tool_call_id request_id client_request_id trace_id"
    " trace_origin span_id hops prompt_template prompt_hash attributes client_claims".split()
)
_OWN_ONLY = ("attempt", "retry_of", "retry_reason", "attempts_hidden")
_SHARED = frozenset(
    "user agent feature workload labels members shared shared_prefix policy_owner request_id"
    " client_request_id trace_id trace_origin client_claims".split()
)
"""What evidence on several attempts may say of each (with tenant, cause, session, parent and
delivery, which have orders of their own)."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt as everybody together saw it.

    `facts` holds the merged fields; `names` is every name a `parent` may use for this event:
    operation ids, the oids of its observations, span ids (the attempt id is the event's id).
    `is_open`: it started and has not ended; `is_swept`: nor did it in all the time it was given.
    """

    id: str
    facts: Observation
    outcome: Outcome
    is_open: bool
    is_swept: bool = False
    operation_names: tuple[str, ...]
    oid_names: tuple[str, ...]
    span_names: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name of this event, its id first."""
        return (self.id, *self.operation_names, *self.oid_names, *self.span_names)

    @property
    def at_ns(self) -> int | None:
        """When it started (ns UTC), else the best that is known of when it was."""
        return self.facts.started_at or self.facts.ended_at or self.facts.recorded_at


def merge(event_id: str, spoken: Sequence[Spoken]) -> Event:
    """The event that these observations make; pure, and free of the order they come in.

    A sweep closes an event that would be open without it, as unknown, and says nothing else. Where
    anybody saw an end, it says nothing at all.
    """
    everybody = spoken
    spoken = [each for each in everybody if not is_sweep(each.observation)]
    by_provider = sorted(spoken, key=lambda each: sort_key(each.observation, "provider"))
    by_user = sorted(spoken, key=lambda each: sort_key(each.observation, "user"))
    facts: dict[str, Any] = {"flags": _union(each.observation.flags for each in spoken)}
    full = [each.observation for each in by_provider if each.reach != Reach.SHARED]
    own = [each.observation for each in by_provider if each.reach == Reach.OWN]

    _first(facts, _BY_PROVIDER, full)
    for name in _BY_USER:
        for seen, reach in by_user:
            value = getattr(seen, name)
            if value is not None and (reach != Reach.SHARED or name in _SHARED):
                facts[name] = value
                break
    _first(facts, _OWN_ONLY, own)
    _usage(facts, full)
    _provider_result(facts, full)
    _delivery(facts, by_user)
    _owner(facts, [each.observation for each in by_user])
    _cause(facts, [each.observation for each in by_user])
    _times(facts, own or full)
    operations = _union(each.observation.operation_ids for each in spoken)
    facts["operation_ids"] = operations
    if any(seen.attempt_id == event_id for seen in own):
        facts["attempt_id"] = event_id
    is_open = any(seen.phase == "start" for seen in full) and not any(map(closes, full))
    is_swept = is_open and any(reach == Reach.OWN and is_sweep(seen) for seen, reach in everybody)
    if is_swept:
        facts["flags"] = tuple(sorted({*facts["flags"], SWEPT}))
        facts.setdefault("provider_result", "unknown")
        facts.setdefault("usage_source", "missing")
    merged = Observation(**facts)
    return Event(
        id=event_id,
        facts=merged,
        outcome=derive_outcome(merged.provider_result, merged.delivery),
        is_open=is_open and not is_swept,
        is_swept=is_swept,
        operation_names=operations,
        oid_names=tuple(sorted(oid_of(each.observation) for each in everybody)),
        span_names=_union((s.span_id,) for s in full if s.span_id is not None),
    )


def _union(groups: Any) -> tuple[str, ...]:
    return tuple(sorted({value for group in groups for value in group}))


def _first(facts: dict[str, Any], names: Sequence[str], ordered: Sequence[Observation]) -> None:
    for seen in ordered:
        for name in names:
            if name not in facts:
                value = getattr(seen, name)
                if value is not None:
                    facts[name] = value


def _usage(facts: dict[str, Any], full: Sequence[Observation]) -> None:
    """Provider-reported > estimated > missing; then the layer nearest the provider."""
    telling = [s for s in full if s.usage is not None or s.usage_source is not None]
    if not telling:
        return
    best = min(telling, key=lambda s: USAGE_TRUST["missing" if not s.usage else s.usage_source])
    facts["usage"] = best.usage or None
    facts["usage_source"] = "missing" if not best.usage else best.usage_source or "provider"
    facts["raw_usage"] = best.raw_usage


def _provider_result(facts: dict[str, Any], full: Sequence[Observation]) -> None:
    results = [seen.provider_result for seen in full if seen.provider_result is not None]
    known = [result for result in results if result != "unknown"]
    if results:
        facts["provider_result"] = known[0] if known else results[0]


def _delivery(facts: dict[str, Any], by_user: Sequence[Spoken]) -> None:
    """Nearest the user; but evidence never overrides what the attempt's own instrument says."""
    said = [each for each in by_user if each.observation.delivery is not None]
    own = [each for each in said if each.reach == Reach.OWN]
    if said:
        facts["delivery"] = (own or said)[0].observation.delivery


def _owner(facts: dict[str, Any], by_user: Sequence[Observation]) -> None:
    """Tenant by trust; session and parent whole, those a caller chose being absent."""
    owned = [seen for seen in by_user if seen.tenant is not None]
    if owned:
        best = min(owned, key=lambda seen: TRUST[seen.tenant_source])
        facts["tenant"] = best.tenant
        facts["tenant_source"] = best.tenant_source
    for name in ("session", "parent"):
        origin = f"{name}_origin"
        for seen in by_user:
            if getattr(seen, name) is not None and getattr(seen, origin) != "caller":
                facts[name] = getattr(seen, name)
                facts[origin] = getattr(seen, origin)
                break


def _cause(facts: dict[str, Any], by_user: Sequence[Observation]) -> None:
    for name in ("cause", "initiator"):
        said = [seen for seen in by_user if getattr(seen, name) is not None]
        if said:
            best = min(said, key=lambda seen: CAUSE_TRUST[seen.cause_source])
            facts[name] = getattr(best, name)
            if name == "cause":
                facts["cause_source"] = best.cause_source


def _times(facts: dict[str, Any], instrument: Sequence[Observation]) -> None:
    starts = [seen.started_at for seen in instrument if seen.started_at is not None]
    records = [seen.recorded_at for seen in instrument if seen.recorded_at is not None]
    if starts:
        facts["started_at"] = min(starts)
    if records:
        facts["recorded_at"] = min(records)


def disagreements(spoken: Sequence[Spoken]) -> dict[str, dict[str, Any]]:
    """Field -> oid -> value, where two observations that may speak of it say different things.

    An inferred cause is never a disagreement. For `explain`: the merge itself needs none of this.
    """
    found: dict[str, dict[str, Any]] = {}
    watched = (*_BY_PROVIDER, *_BY_USER, *_OWN_ONLY, "usage", "provider_result", "delivery")
    for name in (*watched, "tenant", "cause", "initiator"):
        if name == "ended_at":
            continue  # no claim: every instrument has a clock of its own
        said: dict[str, Any] = {}
        for seen, reach in spoken:
            value = getattr(seen, name)
            inferred = name in ("cause", "initiator") and seen.cause_source == "inferred"
            if value is None or inferred or reach == Reach.SHARED or is_sweep(seen):
                continue
            said[oid_of(seen)] = value
        if len({msgspec.json.encode(value, order="sorted") for value in said.values()}) > 1:
            found[name] = said
    return found
