"""One set of facts of everything that speaks of an event. A null says nothing.

`usage` with its source and raw form, `members`, `session` with its origin and `parent` with its
origin come whole from one observation; every other field is won on its own, in the order that
the field's row of the table gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import astuple

from costspan.core.join.precedence import (
    CAUSE_TRUST,
    SWEEP,
    SWEPT,
    TRUST,
    USAGE_TRUST,
    closes,
    derive_outcome,
    is_sweep,
    rank_of,
    sort_key,
)
from costspan.core.join.reach import Reach, Spoken
from costspan.core.schema import FIELDS, SCHEMA_VERSION, Observation, Outcome, oid_of

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
SHARED_FIELDS = frozenset(
    "user agent feature workload labels members shared shared_prefix policy_owner request_id"
    " client_request_id trace_id trace_origin client_claims".split()
)
"""What evidence on several attempts may say of each (with tenant, cause, session, parent and
delivery, which have orders of their own)."""

OWN, FULL, SHARED = Reach
_MAY_SAY = {
    FULL: tuple([name not in OWN_ONLY for name in FIELDS]),
    SHARED: tuple([name in SHARED_FIELDS for name in FIELDS]),
}
"""How far an observation speaks -> of which fields it may, in wire order."""


def _at(*names: str) -> Sequence[int]:
    return [FIELDS.index(name) for name in names]


# Where the fields are that have an order of their own, and those nearest the provider.
_RESPONSE_ID, _FLAGS = _at("response_id", "flags")
_USAGE, _USAGE_SOURCE, _RAW_USAGE = _at("usage", "usage_source", "raw_usage")
_PROVIDER_RESULT, _DELIVERY = _at("provider_result", "delivery")
_TENANT, _TENANT_SOURCE = _at("tenant", "tenant_source")
_SESSION, _SESSION_ORIGIN = _at("session", "session_origin")
_PARENT, _PARENT_ORIGIN = _at("parent", "parent_origin")
_CAUSE, _CAUSE_SOURCE, _INITIATOR = _at("cause", "cause_source", "initiator")
_STARTED_AT, _RECORDED_AT = _at("started_at", "recorded_at")
_BY_PROVIDER_AT = _at(*BY_PROVIDER, *OWN_ONLY)
_AFTER_NAMES = FIELDS.index("kind")
_SAYS_NOTHING = astuple(Observation())


class Event(msgspec.Struct, frozen=True, gc=False):
    """One attempt as everybody together saw it.

    `facts` holds the merged fields; `names` is every name a `parent` may use for this event:
    operation ids, the oids of its observations, span ids (the attempt id is the event's id).
    `is_open`: it started and has not ended; `is_swept`: nor did it in all the time it was given.
    """

    id: str
    facts: Observation
    outcome: Outcome
    is_open: bool
    is_swept: bool
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
    spoken = [each for each in everybody if each[0].source != SWEEP or not is_sweep(each[0])]
    by_provider, by_user = _in_order(spoken)
    own = [seen for seen, reach in by_provider if reach is OWN]
    full = own
    if len(own) < len(spoken):
        full = [seen for seen, reach in by_provider if reach is not SHARED]
    operations = _union({seen.operation_ids for seen, _ in spoken})
    flags = _union({seen.flags for seen, _ in spoken})

    facts = _first_said(by_user)
    if by_provider is not by_user:
        nearest_provider = _first_said(by_provider)
        for at in _BY_PROVIDER_AT:
            facts[at] = nearest_provider[at]
    _usage(facts, full)
    _provider_result(facts, full)
    _delivery(facts, by_user)
    _owner(facts, by_user)
    _cause(facts, by_user)
    _times(facts, own or full)

    is_open = any([seen.phase == "start" for seen in full]) and not any(map(closes, full))
    is_swept = is_open and any(reach is OWN and is_sweep(seen) for seen, reach in everybody)
    if is_swept:
        flags = tuple(sorted({*flags, SWEPT}))
        facts[_PROVIDER_RESULT] = facts[_PROVIDER_RESULT] or "unknown"
        facts[_USAGE_SOURCE] = facts[_USAGE_SOURCE] or "missing"
    facts[_FLAGS] = flags
    attempt_id = event_id if any([seen.attempt_id == event_id for seen in own]) else None
    # What names the observation that a field came from names nothing of the event.
    names = (SCHEMA_VERSION, None, attempt_id, operations, facts[_RESPONSE_ID])
    facts[:_AFTER_NAMES] = (*names, None, None, "sdk", "end", None, None)
    merged = Observation(*facts)
    return Event(
        event_id,
        merged,
        derive_outcome(merged.provider_result, merged.delivery),
        is_open and not is_swept,
        is_swept,
        operations,
        tuple(sorted([seen.oid or oid_of(seen) for seen, _ in everybody])),
        _union({(seen.span_id,) for seen in full if seen.span_id is not None}),
    )


def _in_order(spoken: Sequence[Spoken]) -> tuple[Sequence[Spoken], Sequence[Spoken]]:
    """What was seen, nearest the provider first, and nearest the user first.

    Most events are seen by instruments that are equally near: then both are the very same object.
    """
    if len(spoken) < 2:
        return spoken, spoken
    by_provider = sorted(spoken, key=lambda each: sort_key(each[0], "provider"))
    if rank_of(by_provider[0][0], "provider") == rank_of(by_provider[-1][0], "provider"):
        return by_provider, by_provider
    return by_provider, sorted(by_provider, key=lambda each: sort_key(each[0], "user"))


def _first_said(ordered: Sequence[Spoken]) -> list[Any]:
    """The first that is not null of each field, among those that may speak of it.

    By position, for all fields at once: asking each observation for each field by its name took
    three times as long as the whole merge does now.
    """
    facts = list(_said(ordered[0]) if ordered else _SAYS_NOTHING)
    for each in ordered[1:]:
        for at, value in enumerate(_said(each)):
            if value is not None and facts[at] is None:
                facts[at] = value
    return facts


def _said(each: Spoken) -> Sequence[Any]:
    """An observation's fields in wire order, null where it may not speak of this event."""
    seen, reach = each
    said = astuple(seen)
    if reach is OWN:
        return said
    return [value if may else None for value, may in zip(said, _MAY_SAY[reach], strict=True)]


def _union(groups: set[tuple[str, ...]]) -> tuple[str, ...]:
    if len(groups) < 2:
        only = next(iter(groups), ())
        if len(only) < 2:
            return only
    return tuple(sorted(set[str]().union(*groups)))


def _usage(facts: list[Any], full: Sequence[Observation]) -> None:
    """Provider-reported > estimated > missing; then the layer nearest the provider."""
    best, least = None, len(USAGE_TRUST)
    for seen in full:
        if seen.usage is not None or seen.usage_source is not None:
            trust = USAGE_TRUST["missing" if not seen.usage else seen.usage_source]
            if trust < least:
                best, least = seen, trust
    if best is None:
        facts[_USAGE] = facts[_USAGE_SOURCE] = facts[_RAW_USAGE] = None
    else:
        facts[_USAGE] = best.usage or None
        facts[_USAGE_SOURCE] = "missing" if not best.usage else best.usage_source or "provider"
        facts[_RAW_USAGE] = best.raw_usage


def _provider_result(facts: list[Any], full: Sequence[Observation]) -> None:
    """A known result before an unknown one; then nearest the provider."""
    result = None
    for seen in full:
        if seen.provider_result is not None:
            result = seen.provider_result
            if result != "unknown":
                break
    facts[_PROVIDER_RESULT] = result


def _delivery(facts: list[Any], by_user: Sequence[Spoken]) -> None:
    """Nearest the user; but evidence never overrides what the attempt's own instrument says."""
    delivery = None
    for seen, reach in by_user:
        if seen.delivery is not None and (delivery is None or reach is OWN):
            delivery = seen.delivery
            if reach is OWN:
                break
    facts[_DELIVERY] = delivery


def _owner(facts: list[Any], by_user: Sequence[Spoken]) -> None:
    """Tenant by trust; session and parent whole, those a caller chose being absent."""
    tenant, source, least = None, None, len(TRUST)
    for seen, _ in by_user:
        if seen.tenant is not None and TRUST[seen.tenant_source] < least:
            tenant, source, least = seen.tenant, seen.tenant_source, TRUST[seen.tenant_source]
    facts[_TENANT], facts[_TENANT_SOURCE] = tenant, source
    session = parent = None
    session_origin = parent_origin = None
    for seen, _ in by_user:
        if session is None and seen.session is not None and seen.session_origin != "caller":
            session, session_origin = seen.session, seen.session_origin
        if parent is None and seen.parent is not None and seen.parent_origin != "caller":
            parent, parent_origin = seen.parent, seen.parent_origin
    facts[_SESSION], facts[_SESSION_ORIGIN] = session, session_origin
    facts[_PARENT], facts[_PARENT_ORIGIN] = parent, parent_origin


def _cause(facts: list[Any], by_user: Sequence[Spoken]) -> None:
    cause = source = initiator = None
    least_of_cause = least_of_initiator = len(CAUSE_TRUST)
    for seen, _ in by_user:
        if seen.cause is None and seen.initiator is None:
            continue
        trust = CAUSE_TRUST[seen.cause_source]
        if seen.cause is not None and trust < least_of_cause:
            cause, source, least_of_cause = seen.cause, seen.cause_source, trust
        if seen.initiator is not None and trust < least_of_initiator:
            initiator, least_of_initiator = seen.initiator, trust
    facts[_CAUSE], facts[_CAUSE_SOURCE], facts[_INITIATOR] = cause, source, initiator


def _times(facts: list[Any], instrument: Sequence[Observation]) -> None:
    """The earliest start, and the earliest record, of the attempt's own instrument."""
    started = recorded = None
    for seen in instrument:
        if seen.started_at is not None and (started is None or seen.started_at < started):
            started = seen.started_at
        if seen.recorded_at is not None and (recorded is None or seen.recorded_at < recorded):
            recorded = seen.recorded_at
    facts[_STARTED_AT], facts[_RECORDED_AT] = started, recorded


def disagreements(spoken: Sequence[Spoken]) -> dict[str, dict[str, Any]]:
    """Field -> oid -> value, where two observations that may speak of it say different things.

    An inferred cause is never a disagreement. For `explain`: the merge itself needs none of this.
    """
    found: dict[str, dict[str, Any]] = {}
    watched = (*BY_PROVIDER, *BY_USER, *OWN_ONLY, "usage", "provider_result", "delivery")
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
