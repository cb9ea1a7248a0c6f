"""The closed, finite feature vector: all that a rule may look at, computed by one pure function.

Every feature has a closed domain of strings, so the whole space can be enumerated: tests prove
that some rule always matches and that none is dead.
"""

from __future__ import annotations

from typing import Literal, get_args

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


class Lineage(msgspec.Struct, frozen=True):
    """What an event's ancestors and session say.

    `tenant` is the owner found by O5 and `via` the event id or session it was found through;
    `step` is the kind of the nearest ancestor that is a tool run or a retriever; `looked_at` is
    every ancestor walked.
    """

    tenant: str | None = None
    via: str | None = None
    step: Literal["tool", "retrieval"] | None = None
    looked_at: tuple[str, ...] = ()


class Work(msgspec.Struct, frozen=True):
    """The cause and initiator of an event, with where they come from."""

    cause: Cause
    initiator: Initiator
    because: str


def work_of(event: Event, lineage: Lineage) -> Work:
    """The cause said, else the one the structure gives (DESIGN.md section 3, "Cause")."""
    facts = event.facts
    if facts.cause is not None:
        initiator = facts.initiator or initiator_of(facts.cause)
        return Work(facts.cause, initiator, facts.cause_source or "explicit")
    kind = facts.kind or "model"
    if kind == "tool":
        return Work("tool", facts.initiator or "agent", "a tool run")
    if kind == "retrieval":
        return Work("retrieval", facts.initiator or "agent", "a retriever")
    if lineage.step == "retrieval" and kind in _MODEL_KINDS:
        return Work(
            "retrieval", facts.initiator or "agent", f"a call of kind {kind} in a retriever"
        )
    if lineage.step == "tool" and kind in _MODEL_KINDS:
        return Work("subagent", facts.initiator or "agent", f"a call of kind {kind} in a tool run")
    return Work("primary", facts.initiator or "user", "nothing says otherwise")


_MODEL_KINDS = frozenset({"model", "embedding", "image", "audio", "rerank"})
"""The kinds of event in which a model works: an embedding in a tool is that tool's work too."""

_SPOILT = frozenset({"invalid:flat_cost", "invalid_usage"})
"""Something was said of the money, and could not be read: unknown, never nothing."""


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def features_of(
    event: Event, lineage: Lineage, work: Work, *, is_priced: bool, substituted: bool
) -> Features:
    """The features of an event, `owner` and `basis` left at what nothing has decided yet."""
    facts = event.facts
    kind = facts.kind or "model"
    has_tenant = facts.tenant is not None
    has_lineage = lineage.tenant is not None
    usage = facts.usage_source or "provider" if facts.usage else "missing"
    has_model = facts.executed_model is not None or facts.requested_model is not None
    is_money = not (
        kind == "request"
        or (
            kind in ("tool", "retrieval", "router")
            and not has_model
            and not facts.usage
            and facts.flat_cost is None
            and not _SPOILT.intersection(facts.flags)
        )
    )
    is_retry = facts.attempt > 1 if facts.attempt is not None else facts.retry_of is not None
    overhead_cause = work.cause in OVERHEAD_CAUSES
    return {
        "kind": kind,
        "cause": work.cause,
        "initiator": work.initiator,
        "outcome": event.outcome,
        "fault": facts.fault or "none",
        "retry": (facts.retry_reason or "none") if is_retry else "none",
        "has_members": _yes(bool(facts.members) and sum((facts.members or {}).values()) > 0),
        "has_tenant": _yes(has_tenant),
        "has_lineage": _yes(has_lineage),
        "is_overhead": _yes(
            bool(facts.shared)
            or (
                overhead_cause and (work.initiator == "platform" or not (has_tenant or has_lineage))
            )
        ),
        "policy_owner": facts.policy_owner or "none",
        "cache": facts.cache or "none",
        "is_money": _yes(is_money),
        "provider_billed": "unknown"
        if facts.provider_billed is None
        else _yes(facts.provider_billed),
        "has_flat_cost": _yes(facts.flat_cost is not None),
        "usage": usage,
        "is_priced": _yes(is_priced),
        "has_shared_prefix": _yes(bool(facts.shared_prefix)),
        "substituted": _yes(substituted),
        "owner": "unattributed",
        "basis": "none",
    }
