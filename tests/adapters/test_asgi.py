"""The middleware under real servers and real frameworks: every place of a request has its owner."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import Response
from starlette.routing import Mount, Route
from websockets.sync.client import connect

import costspan
from costspan.adapter import Attempt
from costspan.adapters.asgi import AttributionMiddleware, Owner
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
TOKENS = {b"Bearer a": "acme", b"Bearer b": "beta"}
ACME = {"authorization": "Bearer a"}
BETA = {"authorization": "Bearer b"}


def tenant_of(scope: Any) -> str | None:
    """The application's own authentication: a token it knows is the tenant's."""
    return TOKENS.get(dict(scope["headers"]).get(b"authorization", b""))


def call(name: str = "call") -> None:
    """The LLM call of these tests."""
    attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o", name=name)
    attempt.end(usage={"input": 1})


class Server(uvicorn.Server):
    """uvicorn in a thread, which says when it is up."""

    def __init__(self, app: Any) -> None:
        super().__init__(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
        self.is_up = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    @property
    def address(self) -> str:
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"127.0.0.1:{port}"


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of `app`; on leaving, every request of it is complete."""
    server = Server(app)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.is_up.wait(20)
        yield server.address
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def requests_and_calls(seen: list[Observation]) -> tuple[list[Observation], list[Observation]]:
    requests = [one for one in seen if one.kind == "request"]
    calls = [one for one in seen if one.kind == "model" and one.phase == "end"]
    return requests, calls


def check_lineage(seen: list[Observation], tenant: str | None, names: set[str]) -> None:
    """One recorded request of `tenant`, with exactly these calls under it, all of that tenant."""
    (request,), calls = requests_and_calls(seen)
    assert {one.name for one in calls} == names
    assert (request.tenant, request.layer, request.source) == (tenant, "framework", "asgi")
    assert request.parent is None
    assert request.started_at is not None
    assert request.ended_at is not None
    for one in calls:
        assert one.tenant == tenant
        assert one.parent == one.request_id == request.request_id == request.attempt_id
        assert one.started_at is not None
        assert one.started_at >= request.started_at


# --- every place of a request


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
    recorded: Recorded, path: str, template: str, names: set[str], mounted: str
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


# --- bind, from FastAPI dependencies


def authenticate(request: Request) -> None:
    user = request.headers["authorization"]
    costspan.bind(TOKENS[user.encode()], session="s1", user="ann")


async def authenticate_async(request: Request) -> None:
    authenticate(request)


def authenticate_yielding(request: Request) -> Iterator[None]:
    authenticate(request)
    yield
    call("after")


async def authenticate_async_yielding(request: Request) -> AsyncIterator[None]:
    authenticate(request)
    yield
    call("after")


@pytest.mark.parametrize("endpoint", ["sync", "async"])
@pytest.mark.parametrize(
    ("dependency", "names"),
    [
        (authenticate, {"call"}),
        (authenticate_async, {"call"}),
        (authenticate_yielding, {"call", "after"}),
        (authenticate_async_yielding, {"call", "after"}),
    ],
)
def test_a_dependency_names_the_owner(
    recorded: Recorded, dependency: Callable[..., Any], names: set[str], endpoint: str
) -> None:
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware, dispatch=passing_on)
    app.add_middleware(AttributionMiddleware)

    @app.get("/sync", dependencies=[Depends(dependency)])
    def sync() -> None:
        call()

    @app.get("/async", dependencies=[Depends(dependency)])
    async def async_() -> None:
        call()

    with serving(app) as address:
        assert httpx.get(f"http://{address}/{endpoint}", headers=BETA).status_code == 200
    seen = recorded()
    check_lineage(seen, "beta", names)
    assert {(one.session, one.user) for one in seen if one.phase == "end"} == {("s1", "ann")}


def test_a_call_before_bind_has_its_owner_by_lineage(recorded: Recorded) -> None:
    async def guard(request: Request) -> None:
        call("early")

    app = FastAPI()
    app.add_middleware(AttributionMiddleware)

    @app.get("/", dependencies=[Depends(guard), Depends(authenticate)])
    def index() -> None:
        call("late")

    with serving(app) as address:
        httpx.get(f"http://{address}/", headers=ACME)
    (request,), calls = requests_and_calls(recorded())
    assert {one.name: one.tenant for one in calls} == {"early": None, "late": "acme"}
    assert {one.parent for one in calls} == {request.attempt_id}
    assert (request.tenant, request.tenant_source) == ("acme", "principal")


# --- exceptions and disconnects


@pytest.mark.parametrize("mounted", ["added", "wrapped"])
def test_an_unhandled_exception_is_a_failed_request(recorded: Recorded, mounted: str) -> None:
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


def test_an_exception_handler_has_the_owner_too(recorded: Recorded) -> None:
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


def test_a_client_that_leaves_mid_stream_still_pays(recorded: Recorded) -> None:
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


def test_a_websocket_is_one_request(recorded: Recorded) -> None:
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


def test_lifespan_runs_and_belongs_to_nobody(recorded: Recorded) -> None:
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


def test_a_task_that_outlives_its_request_keeps_its_owner(recorded: Recorded) -> None:
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


async def test_a_hundred_requests_of_two_tenants_at_once_do_not_meet(recorded: Recorded) -> None:
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


def test_a_mount_inside_starlette_takes_the_middleware_as_well(recorded: Recorded) -> None:
    async def index(request: StarletteRequest) -> Response:
        call()
        return PlainTextResponse("ok")

    inner = AttributionMiddleware(
        Starlette(routes=[Route("/", index)]), resolve=lambda scope: Owner("acme", feature="sub")
    )
    with serving(Starlette(routes=[Mount("/sub", inner), Route("/", index)])) as address:
        httpx.get(f"http://{address}/sub/")
    check_lineage(recorded(), "acme", {"call"})
