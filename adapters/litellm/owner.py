"""Whose a call is, and what of the request is only a client's word.

- The application's context (`costspan.attribute`, `bind`, a middleware), captured at the call.
- In the SDK and the Router, the call's own metadata, which in-process code wrote: `tenant`,
  `session`, `user`, `feature` and `labels`, plain or under `metadata["costspan"]`. It is trusted
  less than the context, and it names an owner and nothing else.
- On the proxy, what the authenticated key says, in the order of `tenant_from`. The metadata of a
  request body, its tags, headers and end users are the client's word: they go to `client_claims`
  and decide nothing.

Fields that move money (`flat_cost`, `members`, `cause`, ...) are claims wherever they stand in
metadata.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from costspan.adapter import Context, context_fields
from costspan.adapters.litellm.request import Asked, mapping, word
from costspan.core.context import with_owner

TENANT_FROM = ("key_metadata:tenant", "team", "org", "key")
"""Where the proxy's tenant stands, best first: what the operator wrote on the key, its groups, it.

Other sources: `team_metadata:NAME`, `project`, and `team_alias`, `org_alias`, `project_alias` for
the names people chose. `key` is the key's alias, or its hash if it has none.
"""

_IDENTITY = {
    "team": ("user_api_key_team_id",),
    "team_alias": ("user_api_key_team_alias",),
    "org": ("user_api_key_org_id",),
    "org_alias": ("user_api_key_org_alias",),
    "project": ("user_api_key_project_id",),
    "project_alias": ("user_api_key_project_alias",),
    "key": ("user_api_key_alias", "user_api_key_hash"),
}
_METADATA = {
    "key_metadata": "user_api_key_metadata",
    "team_metadata": "user_api_key_team_metadata",
}

_OWNER = ("tenant", "session", "user", "feature", "labels")
_MONEY = (
    *("cause", "cause_source", "initiator", "shared", "shared_prefix", "policy_owner", "members"),
    *("delivery", "delivered_usage", "fault", "provider_billed", "flat_cost", "usage", "cache"),
    *("tenant_source", "retry_reason"),
)
_CLIENT = (*_OWNER, *_MONEY, "session_id", "agent", "workload", "parent", "tags", "trace_id")


def checked(tenant_from: Iterable[str]) -> tuple[str, ...]:
    """The sources, if all are known.

    Raises:
        ValueError: for a source that names nothing; at start-up, where somebody reads it.
    """
    sources = (tenant_from,) if isinstance(tenant_from, str) else tuple(tenant_from)
    for source in sources:
        kind, colon, name = source.partition(":")
        if not (name and kind in _METADATA if colon else kind in _IDENTITY):
            known = ", ".join((*(f"{kind}:NAME" for kind in _METADATA), *_IDENTITY))
            raise ValueError(f"tenant_from knows {known}; not {source!r}")
    return sources


def owner_of(
    asked: Asked, context: Context, tenant_from: Sequence[str]
) -> tuple[Context, dict[str, Any]]:
    """The context to capture, and what else is said of the owner, as observation fields.

    Args:
        asked: The request.
        context: The application's context at the call.
        tenant_from: Where the proxy's tenant stands, best first.
    """
    if asked.is_proxy:
        return _owner_on_proxy(asked, context, tenant_from)
    if asked.authentication:
        # The names of the proxy's own fields without the proxy's request: a pasted request body.
        return context, _claims(asked.metadata, _CLIENT)
    return _owner_in_process(asked, context)


def _owner_on_proxy(
    asked: Asked, context: Context, tenant_from: Sequence[str]
) -> tuple[Context, dict[str, Any]]:
    metadata, authentication = asked.metadata, asked.authentication
    named = (_principal(authentication, source) for source in tenant_from)
    tenant = next((tenant for tenant in named if tenant is not None), None)
    user = word(authentication.get("user_api_key_user_id"))
    changes: dict[str, Any] = {}
    if user is not None and context.user is None:
        changes["user"] = user
    context = with_owner(context, tenant, "principal", **changes)
    facts = _claims(
        metadata,
        _CLIENT,
        end_user=asked.get("user") or metadata.get("user_api_key_end_user_id"),
        spend_logs_metadata=metadata.get("spend_logs_metadata"),
    )
    session = word(asked.get("litellm_session_id")) or word(metadata.get("session_id"))
    if session is not None and context_fields(context)["session"] is None:
        facts["session"], facts["session_origin"] = session, "caller"
    return context, facts


def _principal(authentication: Mapping[str, Any], source: str) -> str | None:
    kind, colon, name = source.partition(":")
    if colon:
        return word(mapping(authentication.get(_METADATA[kind])).get(name))
    fields = (word(authentication.get(field)) for field in _IDENTITY[kind])
    return next((value for value in fields if value is not None), None)


def _owner_in_process(asked: Asked, context: Context) -> tuple[Context, dict[str, Any]]:
    metadata = asked.metadata
    own = mapping(metadata.get("costspan"))
    named = {name: own.get(name, metadata.get(name)) for name in _OWNER}
    tenant, held = named["tenant"], context_fields(context)
    if tenant is not None and held["tenant"] not in (None, tenant):
        with_owner(context, tenant, "metadata")  # counts the disagreement
        return context, _claims(metadata, (*_OWNER, *_MONEY))
    changes: dict[str, Any] = {
        name: said
        for name in ("user", "feature")
        if held[name] is None and (said := word(named[name])) is not None
    }
    labels = mapping(named["labels"])
    if labels:
        changes["labels"] = {**labels, **(context.labels or {})}
    session = word(named["session"]) if held["session"] is None else None
    context = with_owner(context, tenant, "metadata", session=session, **changes)
    return context, _claims(metadata, _MONEY)


def _claims(metadata: Mapping[str, Any], names: Sequence[str], **more: object) -> dict[str, Any]:
    """`client_claims` of whatever metadata says under these names, plain or under `costspan`."""
    own = mapping(metadata.get("costspan"))
    claimed = {n: own.get(n, metadata.get(n)) for n in names}
    said = {n: value for n, value in {**claimed, **more}.items() if value is not None}
    return {"client_claims": said} if said else {}
