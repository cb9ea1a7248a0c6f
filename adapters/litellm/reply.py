"""What a reply says: usage, the model that really ran, its id, its tier, and what it cost."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, cast

import litellm

from costspan.adapter import usage
from costspan.adapters.litellm.request import base_url, model_name
from costspan.adapters.litellm.tracking import Details, kind_of

DISCONNECTED = "Client disconnected the request"
"""What the proxy notes on the success it logs when the client left a stream."""


def facts_of(details: Details, reply: object) -> dict[str, Any]:
    """The observation fields of a successful attempt.

    `reply` is LiteLLM's object for any endpoint, or the plain dict of its Anthropic passthrough.
    """
    provider = _text(details.get("custom_llm_provider"))
    facts: dict[str, Any] = {
        "provider": provider,
        "executed_model": executed_model(details, reply),
        "tier": _text(read(reply, "service_tier")),
        **usage_of(details, reply),
    }
    if kind_of(details.get("call_type")) == "model":
        facts["response_id"] = response_id(details, reply, provider)
    if calls_tools(reply) and not forced_answer(details):
        facts.update(cause="step", cause_source="inferred", initiator="agent")
    if _error_text(details) == DISCONNECTED:
        facts["delivery"] = "cancelled_by_user"
        facts["delivered_usage"] = facts.get("usage")
    return facts


def cached_facts(details: Details) -> dict[str, Any]:
    """The fields of an answer out of LiteLLM's cache: no usage, since the reply repeats the fill's.

    The hit itself costs nothing: the lookup of a semantic cache is an embedding, which LiteLLM asks
    for by a call of its own. What the fill cost then is `avoided_cost`.
    """
    cache_type = read(litellm.cache, "type")
    is_semantic = "semantic" in str(getattr(cache_type, "value", cache_type))
    saved = _payload(details).get("saved_cache_cost")
    return {
        "provider": _text(details.get("custom_llm_provider")),
        "cache": "semantic" if is_semantic else "exact",
        "flat_cost": "0" if is_semantic else None,
        "avoided_cost": repr(saved) if isinstance(saved, float) and saved > 0 else None,
    }


def read(thing: object, name: str) -> Any:
    """A field of one of LiteLLM's objects or of a plain dict."""
    if isinstance(thing, Mapping):
        return cast("Mapping[str, Any]", thing).get(name)
    return getattr(thing, name, None)


def usage_of(details: Details, reply: object) -> dict[str, Any]:
    """`usage` in disjoint components, its source and the raw report; `missing` is never zero.

    LiteLLM does not mark its own estimates. What it estimates for a stream has no prompt
    details, and what it estimates for a client that left says so.
    """
    reported = _said(usage.as_mapping(read(reply, "usage")))
    reported.pop("cost", None)  # LiteLLM's own arithmetic, not the provider's report
    counts = _components(reply, reported)
    if not counts or not any(counts.values()):
        return {"usage_source": "missing", "raw_usage": reported or None}
    estimated = _error_text(details) == DISCONNECTED or (
        details.get("stream") is True
        and "prompt_tokens" in reported
        and reported.get("prompt_tokens_details") is None
    )
    source = "estimated" if estimated else "provider"
    return {"usage": counts, "usage_source": source, "raw_usage": reported}


def _said(reported: Mapping[str, Any]) -> dict[str, Any]:
    """The report without the nulls that LiteLLM's objects are padded with."""
    return {
        name: _said(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value
        for name, value in reported.items()
        if value is not None
    }


def _components(reply: object, reported: Mapping[str, Any]) -> dict[str, int] | None:
    if read(reply, "type") == "message":
        return usage.from_anthropic(reported)
    totals = ("prompt_tokens", "completion_tokens")
    if reported.get("input_tokens") and not any(reported.get(total) for total in totals):
        # A sync poll of a batch: its counts in OpenAI's newer words, beside zeros in the older.
        return usage.from_openai({k: v for k, v in reported.items() if k not in totals})
    if reported.get("prompt_tokens") is not None:
        return usage.from_litellm(reported)
    if reported.get("type") == "duration" and isinstance(reported.get("seconds"), (int, float)):
        return {"duration_ms": round(reported["seconds"] * 1000)}
    return usage.from_openai(reported)


def executed_model(details: Details, reply: object) -> str | None:
    """The model that ran, without LiteLLM's provider prefix.

    A reply names it, except a stream's: LiteLLM assembles that under the name that was asked for
    (on the proxy, the client's alias), and only its price lookup has the real one.
    """
    provider = _text(details.get("custom_llm_provider"))
    named = _text(read(reply, "model"))
    if details.get("stream") is True or named is None:
        priced = read(_payload(details).get("model_map_information"), "model_map_key")
        named = _text(priced) or _text(details.get("model")) or named
    return model_name(named, provider)


def response_id(details: Details, reply: object, provider: str | None) -> str | None:
    """`provider/base URL/id` with an empty base for the provider's own address.

    LiteLLM wraps the ids of the Responses API in base64 of its routing; the provider's is inside.
    """
    own = _text(read(reply, "id"))
    if own is None or provider is None or own == details.get("litellm_call_id"):
        return None
    return (
        f"{provider}/{base_url(read(details.get('litellm_params'), 'api_base'))}/{_unwrapped(own)}"
    )


def _unwrapped(own: str) -> str:
    prefix, _, wrapped = own.partition("_")
    if prefix != "resp":
        return own
    try:
        inside = base64.b64decode(wrapped, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return own
    return inside.rpartition("response_id:")[2] if inside.startswith("litellm:") else own


def calls_tools(reply: object) -> bool:
    """Whether the reply asks for a tool: a step of the agent, not an answer."""
    for choice in read(reply, "choices") or ():
        message = read(choice, "message")
        if read(message, "tool_calls") or read(message, "function_call"):
            return True
    parts = [*(_list(read(reply, "output"))), *(_list(read(reply, "content")))]
    return any(read(part, "type") in ("function_call", "tool_use") for part in parts)


def forced_answer(details: Details) -> bool:
    """Whether the tool call is the answer itself: a forced function, or structured output."""
    asked = details.get("optional_params")
    choice = read(asked, "tool_choice")
    return (
        isinstance(choice, Mapping)
        or bool(read(asked, "response_format"))
        or bool(read(asked, "json_mode"))
    )


def host_cost(details: Details) -> str | None:
    """What LiteLLM makes of it, a second opinion in USD.

    None where it knows no price: unknown models, unread usage and failures all come as 0.
    """
    cost = details.get("response_cost")
    return repr(cost) if isinstance(cost, float) and cost > 0 else None


def _payload(details: Details) -> Mapping[str, Any]:
    return usage.as_mapping(details.get("standard_logging_object"))


def _error_text(details: Details) -> object:
    return _payload(details).get("error_str")


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
