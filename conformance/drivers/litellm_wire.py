"""The shapes of LiteLLM's four model calls: what is asked, and what comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import Ask, Reply, ToolCall
from costspan.conformance.suite.script import Api

_MAX_TOKENS = 1000
_PARAMETERS = {"type": "object", "properties": {"q": {"type": "string"}}}


class Form(NamedTuple):
    """One of LiteLLM's calls: its methods, sync and async, and the shapes of its arguments."""

    api: Api
    method: str
    amethod: str
    tool: Callable[[str], dict[str, Any]]
    choice: Callable[[str], dict[str, Any]]
    has_content: Callable[[Any], bool]
    reply: Callable[[Ask, Any, LoopbackProvider], Reply]


def form(ask: Ask, *, is_async: bool) -> Form:
    """How this is asked.

    LiteLLM has Anthropic's own call on the event loop only, and its streams only where the proxy's
    packages are installed: otherwise that wire lies below `completion`.
    """
    call = ask.call
    is_below = call.api == "messages" and (not is_async or call.stream)
    return _FORMS["chat" if is_below else call.api]


def asked(ask: Ask, form: Form) -> dict[str, Any]:
    """The keyword arguments that say what is asked."""
    call = ask.call
    if form.api == "embeddings":
        return {"input": [ask.prompt]}
    asked: dict[str, Any] = {"input" if form.api == "responses" else "messages": ask.messages}
    names = [*ask.tools, *([call.structured] if call.structured else ())]
    if names:
        asked["tools"] = [form.tool(name) for name in names]
    if call.structured:
        asked["tool_choice"] = form.choice(call.structured)
    if call.api == "messages":
        asked["max_tokens"] = _MAX_TOKENS
    if call.stream:
        asked["stream"] = True
        if call.asks_usage and form.api == "chat":
            asked["stream_options"] = {"include_usage": True}
    if call.n > 1:
        asked["n"] = call.n
    if call.tier:
        asked["service_tier"] = call.tier
    return asked


def provider_of(model: str) -> str:
    """By which of LiteLLM's providers a model is called: Anthropic's wire for Anthropic's."""
    return "anthropic" if model.startswith("claude") else "openai"


def address(provider: LoopbackProvider, model: str) -> str:
    """The base URL of a model, as LiteLLM wants it."""
    return provider.url if provider_of(model) == "anthropic" else provider.base_url


def _chat_has_content(chunk: Any) -> bool:
    return bool(chunk.choices and chunk.choices[0].delta.content)


def _responses_has_content(chunk: Any) -> bool:
    return str(getattr(chunk, "type", "")).endswith("output_text.delta")


def _messages_has_content(chunk: Any) -> bool:
    return b"content_block_delta" in (chunk if isinstance(chunk, bytes) else str(chunk).encode())


def _chat_reply(ask: Ask, answer: Any, provider: LoopbackProvider) -> Reply:
    message = answer.choices[0].message
    calls = tuple(
        ToolCall(each.id, each.function.name, each.function.arguments)
        for each in message.tool_calls or ()
    )
    model = ask.call.model
    named = f"{provider_of(model)}/{address(provider, model)}/{answer.id}"
    return Reply(message.content or "", calls, named)


def _no_reply(ask: Ask, answer: Any, provider: LoopbackProvider) -> Reply:
    """No scenario goes on from these."""
    return Reply()


def _named(name: str) -> dict[str, Any]:
    return {"name": name, "parameters": _PARAMETERS}


def _function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": _named(name)}


def _flat_function(name: str) -> dict[str, Any]:
    return {"type": "function", **_named(name)}


def _schema(name: str) -> dict[str, Any]:
    return {"name": name, "input_schema": _PARAMETERS}


def _the_function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def _the_flat_function(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name}


def _the_tool(name: str) -> dict[str, Any]:
    return {"type": "tool", "name": name}


_FORMS: Mapping[Api, Form] = {
    "chat": Form(
        api="chat",
        method="completion",
        amethod="acompletion",
        tool=_function,
        choice=_the_function,
        has_content=_chat_has_content,
        reply=_chat_reply,
    ),
    "responses": Form(
        api="responses",
        method="responses",
        amethod="aresponses",
        tool=_flat_function,
        choice=_the_flat_function,
        has_content=_responses_has_content,
        reply=_no_reply,
    ),
    "messages": Form(
        api="messages",
        method="completion",
        amethod="anthropic_messages",
        tool=_schema,
        choice=_the_tool,
        has_content=_messages_has_content,
        reply=_no_reply,
    ),
    "embeddings": Form(
        api="embeddings",
        method="embedding",
        amethod="aembedding",
        tool=_named,
        choice=_named,
        has_content=bool,
        reply=_no_reply,
    ),
}
