"""A request that does a part of a script: what its endpoint runs, and when it is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping
from concurrent.futures import Future
from contextvars import ContextVar
from itertools import count
from typing import Any

from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

Job = Callable[[], None]
AsyncJob = Callable[[], Awaitable[None]]

_numbers = count(1)
_current: ContextVar[Exchange | None] = ContextVar("conformance_exchange", default=None)


def current_exchange() -> Exchange:
    """The request that is served here, in whatever task or thread of it."""
    exchange = _current.get()
    assert exchange is not None, "no request is being served here"
    return exchange


class Exchange:
    """One request, from its client to the end of all that the application does for it.

    Attributes:
        path: What it asks for, `/KIND/NUMBER`; the kinds are the endpoints below.
        tasks: What the application does after the response.
        over: Done when the application is; with what it raised, if it did.
        left: Set when the client is to close its connection.
    """

    def __init__(self, kind: str, job: Job | None, ajob: AsyncJob | None) -> None:
        self.path = f"/{kind}/{next(_numbers)}"
        self._job = job
        self._ajob = ajob
        self.tasks = BackgroundTasks()
        self.over: Future[None] = Future()
        self.left: Future[None] = Future()

    def run(self) -> None:
        """Do the job in this thread."""
        assert self._job is not None
        _current.set(self)
        self._job()

    async def arun(self) -> None:
        """Do the job on this loop; one that blocks, in a thread."""
        _current.set(self)
        if self._ajob is None:
            await asyncio.to_thread(self.run)
        else:
            await self._ajob()

    def answer(self) -> Response:
        """The job, then the response."""
        self.run()
        return PlainTextResponse("done", background=self.tasks)

    async def aanswer(self) -> Response:
        """The job, then the response, on the loop."""
        await self.arun()
        return PlainTextResponse("done", background=self.tasks)

    def stream(self) -> Response:
        """A response in whose middle the job is done; the generator is sync if the job is."""
        chunks = self._chunks() if self._ajob is None else self._achunks()
        return StreamingResponse(chunks, background=self.tasks)

    def _chunks(self) -> Generator[str]:
        yield "begun\n"
        self.run()
        yield "done\n"

    async def _achunks(self) -> AsyncGenerator[str]:
        yield "begun\n"
        await self.arun()
        yield "done\n"

    async def converse(self, websocket: WebSocket) -> None:
        """The job between two messages of a websocket."""
        await websocket.accept()
        await websocket.send_text("begun")
        await self.arun()
        await websocket.send_text("done")
        await websocket.close()


class Watched:
    """An application, watched from outside of all its middleware: which request is over when.

    Args:
        build: Makes the application, given the function that finds what a path asks for.
    """

    def __init__(self, build: Callable[[Callable[[str], Exchange]], Any]) -> None:
        self._exchanges: dict[str, Exchange] = {}
        self._application = build(self._exchanges.__getitem__)

    def expect(self, exchange: Exchange) -> Exchange:
        """A client is about to ask for this."""
        self._exchanges[exchange.path] = exchange
        return exchange

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Serve, and tell when it is over."""
        exchange = self._exchanges.get(scope.get("path", ""))
        if exchange is None:  # the lifespan
            await self._application(scope, receive, send)
            return
        try:
            await self._application(scope, receive, send)
        except BaseException as error:
            exchange.over.set_exception(error)
            raise
        else:
            exchange.over.set_result(None)
        finally:
            del self._exchanges[exchange.path]


def routes(find: Callable[[str], Exchange]) -> list[BaseRoute]:
    """Starlette's endpoints, sync and async."""

    def in_thread(request: Request) -> Response:
        return find(request.url.path).answer()

    async def on_loop(request: Request) -> Response:
        return await find(request.url.path).aanswer()

    async def streamed(request: Request) -> Response:
        return find(request.url.path).stream()

    async def conversed(websocket: WebSocket) -> None:
        await find(websocket.url.path).converse(websocket)

    return [
        Route("/threads/{number}", in_thread, methods=["POST"]),
        Route("/loop/{number}", on_loop, methods=["POST"]),
        Route("/stream/{number}", streamed, methods=["POST"]),
        WebSocketRoute("/socket/{number}", conversed),
    ]
