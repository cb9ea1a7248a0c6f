"""OpenAI's wire shapes for the Responses API."""

from collections.abc import Iterator
from typing import Any

from costspan.conformance.provider.reply import Reply, Tokens, ToolCall
from costspan.conformance.provider.wire_openai import Frame, encode, halves, sse

_ECHOED = (
    *("instructions", "metadata", "temperature", "top_p", "max_output_tokens", "user"),
    *("parallel_tool_calls", "tool_choice", "tools", "previous_response_id", "text", "reasoning"),
)


def responses_usage(tokens: Tokens) -> dict[str, Any]:
    """Usage of a response: input_tokens include the cached ones."""
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_write_tokens": tokens.cache_write,
        },
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.prompt + tokens.completion,
    }


def responses_body(reply: Reply) -> bytes:
    """A whole response."""
    return encode(_finished(reply))


def responses_frames(reply: Reply) -> Iterator[Frame]:
    """A response as server-sent events; the usage comes in ``response.completed``."""
    for number, (event, content) in enumerate(_events(reply)):
        numbered = event | {"sequence_number": number}
        yield Frame(sse(numbered, event["type"]), content)


def _events(reply: Reply) -> Iterator[tuple[dict[str, Any], bool]]:
    started = _response(reply, "in_progress", [], None)
    yield {"type": "response.created", "response": started}, False
    yield {"type": "response.in_progress", "response": started}, False
    index = 0
    if reply.text or not reply.tools:
        yield from _message_events(reply, index)
        index += 1
    for number, tool in enumerate(reply.tools):
        yield from _tool_events(reply, tool, number, index + number)
    finished = _finished(reply)
    yield {"type": f"response.{finished['status']}", "response": finished}, False


def _message_events(reply: Reply, index: int) -> Iterator[tuple[dict[str, Any], bool]]:
    item = _message(reply)
    place = {"output_index": index, "item_id": item["id"], "content_index": 0}
    fresh = item | {"status": "in_progress", "content": list[Any]()}
    yield {"type": "response.output_item.added", "output_index": index, "item": fresh}, False
    part = item["content"][0]
    yield {"type": "response.content_part.added", **place, "part": part | {"text": ""}}, False
    delta = {"type": "response.output_text.delta", **place, "logprobs": list[Any]()}
    for piece in reply.pieces():
        yield delta | {"delta": piece}, True
    done = {"type": "response.output_text.done", **place, "logprobs": list[Any]()}
    yield done | {"text": reply.text}, False
    yield {"type": "response.content_part.done", **place, "part": part}, False
    yield {"type": "response.output_item.done", "output_index": index, "item": item}, False


def _tool_events(
    reply: Reply, tool: ToolCall, number: int, index: int
) -> Iterator[tuple[dict[str, Any], bool]]:
    item = _function_call(reply, tool, number)
    place = {"output_index": index, "item_id": item["id"]}
    fresh = item | {"status": "in_progress", "arguments": ""}
    yield {"type": "response.output_item.added", "output_index": index, "item": fresh}, False
    for part in halves(tool.arguments):
        yield {"type": "response.function_call_arguments.delta", **place, "delta": part}, True
    done = {"type": "response.function_call_arguments.done", **place, "name": tool.name}
    yield done | {"arguments": tool.arguments}, False
    yield {"type": "response.output_item.done", "output_index": index, "item": item}, False


def _finished(reply: Reply) -> dict[str, Any]:
    output = [_message(reply)] if reply.text or not reply.tools else []
    output += [_function_call(reply, tool, number) for number, tool in enumerate(reply.tools)]
    status = "incomplete" if reply.finish in ("length", "content_filter") else "completed"
    return _response(reply, status, output, reply.tokens)


def _response(
    reply: Reply, status: str, output: list[dict[str, Any]], tokens: Tokens | None
) -> dict[str, Any]:
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    incomplete = {"reason": reasons[reply.finish]} if status == "incomplete" else None
    body: dict[str, Any] = {
        "id": reply.id,
        "object": "response",
        "created_at": reply.created,
        "status": status,
        "error": None,
        "incomplete_details": incomplete,
        "model": reply.model,
        "output": output,
        "service_tier": reply.tier,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None if tokens is None else responses_usage(tokens),
    }
    echo = {name: reply.request[name] for name in _ECHOED if reply.request.get(name) is not None}
    return body | echo


def _message(reply: Reply) -> dict[str, Any]:
    text = {
        "type": "output_text",
        "text": reply.text,
        "annotations": list[Any](),
        "logprobs": list[Any](),
    }
    return {
        "type": "message",
        "id": f"msg_{reply.id[-32:]}",
        "role": "assistant",
        "status": "completed",
        "content": [text],
    }


def _function_call(reply: Reply, tool: ToolCall, number: int) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{reply.id[-32:]}_{number}",
        "call_id": reply.tool_call_id(number),
        "name": tool.name,
        "arguments": tool.arguments,
        "status": "completed",
    }
