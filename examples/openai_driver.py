"""Plays the conformance suite through the plain OpenAI SDK, metered by `openai_adapter`.

pytest --pyargs costspan.conformance --adapter examples.openai_driver:driver
"""

from __future__ import annotations

from typing import Any

import httpx
import openai
from examples.openai_adapter import AsyncMetered, Metered

from costspan.conformance.suite.driver import Ask, Driver, Reply, ToolCall


class OpenAISdk(Driver):
    name = "openai-sdk"
    can = frozenset(
        "sync async chat embeddings stream unasked_usage structured several tier timeout cancel"
        " abandon close cancel_stream sdk_retries verdict work tool agent together background"
        " owner other_owner loop_closes".split()
    )

    def ask(self, ask: Ask) -> Reply:
        with httpx.Client(transport=Metered()) as http:
            client = openai.OpenAI(http_client=http, **self._at(ask))
            if ask.call.api == "embeddings":
                client.embeddings.create(model=ask.call.model, input=[ask.prompt])
                return Reply()
            answer: Any = client.chat.completions.create(**_options(ask))
            if not ask.call.stream:
                return _reply(answer)
            calls: dict[int, ToolCall] = {}
            for chunk in answer:
                if _read(chunk, calls) and ask.piece():
                    break
            answer.close()
            return Reply(tool_calls=tuple(calls.values()))

    async def aask(self, ask: Ask) -> Reply:
        async with httpx.AsyncClient(transport=AsyncMetered()) as http:
            client = openai.AsyncOpenAI(http_client=http, **self._at(ask))
            if ask.call.api == "embeddings":
                await client.embeddings.create(model=ask.call.model, input=[ask.prompt])
                return Reply()
            answer: Any = await client.chat.completions.create(**_options(ask))
            if not ask.call.stream:
                return _reply(answer)
            calls: dict[int, ToolCall] = {}
            async for chunk in answer:
                if _read(chunk, calls) and ask.piece():
                    break
            await answer.close()
            return Reply(tool_calls=tuple(calls.values()))

    def _at(self, ask: Ask) -> dict[str, Any]:
        return {
            "base_url": self.provider.base_url,
            "api_key": "loopback",
            "max_retries": ask.call.retries,
            "timeout": ask.call.timeout or 30,
        }


def _options(ask: Ask) -> dict[str, Any]:
    call = ask.call
    options: dict[str, Any] = {"model": call.model, "messages": ask.messages}
    names = [*ask.tools, *([call.structured] if call.structured else [])]
    if names:
        options["tools"] = [{"type": "function", "function": {"name": name}} for name in names]
    if call.structured:
        options["tool_choice"] = {"type": "function", "function": {"name": call.structured}}
    if call.stream:
        options |= {"stream": True, "stream_options": {"include_usage": call.asks_usage}}
    if call.n > 1:
        options["n"] = call.n
    if call.tier:
        options["service_tier"] = call.tier
    return options


def _read(chunk: Any, calls: dict[int, ToolCall]) -> bool:
    """Take up the tools that a piece of a stream calls; whether it has content."""
    if not chunk.choices:
        return False
    delta = chunk.choices[0].delta
    for each in delta.tool_calls or ():
        known = calls.get(each.index) or ToolCall(each.id, each.function.name, "")
        calls[each.index] = known._replace(
            arguments=known.arguments + (each.function.arguments or "")
        )
    return bool(delta.content)


def _reply(answer: Any) -> Reply:
    message = answer.choices[0].message
    calls = tuple(
        ToolCall(each.id, each.function.name, each.function.arguments)
        for each in message.tool_calls or ()
    )
    return Reply(message.content or "", calls, answer.id)


driver = OpenAISdk
