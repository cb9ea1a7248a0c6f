"""FastAPI under uvicorn: a dependency authenticates and binds, models called through LangChain.

Its workers are started by whichever request needs one first, freed of it, and get carried jobs.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any, ClassVar

from fastapi import Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.requests import HTTPConnection
from fastapi.responses import Response
from starlette.middleware.base import BaseHTTPMiddleware

import costspan
from costspan.adapters.asgi import AttributionMiddleware
from costspan.conformance.drivers.asgi_exchange import AsyncJob, Exchange, Job
from costspan.conformance.drivers.asgi_host import AsgiHost
from costspan.conformance.drivers.asgi_worker import TaskWorker, ThreadWorker
from costspan.conformance.drivers.chat_openai import ChatOpenAICalls
from costspan.conformance.drivers.starlette_app import pass_on


class FastApiApp(AsgiHost, ChatOpenAICalls):
    """The middleware knows nobody: the owner is bound after authentication."""

    name: ClassVar[str] = "fastapi"
    can: ClassVar[frozenset[str]] = AsgiHost.asgi | {
        *("bound_in_dependency", "bound_late", "retrieval")
    }
    _starting: ClassVar[Lock] = Lock()

    def application(self, find: Callable[[str], Exchange], options: frozenset[str]) -> Any:
        """FastAPI; where the dependency matters, sync endpoints depend on async ones and back."""
        app = FastAPI(lifespan=self._lifespan)
        in_thread, on_loop = self._dependencies("bound_late" in options)
        if "bound_in_dependency" in options:
            in_thread, on_loop = on_loop, in_thread
        for path, endpoint, dependency in (
            ("/threads/{number}", _sync_endpoint(find), in_thread),
            ("/loop/{number}", _async_endpoint(find), on_loop),
            ("/stream/{number}", _stream_endpoint(find), on_loop),
        ):
            needs = [Depends(dependency)]
            app.add_api_route(path, endpoint, methods=["POST"], dependencies=needs)

        async def conversed(websocket: WebSocket) -> None:
            await find(websocket.url.path).converse(websocket)

        app.add_api_websocket_route("/socket/{number}", conversed, dependencies=[Depends(on_loop)])
        if "base_http_middleware" in options:
            app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)  # inside of ours
        for _ in range(2 if "registered_twice" in options else 1):
            app.add_middleware(AttributionMiddleware)
        if "base_http_middleware" in options:
            app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)  # and outside
        return app

    def _dependencies(self, is_late: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Authentication in a thread and on the loop; late, it tells when the work is done."""

        def in_thread(connection: HTTPConnection) -> Generator[None]:
            if not is_late:
                self._bind(connection)
            yield
            if is_late:
                self._bind(connection)

        async def on_loop(connection: HTTPConnection) -> AsyncGenerator[None]:
            if not is_late:
                self._bind(connection)
            yield
            if is_late:
                self._bind(connection)

        return in_thread, on_loop

    def _bind(self, connection: HTTPConnection) -> None:
        owner = self.owner_of(connection.headers.get("authorization", ""))
        if owner is None:
            raise HTTPException(401)
        costspan.bind(owner.tenant, session=owner.session)

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        self._thread_worker: ThreadWorker | None = None
        self._task_worker: TaskWorker | None = None
        yield
        for worker in (self._thread_worker, self._task_worker):
            if worker is not None:
                worker.stop()

    def queued(self, job: Job) -> Future[None]:
        """The job, with the context of here."""
        with self._starting:
            if self._thread_worker is None:
                with costspan.detached():
                    self._thread_worker = ThreadWorker()
        return self._thread_worker.submit(costspan.carry(job))

    def aqueued(self, job: AsyncJob) -> Future[None]:
        """The job for the worker on the loop."""
        if self._task_worker is None:
            with costspan.detached():
                self._task_worker = TaskWorker()
        return self._task_worker.submit(costspan.carry(job))


def _sync_endpoint(find: Callable[[str], Exchange]) -> Callable[..., Any]:
    def endpoint(request: Request) -> Response:
        return find(request.url.path).answer()

    return endpoint


def _async_endpoint(find: Callable[[str], Exchange]) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        return await find(request.url.path).aanswer()

    return endpoint


def _stream_endpoint(find: Callable[[str], Exchange]) -> Callable[..., Any]:
    async def endpoint(request: Request) -> Response:
        return find(request.url.path).stream()

    return endpoint


driver = FastApiApp
