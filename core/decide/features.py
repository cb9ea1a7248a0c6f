"""The closed, finite feature vector: all that a rule may look at, computed by one pure function.

Every feature has a closed domain of strings, so the whole space can be enumerated: tests prove
that some rule always matches and that none is dead. What the features are made of is finite too,
and gathered first (`Told`): what follows from it is worked out once, not for every event.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import msgspec

from costspan.core import schema
from costspan.core.join.merge import Event
from costspan.core.schema import OVERHEAD_CAUSES, Cause, Initiator, initiator_of

_YES_NO = ("yes", "no")

DOMAINS: dict[str, tuple[str, ...]] = {
    "kind": get_args(schema.Kind),
    "cause": get_args(schema.Cause),
    "initiator": get_args(schema.Initiator),
    "outcome": get_args(schema.Outcome),
    "fault": (*get_args(schema.Fault), "none"),
    "retry": (*get_args(schema.RetryReason), "none"),
    "has_members": _YES_NO,
    "has_tenant": _YES_NO,
    "has_lineage": _YES_NO,
    "is_overhead": _YES_NO,
    "policy_owner": (*get_args(schema.PolicyOwner), "none"),
    "cache": (*get_args(schema.Cache), "none"),
    "is_money": _YES_NO,
    "provider_billed": ("yes", "no", "unknown"),
    "has_flat_cost": _YES_NO,
    "usage": get_args(schema.UsageSource),
    "is_priced": _YES_NO,
    "has_shared_prefix": _YES_NO,
    "substituted": _YES_NO,
    "owner": ("tenant", "platform", "unattributed"),
    "basis": ("none", "flat", "usage"),
}
"""Feature -> every value it can have. `owner` and `basis` are what the tables before decided."""

Features = dict[str, str]


class Lineage(msgspec.Struct, frozen=True, gc=False):
    """What an event's ancestors and session say.

    `tenant` is the owner found by O5 and `via` the event id or session it was found through;
    `step` is the kind of the nearest ancestor that is a tool run or a retriever.
    """

    tenant: str | None = None
    via: str | None = None
    step: Literal["tool", "retrieval"] | None = None


class Told(NamedTuple):
    """All that the features are made of, and nothing else: what the facts and the lineage say.

    Each is one of few values, so that there are few of them however many events there are. No
    name, id, time or amount may be among them.
    """

    kind: str | None
    cause: Cause | None
    initiator: Initiator | None
    step: Literal["tool", "retrieval"] | None
    outcome: str
    fault: str | None
    is_retry: bool
    retry_reason: str | None
    has_members: bool
    has_tenant: bool
    has_lineage: bool
    is_shared: bool
    policy_owner: str | None
    cache: str | None
    provider_billed: bool | None
    has_flat_cost: bool
    has_usage: bool
    usage_source: str | None
    has_model: bool
    is_spoilt: bool
    is_priced: bool
    has_shared_prefix: bool
    substituted: bool


_SPOILT = frozenset({"invalid:flat_cost", "invalid_usage"})
"""Something was said of the money, and could not be read: unknown, never nothing."""


def told_of(event: Event, lineage: Lineage, *, is_priced: bool, substituted: bool) -> Told:
    """What an event and its lineage tell the rules."""
    facts = event.facts
    attempt, members, flags = facts.attempt, facts.members, facts.flags
    return Told(
        facts.kind,
        facts.cause,
        facts.initiator,
        lineage.step,
        event.outcome,
        facts.fault,
        attempt > 1 if attempt is not None else facts.retry_of is not None,
        facts.retry_reason,
        members is not None and sum(members.values()) > 0,
        facts.tenant is not None,
        lineage.tenant is not None,
        bool(facts.shared),
        facts.policy_owner,
        facts.cache,
        facts.provider_billed,
        facts.flat_cost is not None,
        bool(facts.usage),
        facts.usage_source,
        facts.executed_model is not None or facts.requested_model is not None,
        bool(flags) and not _SPOILT.isdisjoint(flags),
        is_priced,
        bool(facts.shared_prefix),
        substituted,
    )


_MODEL_KINDS = frozenset({"model", "embedding", "image", "audio", "rerank"})
"""The kinds of event in which a model works: an embedding in a tool is that tool's work too."""


def work_of(told: Told) -> tuple[Cause, Initiator]:
    """The cause said, else the one the structure gives (DESIGN.md section 3, "Cause")."""
    if told.cause is not None:
        return told.cause, told.initiator or initiator_of(told.cause)
    kind = told.kind or "model"
    if kind == "tool":
        return "tool", told.initiator or "agent"
    if kind == "retrieval" or (told.step == "retrieval" and kind in _MODEL_KINDS):
        return "retrieval", told.initiator or "agent"
    if told.step == "tool" and kind in _MODEL_KINDS:
        return "subagent", told.initiator or "agent"
    return "primary", told.initiator or "user"


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def features_of(told: Told) -> Features:
    """The features of an event, `owner` and `basis` left at what nothing has decided yet."""
    kind = told.kind or "model"
    cause, initiator = work_of(told)
    has_owner = told.has_tenant or told.has_lineage
    overhead = cause in OVERHEAD_CAUSES and (initiator == "platform" or not has_owner)
    is_money = not (
        kind == "request"
        or (
            kind in ("tool", "retrieval", "router")
            and not told.has_model
            and not told.has_usage
            and not told.has_flat_cost
            and not told.is_spoilt
        )
    )
    billed = told.provider_billed
    return {
        "kind": kind,
        "cause": cause,
        "initiator": initiator,
        "outcome": told.outcome,
        "fault": told.fault or "none",
        "retry": (told.retry_reason or "none") if told.is_retry else "none",
        "has_members": _yes(told.has_members),
        "has_tenant": _yes(told.has_tenant),
        "has_lineage": _yes(told.has_lineage),
        "is_overhead": _yes(told.is_shared or overhead),
        "policy_owner": told.policy_owner or "none",
        "cache": told.cache or "none",
        "is_money": _yes(is_money),
        "provider_billed": "unknown" if billed is None else _yes(billed),
        "has_flat_cost": _yes(told.has_flat_cost),
        "usage": (told.usage_source or "provider") if told.has_usage else "missing",
        "is_priced": _yes(told.is_priced),
        "has_shared_prefix": _yes(told.has_shared_prefix),
        "substituted": _yes(told.substituted),
        "owner": "unattributed",
        "basis": "none",
    }
