"""The smallest adapter there can be: what any instrument has to tell of a request, in one class.

The manual driver meters with it; `costspan.conformance.broken` breaks it in every way we know.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NamedTuple

import httpx

from costspan.adapter import Attempt, usage
from costspan.conformance.suite.driver import Ask, Reply, ToolCall

_UNBILLED_STATUS = frozenset({429, 503})
_UNKNOWN_STATUS = frozenset({408, 499})


class Try(NamedTuple):
    """One try of a call: with which model, the how-manieth, and the attempts before it."""

    model: str
    number: int
    is_last: bool
    before: list[str]


class Meter:
    """Meters one try: START before the request leaves, one END; keeps no text."""

    def __init__(self, ask: Ask, tried: Try) -> None:
        self.ask = ask
        self.tried = tried
        self.usage: dict[str, Any] = {}
        self.model: str | None = None
        self.tier: str | None = None
        self.response_id: str | None = None
        self.tools: list[ToolCall] = []
        self.has_left = False
        self._whole: list[str] = []
        self._has_begun = False
        self.attempt = self.start()
        tried.before.append(self.attempt.attempt_id or "")

    def start(self) -> Attempt:
        """Write the intent down, with the owner of here and now."""
        return Attempt.start(**self.intent())

    def intent(self) -> dict[str, Any]:
        """What is known before the request leaves."""
        call, tried = self.ask.call, self.tried
        facts: dict[str, Any] = {}
        if tried.before:
            facts = {"retry_of": tried.before[-1], "retry_reason": "provider"}
        if tried.model != call.model:
            facts["route_reason"] = "fallback"
        return {
            "kind": "embedding" if call.api == "embeddings" else "model",
            "provider": "anthropic" if call.api == "messages" else "openai",
            "requested_model": call.model,
            "attempt": tried.number,
            **facts,
        }

    def read(self, line: str) -> bool:
        """Take a line of the reply; True where the reader leaves."""
        self._has_begun = True
        call = self.ask.call
        if not call.stream:
            self._whole.append(line)
            return False
        if not line.startswith("data: {"):
            return False
        event = json.loads(line.removeprefix("data: "))
        self._note(event.get("message") or event)
        deltas = [choice["delta"] for choice in event.get("choices") or ()]
        self._note_tools(deltas)
        has_text = any(delta.get("content") for delta in deltas)
        has_text = has_text or event.get("type") == "content_block_delta"
        self.has_left = has_text and self.ask.piece()
        return self.has_left

    def end(self) -> Reply:
        """Record the result of a request that did not fail."""
        if self._whole:
            self._note_whole(json.loads("\n".join(self._whole)))
        self.attempt.end(**self.result())
        return Reply(tool_calls=tuple(self.tools), response_id=self.response_id)

    def result(self) -> dict[str, Any]:
        """What is known now that the reply is here, or its reader has left."""
        facts: dict[str, Any] = {
            "usage": self.tokens(),
            "executed_model": self.model,
            "tier": self.tier,
            "response_id": self.response_id,
        }
        if self.has_left:
            facts |= {"provider_result": "unknown", "delivery": "cancelled_by_user"}
        elif self.tools and not self.ask.call.structured:
            facts |= {"cause": "step", "cause_source": "structure", "initiator": "agent"}
        return facts

    def tokens(self) -> dict[str, int] | None:
        """The usage in disjoint components; None if it was never told."""
        if self.has_left:
            return None
        from_wire = usage.from_anthropic if self.ask.call.api == "messages" else usage.from_openai
        return from_wire(self.usage)

    def fail(self, error: BaseException) -> None:
        """Record a failure: who is at fault, and whether it cost."""
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            self.attempt.fail(error, provider_result="unknown", delivery="cancelled_by_user")
        else:
            self.attempt.fail(error, fault="provider", provider_billed=self._billed(error))

    def _billed(self, error: BaseException) -> bool | None:
        if isinstance(error, httpx.HTTPStatusError):
            status = error.response.status_code
            refused = 400 <= status < 500 and status not in _UNKNOWN_STATUS
            return False if refused or status in _UNBILLED_STATUS else None
        never_sent = isinstance(error, httpx.ConnectError)
        refused = isinstance(error, httpx.RemoteProtocolError) and not self._has_begun
        return False if never_sent or refused else None

    def _note(self, said: dict[str, Any]) -> None:
        self.usage.update(said.get("usage") or {})
        self.model = said.get("model") or self.model
        self.tier = said.get("service_tier") or self.tier
        self.response_id = said.get("id") or self.response_id

    def _note_whole(self, answer: dict[str, Any]) -> None:
        self._note(answer)
        self._note_tools([choice["message"] for choice in answer.get("choices") or ()])

    def _note_tools(self, messages: list[dict[str, Any]]) -> None:
        """The tools that a message, or a piece of one, calls; later pieces bring arguments."""
        for message in messages:
            for each in message.get("tool_calls") or ():
                function = each["function"]
                if each.get("id"):
                    call = ToolCall(each["id"], function["name"], function.get("arguments") or "")
                    self.tools.append(call)
                elif self.tools:
                    last = self.tools.pop()
                    more = function.get("arguments") or ""
                    self.tools.append(last._replace(arguments=last.arguments + more))
