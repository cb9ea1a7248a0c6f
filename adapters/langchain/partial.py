"""What is known of a reply that never ended: lengths and what the provider had said, no text.

A provider tells the usage last. Where a stream is abandoned, cancelled or broken before that, its
tokens are estimated from the characters of the request and of what came, and called an estimate.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.messages.ai import UsageMetadata, add_usage

from costspan.adapter import usage

ESTIMATOR = "characters/4"
"""Tokens of a text, when nobody counted them: a quarter of its characters, rounded up."""

_TEXTS = ("text", "thinking", "reasoning")
_SAID = ("id", "model_name", "model_provider", "service_tier")


class Partial:
    """The part of a reply that has come so far.

    Of several handlers on one run only the first counts (`reader`); a token that is told as a
    chunk and as an event counts once.
    """

    __slots__ = ("_by_chunks", "characters", "reader", "said", "told")

    def __init__(self, reader: object) -> None:
        self.reader = reader
        self.characters = 0
        self.told: UsageMetadata | None = None
        self.said: dict[str, Any] = {}
        self._by_chunks = False

    def take_chunk(self, token: object, chunk: object) -> None:
        """Count a token, and keep what its chunk says of model, response and usage."""
        self._by_chunks = True
        self.characters += len(token) if type(token) is str else characters_of(token)
        message = getattr(chunk, "message", None)
        if message is None:
            return
        for call in getattr(message, "tool_call_chunks", ()):
            self.characters += len(call.get("args") or "")
        told = getattr(message, "usage_metadata", None)
        if told:
            self.told = add_usage(self.told, told)
        if said := message.response_metadata:
            self.said.update((name, said[name]) for name in _SAID if name in said)

    def take_event(self, event: object) -> None:
        """Count a protocol event's content where it comes without chunks."""
        if not self._by_chunks and isinstance(event, Mapping):
            delta: Any = cast("Mapping[str, Any]", event).get("delta")
            self.characters += characters_of([delta])

    def facts(self, request_characters: int, tools: object) -> dict[str, Any]:
        """The usage the provider reported after all, or the estimate of what was spent."""
        reported = usage.from_langchain(self.told)
        if reported is not None:
            return {"usage": reported, "raw_usage": dict(self.told or {})}
        asked = request_characters + (len(json.dumps(tools, default=str)) if tools else 0)
        spent = {"input": tokens_of(asked), "output": tokens_of(self.characters)}
        counted = {"characters_in": asked, "characters_out": self.characters}
        return {
            "usage": spent,
            "usage_source": "estimated",
            "raw_usage": {"estimator": ESTIMATOR, **counted},
        }


def tokens_of(characters: int) -> int:
    """The estimated tokens of a text of this length."""
    return -(-characters // 4)


def characters_of(content: object) -> int:
    """The length of a message's content: a text, or blocks of which some have text."""
    if isinstance(content, str):
        return len(content)
    if not isinstance(content, list):
        return 0
    length = 0
    for block in cast("list[object]", content):
        if isinstance(block, str):
            length += len(block)
        elif isinstance(block, Mapping):
            fields = cast("Mapping[str, Any]", block)
            texts = (fields.get(name) for name in _TEXTS)
            length += sum(len(text) for text in texts if isinstance(text, str))
    return length


def request_characters(messages: Sequence[object]) -> int:
    """The length of what was asked: messages, or the prompts of a completion model."""
    length = 0
    for asked in messages:
        content: object = asked if isinstance(asked, str) else getattr(asked, "content", None)
        length += len(content) if isinstance(content, str) else characters_of(content)
    return length
