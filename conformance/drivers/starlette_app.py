"""Starlette under uvicorn: API keys resolved by the middleware, models called through LiteLLM.

Its workers start with the application and get messages that carry the signed context.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

import costspan
from costspan.adapters.asgi import AttributionMiddleware, SignedContext, api_keys
from costspan.conformance.drivers.asgi_exchange import AsyncJob, Exchange, Job, routes
from costspan.conformance.drivers.asgi_host import AsgiHost
from costspan.conformance.drivers.asgi_services import FRONTEND, WORKER, keys_of
from costspan.conformance.drivers.asgi_worker import TaskWorker, ThreadWorker
from costspan.conformance.drivers.litellm_sdk import LiteLLMSdk

_message_ids = map(str, count(1))


class StarletteApp(AsgiHost, LiteLLMSdk):
    """A tenant's API key names the owner before the endpoint is reached."""

    name: ClassVar[str] = "starlette"
    can: ClassVar[frozenset[str]] = AsgiHost.asgi
    only_async: ClassVar[frozenset[str]] = frozenset()

    def application(self, find: Callable[[str], Exchange], options: frozenset[str]) -> Any:
        """Starlette, with its middleware as the scenario has it."""
        app = Starlette(routes=routes(find), lifespan=self._lifespan)
        if "base_http_middleware" in options:
            app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)  # inside of ours
        for _ in range(2 if "registered_twice" in options else 1):
            app.add_middleware(
                AttributionMiddleware,
                resolve=api_keys(self.owner_of),
                signed=SignedContext(keys_of(FRONTEND)),
            )
        if "base_http_middleware" in options:
            app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)  # and outside
        return app

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncGenerator[None]:
        self._thread_worker, self._task_worker = ThreadWorker(), TaskWorker()
        yield
        self._thread_worker.stop()
        self._task_worker.stop()

    def queued(self, job: Job) -> Future[None]:
        """A message: its id, the signed context bound to it, and the job."""
        message_id, headers = _message()

        def handle() -> None:
            with costspan.resume(headers, keys_of(WORKER), message_id=message_id):
                job()

        return self._thread_worker.submit(handle)

    def aqueued(self, job: AsyncJob) -> Future[None]:
        """A message for the worker on the loop."""
        message_id, headers = _message()

        async def handle() -> None:
            with costspan.resume(headers, keys_of(WORKER), message_id=message_id):
                await job()

        return self._task_worker.submit(handle)


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    """What most middleware comes to: the application runs in a task of its own."""
    return await call_next(request)


def _message() -> tuple[str, dict[str, str]]:
    message_id = next(_message_ids)
    headers = costspan.to_carrier(keys_of(FRONTEND), audience=WORKER, message_id=message_id)
    return message_id, headers


driver = StarletteApp
