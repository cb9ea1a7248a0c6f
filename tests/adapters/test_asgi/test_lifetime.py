"""Requests that fail, are left, outlive themselves or come by the hundred."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from asgi_calls import call
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from websockets.sync.client import connect

from costspan.adapter import Attempt
from costspan.adapters.asgi import AttributionMiddleware, api_keys
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
Serving = Callable[[Any], AbstractContextManager[str]]
Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]
CheckLineage = Callable[[list[Observation], str | None, set[str]], None]

tenant_of = api_keys({"a": "acme", "b": "beta"})
ACME = {"authorization": "Bearer a"}
BETA = {"authorization": "Bearer b"}


# --- exceptions and disconnects


@pytest.mark.parametrize("mounted", ["added", "wrapped"])
def test_an_unhandled_exception_is_a_failed_request(
    recorded: Recorded,
    mounted: str,
    serving: Serving,
    requests_and_calls: Split,
    check_lineage: CheckLineage,
) -> None:
    inner = FastAPI()

    @inner.get("/")
    def index() -> None:
        call()
        raise LookupError("a secret")

    app: Any = AttributionMiddleware(inner, resolve=tenant_of)
    if mounted == "added":
        inner.add_middleware(AttributionMiddleware, resolve=tenant_of)
        app = inner
    with serving(app) as address:
        assert httpx.get(f"http://{address}/", headers=ACME).status_code == 500
    seen = recorded()
    check_lineage(seen, "acme", {"call"})
    (request,), _ = requests_and_calls(seen)
    assert (request.provider_result, request.error_type) == ("failed", "LookupError")


def test_an_exception_handler_has_the_owner_too(
    recorded: Recorded, serving: Serving, requests_and_calls: Split, check_lineage: CheckLineage
) -> None:
    app = FastAPI()
    app.add_middleware(AttributionMiddleware, resolve=tenant_of)

    @app.exception_handler(LookupError)
    async def apologise(request: Request, error: Exception) -> JSONResponse:
        call("apology")
        return JSONResponse({}, status_code=404)

    @app.get("/")
    async def index() -> None:
        raise LookupError

    with serving(app) as address:
        assert httpx.get(f"http://{address}/", headers=ACME).status_code == 404
    seen = recorded()
    check_lineage(seen, "acme", {"apology"})
    assert requests_and_calls(seen)[0][0].provider_result == "ok"


def test_a_client_that_leaves_mid_stream_still_pays(
    recorded: Recorded, serving: Serving, requests_and_calls: Split, check_lineage: CheckLineage
) -> None:
    ended = threading.Event()
    app = FastAPI()
    app.add_middleware(AttributionMiddleware, resolve=tenant_of)

    @app.get("/")
    async def stream(tasks: BackgroundTasks) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            attempt = Attempt.start(layer="sdk", name="call")
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0)
            finally:
                attempt.end(usage={"output": 9}, delivery="cancelled_by_user")
                ended.set()

        return StreamingResponse(chunks(), background=tasks)

    with serving(app) as address:
        with httpx.stream("GET", f"http://{address}/", headers=ACME) as response:
            next(response.iter_raw())
        assert ended.wait(20)
    seen = recorded()
    check_lineage(seen, "acme", {"call"})
    _, (one,) = requests_and_calls(seen)
    assert one.delivery == "cancelled_by_user"


# --- websocket, lifespan, tasks that live longer, many at once


def test_a_websocket_is_one_request(
    recorded: Recorded, serving: Serving, requests_and_calls: Split, check_lineage: CheckLineage
) -> None:
    app = FastAPI()
    app.add_middleware(AttributionMiddleware, resolve=tenant_of)

    @app.websocket("/chat/{room}")
    async def chat(socket: WebSocket, room: str) -> None:
        await socket.accept()
        for _ in range(2):
            call(await socket.receive_text())
            await socket.send_text("ok")
        await socket.close()

    with (
        serving(app) as address,
        connect(f"ws://{address}/chat/42", additional_headers=ACME) as client,
    ):
        for name in ("one", "two"):
            client.send(name)
            assert client.recv() == "ok"
    seen = recorded()
    check_lineage(seen, "acme", {"one", "two"})
    assert requests_and_calls(seen)[0][0].name == "/chat/{room}"


def test_lifespan_runs_and_belongs_to_nobody(
    recorded: Recorded, serving: Serving, requests_and_calls: Split
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        call("up")
        yield {"greeting": "hello"}
        call("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/")
    def index(request: Request) -> str:
        return str(request.state.greeting)

    with serving(AttributionMiddleware(app, resolve=tenant_of)) as address:
        assert httpx.get(f"http://{address}/", headers=ACME).json() == "hello"
    requests, calls = requests_and_calls(recorded())
    assert requests == []  # no call was made under the request
    assert [(one.name, one.tenant, one.request_id) for one in calls] == [
        ("up", None, None),
        ("down", None, None),
    ]


def test_a_task_that_outlives_its_request_keeps_its_owner(
    recorded: Recorded, serving: Serving, check_lineage: CheckLineage
) -> None:
    app = FastAPI()
    app.add_middleware(AttributionMiddleware, resolve=tenant_of)
    waiting: list[tuple[asyncio.Event, asyncio.Task[None]]] = []

    @app.get("/begin")
    async def begin() -> None:
        go = asyncio.Event()

        async def later() -> None:
            await go.wait()
            call("late")

        call("early")
        waiting.append((go, asyncio.create_task(later())))

    @app.get("/finish")
    async def finish() -> None:
        go, task = waiting.pop()
        go.set()
        await task

    with serving(app) as address:
        httpx.get(f"http://{address}/begin", headers=ACME)
        httpx.get(f"http://{address}/finish", headers=BETA)
    check_lineage(recorded(), "acme", {"early", "late"})


async def test_a_hundred_requests_of_two_tenants_at_once_do_not_meet(
    recorded: Recorded, serving: Serving, requests_and_calls: Split
) -> None:
    app = FastAPI()
    app.add_middleware(AttributionMiddleware, resolve=tenant_of)

    @app.get("/async/{tenant}")
    async def in_async(tenant: str) -> None:
        await asyncio.sleep(0)
        call(tenant)
        await asyncio.gather(*(asyncio.to_thread(call, tenant) for _ in range(2)))

    @app.get("/sync/{tenant}")
    def in_sync(tenant: str) -> None:
        call(tenant)

    with serving(app) as address:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=60) as client:
            paths = [f"/{('async', 'sync')[n // 2 % 2]}" for n in range(100)]
            replies = await asyncio.gather(
                *(
                    client.get(f"{path}/beta", headers=BETA)
                    if number % 2
                    else client.get(f"{path}/acme", headers=ACME)
                    for number, path in enumerate(paths)
                )
            )
    assert {reply.status_code for reply in replies} == {200}
    requests, calls = requests_and_calls(recorded())
    assert len({one.attempt_id for one in requests}) == len(requests) == 100
    assert len(calls) == 50 * 3 + 50
    owners = {one.attempt_id: one.tenant for one in requests}
    for one in calls:
        assert one.tenant == one.name == owners[one.parent]
