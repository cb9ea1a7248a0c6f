"""Real servers for ASGI applications, and what a request under test must have recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import uvicorn

from costspan.core.schema import Observation

Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]


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


@pytest.fixture(name="serving")
def _serving() -> Callable[[Any], AbstractContextManager[str]]:
    return serving


@pytest.fixture(name="requests_and_calls")
def _requests_and_calls() -> Split:
    return requests_and_calls


@pytest.fixture(name="check_lineage")
def _check_lineage() -> Callable[[list[Observation], str | None, set[str]], None]:
    return check_lineage


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
