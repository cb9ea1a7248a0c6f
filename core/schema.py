"""The wire format: one `Observation` is what one instrument saw of one attempt.

Observations are immutable and kept for ever, also when they lose to a better one. Every field
but the identity is optional; absent means unknown. Amounts are decimal strings of USD, times are
nanoseconds UTC, token counts are non-negative integers in disjoint components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import msgspec

SCHEMA_VERSION = 1

Layer = Literal["provider", "gateway", "sdk", "otel", "framework", "manual"]
Phase = Literal["start", "end"]
Kind = Literal[
    "model",
    "embedding",
    "tool",
    "retrieval",
    "guardrail",
    "router",
    "cache",
    "image",
    "audio",
    "rerank",
    "request",
]
Cause = Literal[
    "primary",
    "step",
    "tool",
    "memory",
    "retrieval",
    "cache_lookup",
    "batch",
    "background",
    "subagent",
    "summarization",
    "router",
    "safety",
    "index",
    "eval",
    "health",
]
CauseSource = Literal["explicit", "structure", "inferred"]
Initiator = Literal["user", "agent", "platform"]
TenantSource = Literal[
    "assignment", "principal", "signed", "delegating_principal", "context", "metadata"
]
Origin = Literal["ours", "signed", "caller"]
PolicyOwner = Literal["platform", "tenant"]
RetryReason = Literal["provider", "agent", "guardrail", "timeout"]
RouteReason = Literal["requested", "fallback", "policy"]
UsageSource = Literal["provider", "estimated", "missing"]
ProviderResult = Literal["ok", "failed", "unknown"]
Delivery = Literal["delivered", "blocked", "cancelled_by_user", "cancelled_by_platform"]
Outcome = Literal[
    "ok", "failed", "unknown", "blocked", "cancelled_by_user", "cancelled_by_platform"
]
Fault = Literal["provider", "platform", "agent", "user"]
Cache = Literal["miss", "exact", "semantic"]

OVERHEAD_CAUSES = frozenset({"router", "safety", "index", "eval", "health"})
"""Causes that are platform overhead when the platform initiated them (DESIGN.md section 3, O3)."""

USER_CAUSES = frozenset({"primary", "cache_lookup", "batch"})
"""Causes that are a user's direct work when the user initiated them (B3)."""


def initiator_of(cause: str) -> Initiator:
    """Who starts work of this cause when nothing says it: the default of `costspan.work`."""
    if cause in OVERHEAD_CAUSES:
        return "platform"
    return "user" if cause in USER_CAUSES else "agent"


# Write the fields by name: only what builds thousands a second gives them by position, in the order
# of `FIELDS`. The garbage collector does not look at observations: what their maps hold is plain
# data, and never leads back to them.
class Observation(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What one instrument saw of one attempt. See DESIGN.md section 2 for each field.

    `oid` (writer and sequence number) names the observation; `attempt_id` names the attempt;
    `operation_ids` name what several attempts may share. `flags` say what `clean` had to repair.
    """

    schema_version: int = SCHEMA_VERSION
    # identity
    oid: str | None = None
    attempt_id: str | None = None
    operation_ids: tuple[str, ...] = ()
    response_id: str | None = None
    source: str | None = None
    source_version: str | None = None
    layer: Layer = "sdk"
    phase: Phase = "end"
    writer: str | None = None
    seq: int | None = None
    # work
    kind: Kind | None = None
    name: str | None = None
    tool_call_id: str | None = None
    cause: Cause | None = None
    cause_source: CauseSource | None = None
    initiator: Initiator | None = None
    # owner evidence
    tenant: str | None = None
    tenant_source: TenantSource | None = None
    session: str | None = None
    user: str | None = None
    feature: str | None = None
    workload: str | None = None
    agent: str | None = None
    labels: dict[str, str] | None = None
    members: dict[str, int] | None = None
    shared: bool | None = None
    shared_prefix: bool | None = None
    policy_owner: PolicyOwner | None = None
    client_claims: dict[str, Any] | None = None
    # place
    trace_id: str | None = None
    span_id: str | None = None
    parent: str | None = None
    request_id: str | None = None
    client_request_id: str | None = None
    hops: int | None = None
    parent_origin: Origin | None = None
    session_origin: Origin | None = None
    trace_origin: Origin | None = None
    attempt: int | None = None
    retry_of: str | None = None
    retry_reason: RetryReason | None = None
    attempts_hidden: int | None = None
    # model
    provider: str | None = None
    provider_account: str | None = None
    requested_model: str | None = None
    executed_model: str | None = None
    deployment: str | None = None
    route: str | None = None
    route_reason: RouteReason | None = None
    region: str | None = None
    tier: str | None = None
    prompt_template: tuple[str, str] | None = None
    # usage
    usage: dict[str, int] | None = None
    usage_source: UsageSource | None = None
    raw_usage: dict[str, Any] | None = None
    # result
    provider_result: ProviderResult | None = None
    delivery: Delivery | None = None
    delivered_usage: dict[str, int] | None = None
    fault: Fault | None = None
    provider_billed: bool | None = None
    error_type: str | None = None
    # cache
    cache: Cache | None = None
    fill_event: str | None = None
    avoided_cost: str | None = None
    # money claims
    flat_cost: str | None = None
    host_cost: str | None = None
    # time, ns UTC
    started_at: int | None = None
    ended_at: int | None = None
    recorded_at: int | None = None
    # privacy
    prompt_hash: str | None = None
    attributes: dict[str, Any] | None = None
    # what an import or a replay knows of the books themselves
    price_book: str | None = None
    period: str | None = None
    effective_period: str | None = None
    flags: tuple[str, ...] = ()


FIELDS: tuple[str, ...] = Observation.__struct_fields__
"""Every wire field, in order."""


def json_schema() -> dict[str, Any]:
    """The published JSON Schema of the wire format."""
    schema = msgspec.json.schema(Observation)
    for defined in schema["$defs"].values():
        if "description" in defined:  # its indentation depends on the version of Python
            lines = str(defined["description"]).splitlines()
            defined["description"] = "\n".join(line.strip() for line in lines)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"costspan observation, version {SCHEMA_VERSION}"
    return schema


def oid_of(observation: Observation) -> str:
    """The name of an observation: its `oid`, else its writer and sequence number.

    Raises:
        ValueError: if it has neither.
    """
    if observation.oid:
        return observation.oid
    if observation.writer is None or observation.seq is None:
        raise ValueError("an observation needs an oid, or a writer and a seq")
    return f"{observation.writer}:{observation.seq}"


PERSONAL_CLAIMS = frozenset({"user", "end_user", "user_id"})
"""What in `client_claims`, however deep, names a person as the field `user` does."""

_canonical_json = msgspec.json.Encoder(order="sorted")


def canonical(observation: Observation) -> bytes:
    """Canonical JSON (sorted keys, no spaces): what conflicting duplicates are compared by.

    What is absent is left out; layer and phase are always said; the oid names it, not the writer
    and number it is made of. Persons are left out: a ledger keeps pseudonyms in their place, and
    what was seen twice is a duplicate whether they were erased meanwhile or not.
    """
    said = msgspec.structs.replace(observation, writer=None, seq=None, user=None)
    fields = msgspec.to_builtins(said)
    if said.client_claims:
        fields["client_claims"] = _impersonal(fields["client_claims"])
    return _canonical_json.encode({**fields, "layer": said.layer, "phase": said.phase})


def _impersonal(claimed: Any) -> Any:
    """Claims without what names a person."""
    if isinstance(claimed, dict):
        claims = cast("dict[str, Any]", claimed)
        return {
            name: _impersonal(said) for name, said in claims.items() if name not in PERSONAL_CLAIMS
        }
    if isinstance(claimed, list):
        return [_impersonal(said) for said in cast("Sequence[Any]", claimed)]
    return claimed
