"""One normaliser per wire shape: what providers and frameworks report -> disjoint components.

Each takes the usage object (mapping or SDK object) and returns component -> token count, or None
if there is none: an absent or empty usage is missing, never zero. OpenAI, LangChain and LiteLLM
report cached tokens inside the input, Anthropic's wire reports them apart. Reasoning tokens are
part of `output`, the way they are priced. Numbers that contradict each other (more cached than
input) come out negative and are refused as `invalid_usage` when recorded: visible, never a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

Usage = dict[str, int]


def as_mapping(value: Any) -> Mapping[str, Any]:
    """A usage object of any SDK as a mapping; empty if it is None or not one."""
    reported: Mapping[str, Any] = value
    if type(value) is dict:  # nearly always, and far cheaper to ask than an abstract class
        return reported
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return cast("Mapping[str, Any]", value)
    for method in ("model_dump", "dict"):
        dump = getattr(value, method, None)
        if callable(dump):
            dumped = dump()
            return cast("Mapping[str, Any]", dumped) if isinstance(dumped, Mapping) else {}
    return cast("Mapping[str, Any]", getattr(value, "__dict__", {}))


def _part(whole: Mapping[str, Any], *names: str) -> Any:
    """The first of these entries that says something; 0 if none does."""
    for name in names:
        value = whole.get(name)
        if value is not None:
            return value
    return 0


def _disjoint(total_in: Any, total_out: Any, **parts: Any) -> Usage:
    """Take the parts out of the totals they were reported inside of; drop parts that are zero."""
    spent = {name: count for name, count in parts.items() if count}
    inside_out = spent.get("audio_output", 0)
    inside_in = sum(spent.values()) - inside_out
    return {"input": total_in - inside_in, "output": total_out - inside_out, **spent}


def _writes(details: Mapping[str, Any], total: Any) -> Usage:
    """Cache writes by lifetime; what no lifetime is named for is the default, 5 minutes."""
    one_hour = _part(details, "ephemeral_1h_input_tokens")
    named = one_hour + _part(details, "ephemeral_5m_input_tokens")
    return {"cache_write_5m": max(total, named) - one_hour, "cache_write_1h": one_hour}


def from_openai(usage: object) -> Usage | None:
    """OpenAI's chat, embeddings and responses shapes: details are subsets of the totals."""
    reported = as_mapping(usage)
    if _says_nothing(reported, "prompt_tokens", "input_tokens", "completion_tokens"):
        return None
    details_in = as_mapping(
        reported.get("prompt_tokens_details") or reported.get("input_tokens_details")
    )
    details_out = as_mapping(
        reported.get("completion_tokens_details") or reported.get("output_tokens_details")
    )
    return _disjoint(
        _part(reported, "prompt_tokens", "input_tokens"),
        _part(reported, "completion_tokens", "output_tokens"),
        cache_read=_part(details_in, "cached_tokens"),
        cache_write_5m=_part(details_in, "cache_write_tokens"),
        audio_input=_part(details_in, "audio_tokens"),
        audio_output=_part(details_out, "audio_tokens"),
    )


def from_litellm(usage: object) -> Usage | None:
    """LiteLLM's `usage_object`: OpenAI's shape for every provider, cache reads AND writes inside.

    `cache_creation_tokens` and its per-lifetime details describe the same tokens.
    """
    reported = as_mapping(usage)
    if _says_nothing(reported, "prompt_tokens", "completion_tokens"):
        return None
    details_in = as_mapping(reported.get("prompt_tokens_details"))
    details_out = as_mapping(reported.get("completion_tokens_details"))
    written = _part(details_in, "cache_creation_tokens", "cache_write_tokens") or _part(
        reported, "cache_creation_input_tokens"
    )
    server_tools = as_mapping(reported.get("server_tool_use"))
    searches = _part(server_tools, "web_search_requests") or _part(
        details_in, "web_search_requests"
    )
    components = _disjoint(
        _part(reported, "prompt_tokens"),
        _part(reported, "completion_tokens"),
        cache_read=_part(details_in, "cached_tokens") or _part(reported, "cache_read_input_tokens"),
        **_writes(as_mapping(details_in.get("cache_creation_token_details")), written),
        audio_input=_part(details_in, "audio_tokens"),
        audio_output=_part(details_out, "audio_tokens"),
    )
    return {**components, "web_searches": searches} if searches else components


def from_anthropic(usage: object) -> Usage | None:
    """Anthropic's Messages shape: `input_tokens` excludes cache reads and writes already."""
    reported = as_mapping(usage)
    if _says_nothing(reported, "input_tokens", "output_tokens"):
        return None
    lifetimes = as_mapping(reported.get("cache_creation"))
    server_tools = as_mapping(reported.get("server_tool_use"))
    parts = {
        "cache_read": _part(reported, "cache_read_input_tokens"),
        **_writes(lifetimes, _part(reported, "cache_creation_input_tokens")),
        "web_searches": _part(server_tools, "web_search_requests"),
    }
    return {
        "input": _part(reported, "input_tokens"),
        "output": _part(reported, "output_tokens"),
        **{name: count for name, count in parts.items() if count},
    }


_TIERED = {
    name: (name, f"priority_{name}", f"flex_{name}") for name in ("cache_read", "cache_creation")
}


def from_langchain(usage: object) -> Usage | None:
    """LangChain's `usage_metadata`: details are subsets of the totals, for every provider.

    On OpenAI's priority and flex tiers the detail keys carry the tier as a prefix.
    """
    reported = as_mapping(usage)
    if _says_nothing(reported, "input_tokens", "output_tokens"):
        return None
    total_in, total_out = _part(reported, "input_tokens"), _part(reported, "output_tokens")
    details_in = as_mapping(reported.get("input_token_details"))
    details_out = as_mapping(reported.get("output_token_details"))
    if not details_in and not details_out:
        return {"input": total_in, "output": total_out}
    return _disjoint(
        total_in,
        total_out,
        cache_read=_part(details_in, *_TIERED["cache_read"]),
        **_writes(details_in, _part(details_in, *_TIERED["cache_creation"])),
        audio_input=_part(details_in, "audio"),
        audio_output=_part(details_out, "audio"),
    )


def _says_nothing(reported: Mapping[str, Any], *names: str) -> bool:
    for name in names:  # noqa: SIM110  (a generator costs more than what it asks for)
        if reported.get(name) is not None:
            return False
    return True
