"""What LiteLLM says of a call that is about to be made: model, route, try number, owner.

Who may name the owner:

- the application's context (`costspan.attribute`, `bind`, a middleware), captured here;
- in the SDK and the Router, the call's own metadata, which in-process code wrote: `tenant`,
  `session`, `user`, `feature` and `labels`, plain or under `metadata["costspan"]`. It is trusted
  less than the context, and it names an owner and nothing else;
- on the proxy, the authenticated key's team or organisation. A request body's metadata is the
  client's word there: it goes to `client_claims` and decides nothing.

Fields that move money (`flat_cost`, `members`, `cause`, ...) are claims wherever they stand in
metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import litellm

from costspan.adapter import Context, context_fields
from costspan.adapters.litellm.tracking import (
    Details,
    Predecessor,
    failed_attempts,
    predecessor,
    tracked_on,
)
from costspan.core.context import with_owner

_OWNER = ("tenant", "session", "user", "feature", "labels")
_MONEY = (
    *("cause", "cause_source", "initiator", "shared", "shared_prefix", "policy_owner", "members"),
    *("delivery", "delivered_usage", "fault", "provider_billed", "flat_cost", "usage", "cache"),
    *("tenant_source", "retry_reason"),
)
_CLIENT = (*_OWNER, *_MONEY, "session_id", "agent", "workload", "parent", "tags", "trace_id")


class Asked:
    """The request as LiteLLM holds it: what the hook was given, else LiteLLM's own record.

    On a retry of the proxy or of `fallbacks=[...]` the record is still that of the try before,
    so the hook's arguments go first.
    """

    def __init__(self, details: Details, arguments: Mapping[str, Any] | None = None) -> None:
        self.details = details
        self._arguments = arguments or {}
        self._params = _mapping(details.get("litellm_params"))

    def get(self, name: str) -> Any:
        """The first of the sources that says something."""
        for source in (self._arguments, self._params, self.details):
            value = source.get(name)
            if value is not None:
                return value
        return None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The call's metadata; the Router's and proxy's own bucket where they keep it apart."""
        return {**_mapping(self.get("metadata")), **_mapping(self.get("litellm_metadata"))}

    @property
    def target(self) -> tuple[str | None, str | None]:
        """Provider and model of this try.

        A model in the arguments still has LiteLLM's provider prefix; in the record it lost it as
        soon as LiteLLM knew the provider.
        """
        model = _word(self._arguments.get("model"))
        provider = _word(self._arguments.get("custom_llm_provider"))
        if model is None:
            model = _word(self.details.get("model"))
            provider = provider or _word(self.details.get("custom_llm_provider"))
        prefix = (model or "").partition("/")[0]
        if provider is None and prefix in _providers():
            provider = prefix
        return provider, model_name(model, provider)

    @property
    def authentication(self) -> Mapping[str, Any]:
        """The bucket in which the proxy wrote whom it authenticated."""
        for name in ("litellm_metadata", "metadata"):
            bucket = _mapping(self.get(name))
            if "user_api_key" in bucket or "user_api_key_hash" in bucket:
                return bucket
        return {}

    @property
    def is_proxy(self) -> bool:
        """Whether the proxy made the call. Metadata alone cannot say so: bodies contain it."""
        return self.get("proxy_server_request") is not None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def model_name(model: object, provider: str | None = None) -> str | None:
    """A model's name without the provider LiteLLM routes by: `openai/gpt-4o` -> `gpt-4o`."""
    name = _word(model)
    if name is None:
        return None
    prefix, slash, rest = name.partition("/")
    known = prefix == provider if provider else prefix in _providers()
    return rest if slash and rest and known else name


def _providers() -> frozenset[str]:
    if not _known_providers:
        _known_providers.append(
            frozenset(str(getattr(p, "value", p)) for p in litellm.provider_list)
        )
    return _known_providers[0]


_known_providers: list[frozenset[str]] = []


_DEFAULT_HOSTS = frozenset({"api.openai.com", "api.anthropic.com"})


def base_url(address: object) -> str:
    """A base URL without credentials, path of the endpoint or query; empty for a provider's own."""
    if not isinstance(address, str) or not address:
        return ""
    parts = urlsplit(address)
    if parts.hostname in _DEFAULT_HOSTS:
        return ""
    path = parts.path.rstrip("/")
    for endpoint in ("/chat/completions", "/responses", "/messages"):
        path = path.removesuffix(endpoint)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"


def facts_of(asked: Asked) -> dict[str, Any]:
    """Model, route and try number, as observation fields."""
    metadata = asked.metadata
    group = _word(metadata.get("model_group"))
    provider, model = asked.target
    named = _word(metadata.get("original_model_group")) or group
    requested = model_name(named) if named is not None else model
    before = _before(asked, metadata, requested)
    retries = _number(metadata.get("attempted_retries"))
    fallbacks = _number(metadata.get("attempted_fallbacks"))
    facts: dict[str, Any] = {
        "provider": provider,
        "requested_model": requested,
        "attempt": 1 + retries + fallbacks,
        # The OpenAI client retries silently unless told not to; the Router always tells it.
        "attempts_hidden": 0 if asked.get("max_retries") == 0 else None,
        "trace_id": asked.get("litellm_trace_id"),
        "trace_origin": "caller" if asked.is_proxy else "ours",
        "deployment": _word(_mapping(metadata.get("model_info")).get("id")),
    }
    address = base_url(asked.get("api_base") or asked.get("base_url"))
    if address:
        facts["attributes"] = {"base_url": address}
    if group is not None:
        facts["route"] = group
        facts["route_reason"] = "fallback" if fallbacks else "requested"
    if before is not None:
        facts["attempt"] = before.number + 1
        facts["retry_of"] = before.attempt_id
        facts["retry_reason"] = before.retry_reason
        facts["requested_model"] = before.requested_model
        if group is None and before.requested_model != requested:  # `fallbacks=[...]` of the SDK
            facts["route"], facts["route_reason"] = requested, "fallback"
    elif retries or fallbacks:
        facts["retry_reason"] = "provider"
    return facts


def _before(asked: Asked, metadata: Mapping[str, Any], requested: str | None) -> Predecessor | None:
    """The failed try that this one repeats, on the same record or, on a Router, in the trace."""
    tracked = tracked_on(asked.details)
    if tracked is not None:
        return predecessor(tracked)
    tries = _number(metadata.get("attempted_retries")) + _number(
        metadata.get("attempted_fallbacks")
    )
    trace = _word(asked.get("litellm_trace_id"))
    return failed_attempts.take(trace, requested) if tries and trace is not None else None


def _number(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def owner_of(
    asked: Asked, context: Context, principal: Sequence[str]
) -> tuple[Context, dict[str, Any]]:
    """The context to capture, and what else is said of the owner, as observation fields.

    Args:
        asked: The request.
        context: The application's context at the call.
        principal: The proxy's authenticated fields that name a tenant, best first.
    """
    if asked.is_proxy:
        return _owner_on_proxy(asked, context, principal)
    if asked.authentication:
        # The names of the proxy's own fields without the proxy's request: a pasted request body.
        return context, _claims(asked.metadata, _CLIENT)
    return _owner_in_process(asked, context)


def _owner_on_proxy(
    asked: Asked, context: Context, principal: Sequence[str]
) -> tuple[Context, dict[str, Any]]:
    metadata, authentication = asked.metadata, asked.authentication
    tenant = next((t for name in principal if (t := _word(authentication.get(name)))), None)
    user = _word(authentication.get("user_api_key_user_id"))
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
    session = _word(asked.get("litellm_session_id")) or _word(metadata.get("session_id"))
    if session is not None and context_fields(context)["session"] is None:
        facts["session"], facts["session_origin"] = session, "caller"
    return context, facts


def _owner_in_process(asked: Asked, context: Context) -> tuple[Context, dict[str, Any]]:
    metadata = asked.metadata
    own = _mapping(metadata.get("costspan"))
    named = {name: own.get(name, metadata.get(name)) for name in _OWNER}
    tenant, held = named["tenant"], context_fields(context)
    if tenant is not None and held["tenant"] not in (None, tenant):
        with_owner(context, tenant, "metadata")  # counts the disagreement
        return context, _claims(metadata, (*_OWNER, *_MONEY))
    changes: dict[str, Any] = {
        name: word
        for name in ("user", "feature")
        if held[name] is None and (word := _word(named[name])) is not None
    }
    labels = _mapping(named["labels"])
    if labels:
        changes["labels"] = {**labels, **(context.labels or {})}
    session = _word(named["session"]) if held["session"] is None else None
    context = with_owner(context, tenant, "metadata", session=session, **changes)
    return context, _claims(metadata, _MONEY)


def _claims(metadata: Mapping[str, Any], names: Sequence[str], **more: object) -> dict[str, Any]:
    """`client_claims` of whatever metadata says under these names, plain or under `costspan`."""
    own = _mapping(metadata.get("costspan"))
    claimed = {n: own.get(n, metadata.get(n)) for n in names}
    said = {n: value for n, value in {**claimed, **more}.items() if value is not None}
    return {"client_claims": said} if said else {}
