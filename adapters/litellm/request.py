"""What LiteLLM says of a call that is about to be made: model, route, try number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import litellm

from costspan.adapters.litellm.tracking import (
    SECRET_SUFFIX,
    Details,
    Predecessor,
    call_name,
    failed_before,
    predecessor,
    tracked_on,
)

_ASKED_FOR = f"costspan_requested_model_{SECRET_SUFFIX}"
_STAND_INS = f"costspan_fallbacks_of_client_{SECRET_SUFFIX}"
_ROUTERS_OWN = "attempted_fallbacks"
"""Taken out of a request's body, like whom the proxy authenticated."""
_MOCKS = ("mock_response", "mock_tool_calls", "mock_timeout")


class Asked:
    """The request as LiteLLM holds it: what the hook was given, else LiteLLM's own record.

    On a retry of the proxy or of `fallbacks=[...]` the record is still that of the try before,
    so the hook's arguments go first.
    """

    def __init__(self, details: Details, arguments: Mapping[str, Any] | None = None) -> None:
        self.details = details
        self._arguments = arguments or {}
        self._params = mapping(details.get("litellm_params"))

    def get(self, name: str) -> Any:
        """The first of the sources that says something."""
        for source in (self._arguments, self._params, self.details):
            value = source.get(name)
            if value is not None:
                return value
        return None

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The call's metadata; the Router's and proxy's own bucket where they keep it apart.

        What only they write tells their bucket, which goes last: the other may be a client's.
        """
        buckets = [mapping(self.get(name)) for name in ("metadata", "litellm_metadata")]
        buckets.sort(key=lambda bucket: (_ROUTERS_OWN in bucket, _is_of_proxy(bucket)))
        return {**buckets[0], **buckets[1]}

    @property
    def target(self) -> tuple[str | None, str | None]:
        """Provider and model of this try.

        A model in the arguments still has LiteLLM's provider prefix; in the record it lost it as
        soon as LiteLLM knew the provider.
        """
        model = word(self._arguments.get("model"))
        provider = word(self._arguments.get("custom_llm_provider"))
        if model is None:
            model = word(self.details.get("model"))
            provider = provider or word(self.details.get("custom_llm_provider"))
        prefix = (model or "").partition("/")[0]
        if provider is None and prefix in _providers():
            provider = prefix
        return provider, model_name(model, provider)

    @property
    def authentication(self) -> Mapping[str, Any]:
        """The bucket in which the proxy wrote whom it authenticated."""
        for name in ("litellm_metadata", "metadata"):
            bucket = mapping(self.get(name))
            if _is_of_proxy(bucket):
                return bucket
        return {}

    @property
    def fallbacks_of_client(self) -> tuple[str, ...]:
        """The models that a client of the proxy asks for where the one it named fails.

        The proxy writes its copy of the body anew after the hooks, with what an operator's hook
        says: what was noted before is the client's.
        """
        noted = self.details.get(_STAND_INS)
        return _fallbacks_in(self.get("proxy_server_request")) if noted is None else noted

    @property
    def prompt(self) -> object:
        """What is asked of the model, whatever the endpoint calls it."""
        return self.get("messages") or self.get("input") or self.get("prompt")

    @property
    def is_proxy(self) -> bool:
        """Whether the proxy made the call. Metadata alone cannot say so: bodies contain it."""
        return self.get("proxy_server_request") is not None

    @property
    def is_mock(self) -> bool:
        """Whether LiteLLM answers itself: its own test, or a client could hide a real call."""
        name, told = call_name(self.details.get("call_type")), self._arguments.get
        if name in ("completion", "text_completion"):
            return any(told(mock) for mock in _MOCKS)
        if name == "responses":
            return bool(told("mock_response")) and isinstance(told("mock_response"), str)
        return name in ("embedding", "image_generation") and told("mock_response") is not None

    @property
    def hides_retries(self) -> bool:
        """Whether the provider's client may try again by itself, which no callback shows.

        It does unless told not to. The Router always tells it; `num_retries` of a direct call
        overrides what `max_retries` says.
        """
        overridden = self.get("num_retries") and "model_group" not in self.metadata
        return self.get("max_retries") != 0 or bool(overridden)


def _is_of_proxy(bucket: Mapping[str, Any]) -> bool:
    return "user_api_key_hash" in bucket  # always written, and taken out of a request's body


def _fallbacks_in(request: object) -> tuple[str, ...]:
    return tuple(_names_in(mapping(mapping(request).get("body")).get("fallbacks")))


def _names_in(value: object) -> Iterator[str]:
    """Every text in a list of fallbacks: `[m]`, `[{model: m}]` or `[{a: [m]}]`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in cast("Mapping[str, object]", value).values():
            yield from _names_in(each)
    elif isinstance(value, list):
        for each in cast("list[object]", value):
            yield from _names_in(each)


def mapping(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def word(value: object) -> str | None:
    """The value if it is a text with something in it."""
    return value if isinstance(value, str) and value else None


def model_name(model: object, provider: str | None = None) -> str | None:
    """A model's name without the provider LiteLLM routes by: `openai/gpt-4o` -> `gpt-4o`."""
    name = word(model)
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


MOCK: Mapping[str, Any] = {"provider_billed": False, "flags": ("mock",)}
"""What is said of an answer that LiteLLM made up: no provider was called."""


def note_requested(data: Mapping[str, Any]) -> None:
    """Keep the model that a client of the proxy asked for, and what it would have stand in.

    Another hook may reroute the request, and the proxy then writes its copy of the body anew. Both
    are kept on LiteLLM's own record, under names that no client knows.
    """
    details = details_of(data)
    body = mapping(mapping(data.get("proxy_server_request")).get("body"))
    model = word(body.get("model")) or word(data.get("model"))
    if details is not None and model is not None:
        details.setdefault(_ASKED_FOR, model)
        details.setdefault(_STAND_INS, _fallbacks_in(data.get("proxy_server_request")))


def details_of(arguments: Mapping[str, Any]) -> Details | None:
    """LiteLLM's record of the call whose arguments these are."""
    details = getattr(arguments.get("litellm_logging_obj"), "model_call_details", None)
    return cast("Details", details) if isinstance(details, dict) else None


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
    group = word(metadata.get("model_group"))
    provider, model = asked.target
    first = word(metadata.get("original_model_group")) or group
    named = word(asked.details.get(_ASKED_FOR)) or first
    requested = model_name(named) if named is not None else model
    # Whoever names the stand-in asked for it, at its price: it was not substituted for them.
    is_clients_choice = group is not None and group != named and group in asked.fallbacks_of_client
    stand_in = model_name(group) if is_clients_choice else None
    before = _before(asked, metadata, (requested, stand_in))
    retries = _number(metadata.get("attempted_retries"))
    fallbacks = _number(metadata.get("attempted_fallbacks"))
    facts: dict[str, Any] = {
        "provider": provider,
        "requested_model": stand_in or requested,
        "attempt": 1 + retries + fallbacks,
        "attempts_hidden": None if asked.hides_retries else 0,
        "trace_id": asked.get("litellm_trace_id"),
        "trace_origin": "caller" if asked.is_proxy else "ours",
        "deployment": word(mapping(metadata.get("model_info")).get("id")),
    }
    address = base_url(asked.get("api_base") or asked.get("base_url"))
    if address:
        facts["attributes"] = {"base_url": address}
    if group is not None:
        facts["route"] = group
        rerouted = "requested" if stand_in or named == first else "policy"
        facts["route_reason"] = "fallback" if fallbacks and not stand_in else rerouted
    if asked.is_mock:
        facts.update(MOCK)
    if before is not None:
        facts["attempt"] = before.number + 1
        facts["retry_of"] = before.attempt_id
        facts["retry_reason"] = before.retry_reason
        facts["requested_model"] = stand_in or before.requested_model
        if group is None and before.requested_model != requested:  # `fallbacks=[...]` of the SDK
            facts["route"], facts["route_reason"] = requested, "fallback"
    elif retries or fallbacks:
        facts["retry_reason"] = "provider"
    return facts


def _before(
    asked: Asked, metadata: Mapping[str, Any], requested: Sequence[str | None]
) -> Predecessor | None:
    """The failed try that this one repeats, on the same record or, on a Router, in the trace."""
    tracked = tracked_on(asked.details)
    if tracked is not None:
        return predecessor(tracked)
    tries = _number(metadata.get("attempted_retries")) + _number(
        metadata.get("attempted_fallbacks")
    )
    found = failed_before(asked.get("litellm_trace_id"), is_retry=tries > 0)
    return found if found is not None and found.requested_model in requested else None


def _number(value: object) -> int:
    return value if type(value) is int and value > 0 else 0
