"""An application that meters by hand: plain HTTP, and `costspan.adapter` around each request."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar

import httpx

from costspan.conformance.drivers.meter import Meter, Try
from costspan.conformance.suite.driver import Ask, Driver, Reply

_PATHS = {"chat": "chat/completions", "embeddings": "embeddings", "messages": "messages"}


class Manual(Driver):
    """`attribute`, `work`, `tool`, and an `Attempt` for every request."""

    name: ClassVar[str] = "manual"
    can: ClassVar[frozenset[str]] = frozenset(
        "sync async chat embeddings messages stream unasked_usage structured several tier timeout"
        " cancel abandon close cancel_stream host_retries fallback no_fallbacks verdict work tool"
        " agent together background owner other_owner loop_closes".split()
    )
    meter: ClassVar[type[Meter]] = Meter

    def ask(self, ask: Ask) -> Reply:
        """Make a call, try again, let another model stand in."""
        with httpx.Client(timeout=ask.call.timeout or 30) as client:
            for tried in _tries(ask):
                try:
                    return self._try(client, self.meter(ask, tried))
                except httpx.HTTPError:
                    if tried.is_last:
                        raise
        raise AssertionError("a call has at least one try")

    async def aask(self, ask: Ask) -> Reply:
        """Make a call on the event loop."""
        async with httpx.AsyncClient(timeout=ask.call.timeout or 30) as client:
            for tried in _tries(ask):
                try:
                    return await self._atry(client, self.meter(ask, tried))
                except httpx.HTTPError:
                    if tried.is_last:
                        raise
        raise AssertionError("a call has at least one try")

    def _try(self, client: httpx.Client, meter: Meter) -> Reply:
        url, body = self._request(meter)
        try:
            with client.stream("POST", url, json=body) as answer:
                answer.raise_for_status()
                for line in answer.iter_lines():
                    if meter.read(line):
                        break
        except BaseException as error:
            meter.fail(error)
            raise
        return meter.end()

    async def _atry(self, client: httpx.AsyncClient, meter: Meter) -> Reply:
        url, body = self._request(meter)
        try:
            async with client.stream("POST", url, json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if meter.read(line):
                        break
        except BaseException as error:
            meter.fail(error)
            raise
        return meter.end()

    def _request(self, meter: Meter) -> tuple[str, dict[str, Any]]:
        ask = meter.ask
        return f"{self.provider.base_url}/{_PATHS[ask.call.api]}", _body(ask, meter.tried.model)


def _tries(ask: Ask) -> Generator[Try]:
    """Each try: the model, the number, and what it is a retry of."""
    call = ask.call
    models = [call.model] * (call.retries + 1) + ([call.fallback] if call.fallback else [])
    before: list[str] = []
    for number, model in enumerate(models, 1):
        yield Try(model, number, number == len(models), before)


def _body(ask: Ask, model: str) -> dict[str, Any]:
    call = ask.call
    if call.api == "embeddings":
        return {"model": model, "input": [ask.prompt]}
    body: dict[str, Any] = {"model": model, "messages": ask.messages, "max_tokens": 1000}
    if call.stream:
        body["stream"] = True
        if call.asks_usage and call.api == "chat":
            body["stream_options"] = {"include_usage": True}
    if call.n > 1:
        body["n"] = call.n
    if call.tier:
        body["service_tier"] = call.tier
    names = [*ask.tools, *([call.structured] if call.structured else [])]
    if names:
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in names]
    if call.structured:
        body["tool_choice"] = {"type": "function", "function": {"name": call.structured}}
    return body


driver = Manual
