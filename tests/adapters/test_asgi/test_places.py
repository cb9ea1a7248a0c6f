"""Every place of a request has its owner, under real servers and real frameworks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from asgi_calls import call
from fastapi import BackgroundTasks, FastAPI, Request
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Mount, Route

import costspan
from costspan.adapters.asgi import AttributionMiddleware, Owner, api_keys
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
Serving = Callable[[Any], AbstractContextManager[str]]
Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]
CheckLineage = Callable[[list[Observation], str | None, set[str]], None]

tenant_of = api_keys({"a": "acme", "b": "beta"})
ACME = {"authorization": "Bearer a"}


def everywhere(pool: ThreadPoolExecutor) -> FastAPI:
    """An application whose every path makes its call in another place."""
    app = FastAPI()

    @app.get("/async/{item}")
    async def in_async(item: str) -> str:
        call()
        return item

    @app.get("/sync/{item}")
    def in_sync(item: str) -> str:
        call()
        return item

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        async def later() -> None:
            await asyncio.sleep(0)
            call("async")

        tasks.add_task(call, "sync")
        tasks.add_task(later)
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(3):
                call(f"chunk{number}")
                yield b"x"

        return StreamingResponse(chunks())

    @app.get("/sync-stream")
    def sync_stream() -> StreamingResponse:
        def chunks() -> Iterator[bytes]:
            for number in range(3):
                call(f"chunk{number}")
                yield b"x"

        return StreamingResponse(chunks())

    @app.get("/threads")
    async def threads() -> str:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(call, "to_thread")
        await loop.run_in_executor(pool, costspan.carry(call), "carry")
        await asyncio.wrap_future(costspan.ContextExecutor(pool).submit(call, "executor"))
        await asyncio.create_task(asyncio.to_thread(call, "task"))
        return "ok"

    async def in_sub_app(request: StarletteRequest) -> Response:
        call()
        return PlainTextResponse("ok")

    app.mount("/sub", Starlette(routes=[Route("/inner/{item}", in_sub_app)]))
    return app


PLACES = [
    ("/async/42", "/async/{item}", {"call"}),
    ("/sync/42", "/sync/{item}", {"call"}),
    ("/background", "/background", {"sync", "async"}),
    ("/stream", "/stream", {"chunk0", "chunk1", "chunk2"}),
    ("/sync-stream", "/sync-stream", {"chunk0", "chunk1", "chunk2"}),
    ("/threads", "/threads", {"to_thread", "carry", "executor", "task"}),
    ("/sub/inner/42", "/inner/{item}", {"call"}),
]


@pytest.mark.parametrize("mounted", ["added", "wrapped", "under BaseHTTPMiddleware"])
@pytest.mark.parametrize(("path", "template", "names"), PLACES)
def test_every_place_of_a_request_has_its_owner(
    recorded: Recorded,
    path: str,
    template: str,
    names: set[str],
    mounted: str,
    serving: Serving,
    requests_and_calls: Split,
    check_lineage: CheckLineage,
) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # warmed before any request: its thread has no context
        inner = everywhere(pool)
        app: Any = inner
        if mounted == "wrapped":
            app = AttributionMiddleware(inner, resolve=tenant_of)
        else:
            inner.add_middleware(AttributionMiddleware, resolve=tenant_of)
        if mounted == "under BaseHTTPMiddleware":
            inner.add_middleware(BaseHTTPMiddleware, dispatch=passing_on)
        with serving(app) as address:
            assert httpx.get(f"http://{address}{path}", headers=ACME).status_code == 200
    seen = recorded()
    check_lineage(seen, "acme", names)
    (request,), calls = requests_and_calls(seen)
    assert request.name == template
    assert (request.tenant_source, request.provider_result) == ("principal", "ok")
    assert {one.tenant_source for one in calls} == {"principal"}


async def passing_on(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    return await call_next(request)


def test_a_mount_inside_starlette_takes_the_middleware_as_well(
    recorded: Recorded, serving: Serving, check_lineage: CheckLineage
) -> None:
    async def index(request: StarletteRequest) -> Response:
        call()
        return PlainTextResponse("ok")

    inner = AttributionMiddleware(
        Starlette(routes=[Route("/", index)]), resolve=lambda scope: Owner("acme", feature="sub")
    )
    with serving(Starlette(routes=[Mount("/sub", inner), Route("/", index)])) as address:
        httpx.get(f"http://{address}/sub/")
    check_lineage(recorded(), "acme", {"call"})
