"""What the drivers of ASGI applications share: real requests, in which the script is played.

The model calls inside are another driver's: subclass this one and that one, in this order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ClassVar

import httpx
from websockets.asyncio.client import connect
from websockets.sync.client import connect as sync_connect

from costspan.adapters.asgi import Owner
from costspan.adapters.requests import CostSession
from costspan.conformance.drivers.asgi_exchange import (
    AsyncJob,
    Exchange,
    Job,
    Watched,
    current_exchange,
)
from costspan.conformance.drivers.asgi_services import (
    FRONTEND,
    SEARCH,
    carrier,
    credential,
    forged_headers,
    keys_of,
    search_service,
)
from costspan.conformance.drivers.asgi_serving import ON_LOOPBACK, Serving
from costspan.conformance.suite.driver import Driver, Who
from costspan.conformance.suite.script import Remote

OTHER = "hooli"
"""A tenant that both services know, and that never asks for anything."""

WAIT_SECONDS = 60.0

_SHAPES = frozenset(
    {"base_http_middleware", "bound_in_dependency", "bound_late", "registered_twice"}
)
"""Host options that make another application; all others are about its requests."""


class AsgiHost(Driver):
    """Plays in the requests of an application under uvicorn, which calls a second service."""

    asgi: ClassVar[frozenset[str]] = frozenset(
        "sync async chat embeddings stream work tool verdict agent together background owner"
        " principal cancel abandon cancel_stream hang_up remote claims_headers registered_twice"
        " base_http_middleware websocket streaming_response background_task client_leaves"
        " queue_worker".split()
    )
    """What the layer itself can change; the rest of the model's host is proved without it.

    Not `other_owner`: whoever a request authenticated outranks what in-process code names.
    """

    def application(self, find: Callable[[str], Exchange], options: frozenset[str]) -> Any:
        """The application under test, with costspan's middleware."""
        raise NotImplementedError

    def queued(self, job: Job) -> Future[None]:
        """Give a job of this request to the application's worker thread."""
        raise NotImplementedError

    def aqueued(self, job: AsyncJob) -> Future[None]:
        """Give a job of this request to the application's worker task."""
        raise NotImplementedError

    # The servers

    _serving: Serving | None = None
    _shape: frozenset[str] = frozenset()

    def begin(self, options: frozenset[str]) -> None:
        """Serve the application in the shape that the scenario needs."""
        super().begin(options)
        self._request_options = options
        shape = options & _SHAPES
        if self._serving is None or shape != self._shape:
            self._shut()
            self._shape = shape
            self._owners: dict[str, Owner] = {f"key-{OTHER}": Owner(OTHER)}
            self._first = Watched(lambda find: self.application(find, shape))
            self._second = Watched(lambda find: search_service(find, self._owners.get))
            self._serving = Serving(self._first, self._second).start()

    def close(self) -> None:
        """End the servers."""
        self._shut()
        super().close()

    def _shut(self) -> None:
        if self._serving is not None:
            self._serving.close()
            self._serving = None

    @property
    def serving(self) -> Serving:
        """The servers."""
        assert self._serving is not None
        return self._serving

    async def afinish(self) -> None:
        """The calls were made on the servers' loop: there the last callbacks are."""
        await asyncio.wrap_future(self.serving.run(super().afinish()))

    def owner_of(self, authorization: str) -> Owner | None:
        """Whom a credential authenticates."""
        return self._owners.get(authorization.removeprefix("Bearer "))

    def _enrol(self, who: Who) -> str:
        """The key of a tenant, known to both services from now on."""
        key = f"key-{who.tenant}"
        self._owners[key] = Owner(who.tenant, who.session)
        return key

    def _headers(self, who: Who) -> dict[str, str]:
        forged = forged_headers() if "claims_headers" in self._request_options else {}
        return {**forged, "authorization": f"Bearer {self._enrol(who)}"}

    # Requests

    def serve(self, who: Who, body: Job) -> None:
        """Send a request whose endpoint runs `body` in a thread; returns when all of it is over."""
        exchange = self._first.expect(Exchange(self._kind("threads"), body, None))
        place, headers = self.serving.places[0], self._headers(who)
        if "websocket" in self._request_options:
            with sync_connect(f"ws://{place}{exchange.path}", additional_headers=headers) as socket:
                list(socket)
        else:
            with httpx.Client(**ON_LOOPBACK) as client:
                answer = client.post(f"http://{place}{exchange.path}", headers=headers)
                answer.raise_for_status()
        exchange.over.result(WAIT_SECONDS)

    async def aserve(self, who: Who, body: AsyncJob) -> None:
        """Send a request whose endpoint runs `body` on the server's loop."""
        exchange = self._first.expect(Exchange(self._kind("loop"), None, body))
        sending = asyncio.create_task(self._send(exchange, self._headers(who)))
        left = asyncio.wrap_future(exchange.left)
        await asyncio.wait({sending, left}, return_when=asyncio.FIRST_COMPLETED)
        if left.done():
            sending.cancel()  # which closes the connection
            await asyncio.wait({sending})
        else:
            sending.result()
        await asyncio.wait_for(asyncio.wrap_future(exchange.over), WAIT_SECONDS)

    async def _send(self, exchange: Exchange, headers: dict[str, str]) -> None:
        place = self.serving.places[0]
        if "websocket" in self._request_options:
            async with connect(
                f"ws://{place}{exchange.path}", additional_headers=headers
            ) as socket:
                async for _ in socket:
                    pass
            return
        async with httpx.AsyncClient(**ON_LOOPBACK) as client:
            answer = await client.post(f"http://{place}{exchange.path}", headers=headers)
            answer.raise_for_status()

    def _kind(self, plain: str) -> str:
        if "websocket" in self._request_options:
            return "socket"
        return "stream" if "streaming_response" in self._request_options else plain

    def leave(self, asking: asyncio.Task[Any]) -> None:
        """Where the scenario says so, the client closes its connection instead."""
        if "client_leaves" in self._request_options:
            current_exchange().left.set_result(None)
        else:
            super().leave(asking)

    # What the application does beside and after

    def later(self, body: Job) -> Future[None] | None:
        """After the response, or in a worker that outlives all requests."""
        if "queue_worker" in self._request_options:
            return self.queued(body)
        if "background_task" in self._request_options:
            current_exchange().tasks.add_task(body)
            return current_exchange().over
        return None

    def alater(self, body: AsyncJob) -> Future[None] | None:
        """After the response, or in a worker, on the loop."""

        async def job() -> None:
            await body()

        if "queue_worker" in self._request_options:
            return self.aqueued(job)
        if "background_task" in self._request_options:
            current_exchange().tasks.add_task(job)
            return current_exchange().over
        return None

    # The second service

    def remote(self, step: Remote, who: Who, body: Job) -> None:
        """Ask the second service, by a session that carries the signed context."""
        exchange = self._second.expect(Exchange("threads", body, None))
        place = self.serving.places[1]
        url = f"http://{place}{exchange.path}"
        if step.arrives or self._enrolled(step, who):
            headers = {**credential(step), **carrier(step, OTHER)}
            httpx.post(url, headers=headers, **ON_LOOPBACK).raise_for_status()
        else:
            with CostSession(keys=keys_of(FRONTEND), hosts={place: SEARCH}) as session:
                session.post(url, headers=credential(step)).raise_for_status()
        exchange.over.result(WAIT_SECONDS)

    async def aremote(self, step: Remote, who: Who, body: AsyncJob) -> None:
        """Ask the second service by an async client, which is given the signed context."""
        exchange = self._second.expect(Exchange("loop", None, body))
        self._enrolled(step, who)
        async with httpx.AsyncClient(**ON_LOOPBACK) as client:
            url = f"http://{self.serving.places[1]}{exchange.path}"
            answer = await client.post(url, headers={**credential(step), **carrier(step, OTHER)})
            answer.raise_for_status()
        await asyncio.wait_for(asyncio.wrap_future(exchange.over), WAIT_SECONDS)

    def _enrolled(self, step: Remote, who: Who) -> bool:
        """Whether the caller is a tenant of its own, which both services know from now on."""
        if step.replayed_by is not None:
            self._enrol(who)
        return step.replayed_by is not None
