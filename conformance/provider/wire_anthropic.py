"""Anthropic's wire shapes for the Messages API: replies, their streams, errors."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from costspan.conformance.provider.answer import Failure
from costspan.conformance.provider.prices import BASE_TIERS
from costspan.conformance.provider.reply import Reply, Tokens, ToolCall
from costspan.conformance.provider.wire_openai import Frame, encode, halves, sse

_ERROR_TYPE: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STOP_REASON: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


def messages_error_body(failure: Failure, request_id: str) -> bytes:
    """The error object of the Messages API."""
    kind = _ERROR_TYPE.get(
        failure.status, "invalid_request_error" if failure.status < 500 else "api_error"
    )
    error = {"type": kind, "message": failure.message}
    return encode({"type": "error", "error": error, "request_id": request_id})


def messages_usage(tokens: Tokens, tier: str) -> dict[str, Any]:
    """Usage of a message: ``input_tokens`` exclude what the cache gave and took."""
    lifetimes = {
        "ephemeral_5m_input_tokens": tokens.cache_write,
        "ephemeral_1h_input_tokens": tokens.cache_write_1h,
    }
    return _cumulative_usage(tokens) | {
        "cache_creation": lifetimes,
        "service_tier": "standard" if tier in BASE_TIERS else tier,
    }


def message_body(reply: Reply) -> bytes:
    """A whole message."""
    blocks = [_text_block(reply.text)] if _has_text(reply) else []
    blocks += [
        _tool_block(reply, tool, index) | {"input": tool.input()}
        for index, tool in enumerate(reply.tools)
    ]
    return encode(_message(reply, blocks, _stop_reason(reply), reply.tokens))


def message_frames(reply: Reply) -> Iterator[Frame]:
    """A message as server-sent events.

    ``message_start`` tells the prompt's usage, with the lifetimes of cache writes and the tier;
    ``message_delta`` at the end repeats the totals with the final output, but not those two: a
    client has to read both.
    """
    for event, is_content in _events(reply):
        yield Frame(sse(event, event["type"]), is_content)


def _events(reply: Reply) -> Iterator[tuple[dict[str, Any], bool]]:
    started = None if reply.tokens is None else _at_start(reply.tokens)
    yield {"type": "message_start", "message": _message(reply, [], None, started)}, False
    index = 0
    if _has_text(reply):
        deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces()]
        yield from _block_events(index, _text_block(""), deltas)
        index += 1
    for number, tool in enumerate(reply.tools):
        # As the real one does: an empty part first, then the arguments in pieces.
        parts = ("", *halves(tool.arguments))
        deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
        yield from _block_events(index + number, _tool_block(reply, tool, number), deltas)
    ended = {"stop_reason": _stop_reason(reply), "stop_sequence": None}
    last: dict[str, Any] = {"type": "message_delta", "delta": ended}
    if reply.tokens is not None:
        last["usage"] = _cumulative_usage(reply.tokens)
    yield last, False
    yield {"type": "message_stop"}, False


def _block_events(
    index: int, block: dict[str, Any], deltas: list[dict[str, str]]
) -> Iterator[tuple[dict[str, Any], bool]]:
    yield {"type": "content_block_start", "index": index, "content_block": block}, False
    if index == 0:
        yield {"type": "ping"}, False
    for delta in deltas:
        is_content = delta.get("partial_json") != ""
        yield {"type": "content_block_delta", "index": index, "delta": delta}, is_content
    yield {"type": "content_block_stop", "index": index}, False


def _at_start(tokens: Tokens) -> Tokens:
    """What is known when a stream starts: the prompt, and an output that counts the first token."""
    return replace(
        tokens,
        completion=min(1, tokens.completion),
        reasoning=0,
        audio_out=0,
        web_searches=0,
    )


def _cumulative_usage(tokens: Tokens) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "input_tokens": tokens.uncached,
        "cache_creation_input_tokens": tokens.cache_write + tokens.cache_write_1h,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.completion,
    }
    if tokens.reasoning:
        usage["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    if tokens.web_searches:
        usage["server_tool_use"] = {"web_search_requests": tokens.web_searches}
    return usage


def _message(
    reply: Reply, blocks: list[dict[str, Any]], stop_reason: str | None, tokens: Tokens | None
) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": blocks,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }
    if tokens is not None:
        message["usage"] = messages_usage(tokens, reply.tier)
    return message


def _has_text(reply: Reply) -> bool:
    return bool(reply.text) or not reply.tools


def _text_block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _tool_block(reply: Reply, tool: ToolCall, index: int) -> dict[str, Any]:
    """A tool call before its input is known."""
    identity = f"toolu_{reply.id[-20:]}_{index}"
    return {"type": "tool_use", "id": identity, "name": tool.name, "input": dict[str, Any]()}


def _stop_reason(reply: Reply) -> str:
    return _STOP_REASON.get(reply.finish, reply.finish)
