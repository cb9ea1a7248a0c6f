"""A third party's adapter for a host that costspan does not ship: the plain OpenAI SDK.

    client = openai.OpenAI(http_client=httpx.Client(transport=Metered()))

It sits under the SDK, in its HTTP transport, so it sees every request, silent retries among them.
`openai_driver.py` plays it through the conformance suite.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from costspan.adapter import Attempt, usage

KINDS = {"completions": "model", "embeddings": "embedding"}
FACTS = {"model": "executed_model", "service_tier": "tier", "id": "response_id"}


class Reading:
    """One metered request: what its reply says of model, usage and tools. Keeps no text."""

    def __init__(self, attempt: Attempt, body: dict[str, Any]) -> None:
        self._attempt = attempt
        # A forced function is the answer; a tool that the model chose is a step on the way to it.
        self._is_forced = isinstance(body.get("tool_choice"), dict)
        self._facts: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._line = b""

    def feed(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: {"):
                self.note(json.loads(line[6:]))
            elif line.startswith(b"data: [DONE]"):
                self.end()

    def note(self, said: dict[str, Any]) -> None:
        self._facts |= {ours: said[theirs] for theirs, ours in FACTS.items() if said.get(theirs)}
        self._usage |= said.get("usage") or {}
        for choice in said.get("choices") or ():
            message = choice.get("message") or choice.get("delta") or {}
            if message.get("tool_calls") and not self._is_forced:
                self._facts |= {"cause": "step", "cause_source": "structure", "initiator": "agent"}

    def end(self) -> None:
        self._attempt.end(usage=usage.from_openai(self._usage), **self._facts)

    def left(self) -> None:
        """The reader left, if the reply is not whole: the provider told the rest to nobody."""
        if not self._attempt.ended:
            self._facts |= {"provider_result": "unknown", "delivery": "cancelled_by_user"}
            self._attempt.end(**self._facts)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """No reply, or half of one. A timeout may have been billed: that stays unknown."""
        try:
            yield
        except Exception as error:
            billed = False if isinstance(error, httpx.ConnectError) else None
            self._attempt.fail(error, fault="provider", provider_billed=billed, **self._facts)
            raise
        except BaseException:  # The task was cancelled, or the stream closed.
            self.left()
            raise

    def answered(self, status: int, content: bytes) -> None:
        """A whole reply, good or bad."""
        if status < 400:
            self.note(json.loads(content))
            self.end()
        else:
            refused = status == 503 or (status < 500 and status not in (408, 499))  # no work done
            facts: Any = {"error_type": f"http_{status}", "fault": "provider"}
            self._attempt.fail(None, provider_billed=False if refused else None, **facts)


def started(request: httpx.Request) -> Reading | None:
    """Write the intent down; None for requests that are no model calls."""
    kind: Any = KINDS.get(request.url.path.rpartition("/")[2])
    if kind is None:
        return None
    body = json.loads(request.content)
    number = int(request.headers.get("x-stainless-retry-count", 0)) + 1
    reason = "provider" if number > 1 else None
    facts: Any = {"requested_model": body.get("model"), "attempt": number, "retry_reason": reason}
    return Reading(Attempt.start(layer="sdk", kind=kind, provider="openai", **facts), body)


class Metered(httpx.HTTPTransport):
    """The transport of a metered `httpx.Client`."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if (reading := started(request)) is None:
            return super().handle_request(request)
        with reading.watching():
            response = super().handle_request(request)
            if response.headers["content-type"].startswith("text/event-stream"):
                response.stream = Stream(response.stream, reading)
            else:
                reading.answered(response.status_code, response.read())
            return response


class AsyncMetered(httpx.AsyncHTTPTransport):
    """The transport of a metered `httpx.AsyncClient`."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if (reading := started(request)) is None:
            return await super().handle_async_request(request)
        with reading.watching():
            response = await super().handle_async_request(request)
            if response.headers["content-type"].startswith("text/event-stream"):
                response.stream = Stream(response.stream, reading)
            else:
                reading.answered(response.status_code, await response.aread())
            return response


class Stream(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A reply that streams: read as it passes; over when the SDK closes it."""

    def __init__(self, inner: Any, reading: Reading) -> None:
        self._inner = inner
        self._reading = reading

    def __iter__(self) -> Iterator[bytes]:
        with self._reading.watching():
            for data in self._inner:
                self._reading.feed(data)
                yield data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with self._reading.watching():
            async for data in self._inner:
                self._reading.feed(data)
                yield data

    def close(self) -> None:
        self._reading.left()
        self._inner.close()

    async def aclose(self) -> None:
        self._reading.left()
        await self._inner.aclose()
