"""LiteLLM's proxy: a gateway in a process of its own, and clients that know nothing of costspan.

The tenant is whoever the proxy authenticated by the API key. What a client says of itself, in the
body or in headers, decides nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import httpx

from costspan.conformance.drivers.proxy_process import (
    FALLBACK,
    GUARD,
    IDENTITIES,
    NO_TLS,
    REROUTE,
    Proxy,
    api_key,
)
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import Ask, Driver, Reply, ToolCall
from costspan.conformance.suite.forged import FORGED, FORGED_HEADERS
from costspan.conformance.suite.script import Call

_PATHS = {
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
_PIECES = frozenset({"response.output_text.delta", "content_block_delta"})
_OUTPUT_TOKENS_MAX = 1024  # Anthropic's wire demands a limit

NOBODY = "a gateway that authenticates every request by its key has no requests of nobody"
_NO_SESSION = "a session that a client names is its own claim, and the key says of none"
_NO_LOOP = (
    "the gateway sees the calls of a loop that runs in its client, and not which tool asked; a"
    " client's word on that decides nothing. Meter the client too (langchain-proxy does)"
)


class GatewayFailed(Exception):
    """The proxy reported an error in the midst of a stream."""


class LiteLLMProxy(Driver):
    """Plain HTTP to a real proxy process."""

    name: ClassVar[str] = "litellm-proxy"
    can: ClassVar[frozenset[str]] = frozenset(
        "sync async chat embeddings responses messages stream structured several tier"
        " route usage_injected timeout abandon close cancel_stream hang_up host_retries fallback"
        " no_fallbacks rerouted guarded exact_cache agent tool owner other_owner together"
        " background claims_metadata claims_headers no_log"
        " metadata_identity team_identity org_identity key_identity".split()
    )
    known_failures: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("A04", "A05", "A15", "W19", "W22", "W23"), _NO_LOOP),
        **dict.fromkeys(("W10", "W15"), _NO_SESSION),
        "W09": NOBODY,
        "K04": "LiteLLM answers no async embeddings from its cache: each is a call, and billed",
    }

    def open(self, provider: LoopbackProvider, scratch: Path) -> None:
        """Start the proxy; half a minute."""
        super().open(provider, scratch)
        self.proxy = Proxy(provider, scratch)

    def close(self) -> None:
        """End the proxy."""
        self.proxy.close()

    def begin(self, options: frozenset[str]) -> None:
        """What a play before this one left unread belongs to no other books."""
        self.proxy.rotate()
        self.asks_no_log = "no_log" in options
        named = (each for each in IDENTITIES if f"{each}_identity" in options)
        self.identity = next(named, IDENTITIES[0])

    def spools(self) -> list[Path]:
        """The proxy's, complete."""
        return [self.proxy.rotate()]

    def ask(self, ask: Ask) -> Reply:
        """Send the request and read the answer, or leave it."""
        request = self.request(ask)
        if not ask.call.stream:
            return _reply(_checked(self.proxy.client.request(**request)))
        with self.proxy.client.stream(**request) as answer:
            answer.raise_for_status()
            heard = _Heard()
            for line in answer.iter_lines():
                if heard.content_in(line) and ask.piece():
                    break
            return heard.reply()

    async def aask(self, ask: Ask) -> Reply:
        """Send the request and read the answer, or leave it, on the event loop."""
        request = self.request(ask)
        proxy = self.proxy
        async with httpx.AsyncClient(base_url=proxy.url, timeout=60.0, verify=NO_TLS) as client:
            if not ask.call.stream:
                return _reply(_checked(await client.request(**request)))
            async with client.stream(**request) as answer:
                answer.raise_for_status()
                heard = _Heard()
                async for line in answer.aiter_lines():
                    if heard.content_in(line) and ask.piece():
                        break
                return heard.reply()

    def request(self, ask: Ask) -> dict[str, Any]:
        """Method, path, headers and body."""
        headers = {"Authorization": f"Bearer {api_key(ask.who.tenant, self.identity)}"}
        body = _body(ask)
        if ask.call.claims == "headers":
            headers |= FORGED_HEADERS
        elif ask.call.claims == "metadata":
            body |= {"metadata": dict(FORGED), "tags": ["tenant:initech"], "user": "initech"}
            body |= {name: FORGED[name] for name in ("session_id", "tenant")}
        headers |= policy_of(ask.call)
        if ask.call.rerouted is not None:
            headers[REROUTE] = ask.call.rerouted
        if ask.call.guarded is not None:
            headers[GUARD] = ask.call.guarded
        if self.asks_no_log:
            body["no-log"] = True
            headers["x-litellm-disable-callbacks"] = "all,costspan,CostLogger_PROXY_"
        return {"method": "POST", "url": _PATHS[ask.call.api], "headers": headers, "json": body}


def _body(ask: Ask) -> dict[str, Any]:
    call = ask.call
    body: dict[str, Any] = {"model": call.route or call.model}
    if call.api == "embeddings":
        body["input"] = [ask.prompt]
    elif call.api == "responses":
        body["input"] = ask.prompt
    else:
        body["messages"] = ask.messages
        body |= {"max_tokens": _OUTPUT_TOKENS_MAX} if call.api == "messages" else {}
    if call.stream:
        body["stream"] = True
        if call.asks_usage and call.api == "chat":
            body["stream_options"] = {"include_usage": True}
    if ask.tools:
        body["tools"] = [_function(name) for name in ask.tools]
    if call.structured:
        body["tools"] = [_function(call.structured)]
        body["tool_choice"] = {"type": "function", "function": {"name": call.structured}}
    if call.n > 1:
        body["n"] = call.n
    if call.tier is not None:
        body["service_tier"] = call.tier
    return body | of_proxy(call)


def of_proxy(call: Call) -> dict[str, Any]:
    """What only LiteLLM's proxy understands: how it tries again, and how long."""
    body: dict[str, Any] = {}
    if call.retries:
        body["num_retries"] = call.retries
    if call.timeout is not None:
        body["timeout"] = call.timeout
    if call.no_fallbacks:
        body["fallbacks"] = []
    if call.cache == "exact":
        body["cache"] = {"use-cache": True}
    return body


def policy_of(call: Call) -> dict[str, str]:
    """The headers that script what stands in, by the operator's policy."""
    return {} if call.fallback is None else {FALLBACK: call.fallback}


def _function(name: str) -> dict[str, Any]:
    text = {"type": "object", "properties": {"q": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": text}}


def _checked(answer: httpx.Response) -> Mapping[str, Any]:
    answer.raise_for_status()
    found: Mapping[str, Any] = answer.json()
    return found


def _reply(answer: Mapping[str, Any]) -> Reply:
    choices: Any = answer.get("choices")
    message: Any = choices[0]["message"] if choices else {}
    calls = tuple(
        ToolCall(each["id"], each["function"]["name"], each["function"]["arguments"])
        for each in message.get("tool_calls") or ()
    )
    return Reply(message.get("content") or "", calls, answer.get("id"))


class _Heard:
    """What came of a stream so far."""

    def __init__(self) -> None:
        self._id: str | None = None
        self._text = ""
        self._calls: dict[int, ToolCall] = {}

    def content_in(self, line: str) -> bool:
        """Take a line in; whether it carries a piece of the answer, in any of the protocols.

        Raises:
            GatewayFailed: if the line reports an error.
        """
        event = _event(line)
        if event is None:
            return False
        self._id = self._id or event.get("id")
        choices: Any = event.get("choices")
        delta: Any = choices[0].get("delta") or {} if choices else {}
        self._text += delta.get("content") or ""
        for each in delta.get("tool_calls") or ():
            before = self._calls.get(each["index"], ToolCall("", "", ""))
            function: Any = each.get("function") or {}
            self._calls[each["index"]] = ToolCall(
                before.id or each.get("id") or "",
                before.name or function.get("name") or "",
                before.arguments + (function.get("arguments") or ""),
            )
        return bool(delta.get("content")) or event.get("type") in _PIECES

    def reply(self) -> Reply:
        """The answer so far."""
        return Reply(self._text, tuple(self._calls.values()), self._id)


def _event(line: str) -> Mapping[str, Any] | None:
    """One event of a stream; None for what is not data.

    Raises:
        GatewayFailed: if the event is an error.
    """
    text = line.removeprefix("data:").strip()
    if text == line.strip() or not text.startswith("{"):
        return None
    event: Mapping[str, Any] = json.loads(text)
    if event.get("error") or event.get("type") in ("error", "response.failed"):
        raise GatewayFailed(text[:200])
    return event


driver = LiteLLMProxy
