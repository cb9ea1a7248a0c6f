"""What the tests of the ASGI middleware share: applications, a request by hand, a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from costspan.adapter import Attempt
from costspan.adapters.asgi import AttributionMiddleware
from costspan.core import counters
from costspan.core.context import NOTHING, Context, current


def call(name: str = "call") -> None:
    """The LLM call of these tests."""
    attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o", name=name)
    attempt.end(usage={"input": 1})


async def calling(scope: Any, receive: Any, send: Any) -> None:
    call()


class Seeing:
    """An application that remembers the context it ran in."""

    context: Context = NOTHING

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.context = current()


async def receive() -> Any:
    return {"type": "http.request"}


async def send(message: Any) -> None:
    raise AssertionError("these applications answer nothing")


def http(**changes: Any) -> dict[str, Any]:
    return {"type": "http", "path": "/", "headers": [], **changes}


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


async def context_of(resolve: Any, scope: dict[str, Any]) -> Context:
    """The context a request runs in, once the middleware has asked the resolver."""
    seen: list[Context] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current())

    await AttributionMiddleware(app, resolve=resolve)(scope, _nothing, _nothing)
    (context,) = seen
    assert context is not NOTHING
    return context


async def _nothing(*_: Any) -> Any:
    raise AssertionError("these applications say nothing")


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
