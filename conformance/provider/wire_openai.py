"""OpenAI's wire shapes for chat completions, embeddings, models and errors."""

import base64
import hashlib
import json
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from costspan.conformance.provider.answer import Failure
from costspan.conformance.provider.call import embedding_inputs
from costspan.conformance.provider.reply import Reply, Tokens

_DEFAULT_DIMENSIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One server-sent event; ``content`` marks those that carry what the model wrote."""

    data: bytes
    content: bool = False


def encode(value: object) -> bytes:
    """JSON as it goes on the wire."""
    return json.dumps(value, separators=(",", ":")).encode()


def error_body(failure: Failure) -> bytes:
    """The error object of every endpoint."""
    error = {"message": failure.message, "type": failure.type, "param": None, "code": failure.code}
    return encode({"error": error})


def models_body(names: Sequence[str]) -> bytes:
    """GET /v1/models."""
    return encode({"object": "list", "data": [model_object(name) for name in names]})


def model_object(name: str) -> dict[str, Any]:
    """One model of the list."""
    return {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "loopback"}


def chat_usage(tokens: Tokens) -> dict[str, Any]:
    """Usage of a chat completion: prompt_tokens include the cached ones."""
    prompt_details = {"cached_tokens": tokens.cached, "audio_tokens": tokens.audio_in}
    if tokens.cache_write:
        prompt_details["cache_write_tokens"] = tokens.cache_write
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": tokens.audio_out,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def chat_body(reply: Reply) -> bytes:
    """A whole chat completion: ``n`` choices, one usage."""
    choices = [
        {
            "index": index,
            "message": _message(reply, index),
            "logprobs": None,
            "finish_reason": reply.finish,
        }
        for index in range(reply.n)
    ]
    body = _chat_head(reply, "chat.completion") | {"choices": choices}
    if reply.tokens is not None:
        body["usage"] = chat_usage(reply.tokens)
    return encode(body)


def chat_frames(reply: Reply, include_usage: bool) -> Iterator[Frame]:
    """A chat completion as server-sent events.

    With ``include_usage`` every chunk has a null usage, and one more chunk without choices, just
    before ``[DONE]``, has the whole usage.
    """
    head = _chat_head(reply, "chat.completion.chunk")
    told = include_usage and reply.tokens is not None
    empty: dict[str, Any] = {"usage": None} if told else {}

    def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        return sse(head | {"choices": [choice]} | empty)

    everyone = range(reply.n)
    for index in everyone:
        yield Frame(chunk(index, {"role": "assistant", "content": None if reply.tools else ""}))
    for piece in reply.pieces() if reply.text else ():
        for index in everyone:
            yield Frame(chunk(index, {"content": piece}), content=True)
    for index in everyone:
        for delta in _tool_deltas(reply, index):
            yield Frame(chunk(index, {"tool_calls": [delta]}), content=True)
    for index in everyone:
        yield Frame(chunk(index, {}, reply.finish))
    if told and reply.tokens is not None:
        yield Frame(sse(head | {"choices": list[Any](), "usage": chat_usage(reply.tokens)}))
    yield Frame(b"data: [DONE]\n\n")


def embeddings_body(reply: Reply) -> bytes:
    """A list of embeddings, one for each input, deterministic in its text."""
    inputs = embedding_inputs(reply.request)
    asked = reply.request.get("dimensions")
    size = asked if isinstance(asked, int) and 0 < asked <= 4096 else _DEFAULT_DIMENSIONS
    as_base64 = reply.request.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _embedding(item, size, as_base64)}
        for index, item in enumerate(inputs)
    ]
    body: dict[str, Any] = {"object": "list", "data": data, "model": reply.model}
    if reply.tokens is not None:
        body["usage"] = {"prompt_tokens": reply.tokens.prompt, "total_tokens": reply.tokens.prompt}
    return encode(body)


def sse(value: object, event: str | None = None) -> bytes:
    """One server-sent event."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + encode(value) + b"\n\n"


def _chat_head(reply: Reply, kind: str) -> dict[str, Any]:
    return {
        "id": reply.id,
        "object": kind,
        "created": reply.created,
        "model": reply.model,
        "service_tier": reply.tier,
        "system_fingerprint": "fp_loopback",
    }


def _message(reply: Reply, choice: int) -> dict[str, Any]:
    message: dict[str, Any] = {
        "role": "assistant",
        "content": reply.text if reply.text or not reply.tools else None,
        "refusal": None,
        "annotations": list[Any](),
    }
    if reply.tools:
        message["tool_calls"] = [
            {
                "id": reply.tool_call_id(index, choice),
                "type": "function",
                "function": {"name": tool.name, "arguments": tool.arguments},
            }
            for index, tool in enumerate(reply.tools)
        ]
    return message


def _tool_deltas(reply: Reply, choice: int) -> Iterator[dict[str, Any]]:
    """Each call in three chunks, as the real one does: the name, then its arguments in halves."""
    for index, tool in enumerate(reply.tools):
        yield {
            "index": index,
            "id": reply.tool_call_id(index, choice),
            "type": "function",
            "function": {"name": tool.name, "arguments": ""},
        }
        for part in halves(tool.arguments):
            yield {"index": index, "function": {"arguments": part}}


def halves(text: str) -> tuple[str, str]:
    """The two halves of a text."""
    middle = (len(text) + 1) // 2
    return text[:middle], text[middle:]


def _embedding(item: str | list[int], size: int, as_base64: bool) -> list[float] | str:
    seed = hashlib.shake_256(repr(item).encode("utf-8", "surrogatepass")).digest(size)
    vector = [byte - 127.5 for byte in seed]
    length = math.hypot(*vector)
    unit = [value / length for value in vector]
    if not as_base64:
        return unit
    return base64.b64encode(struct.pack(f"<{size}f", *unit)).decode()
