"""`costspan.bind` from FastAPI dependencies: sync and async, yielding or not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from asgi_calls import call
from fastapi import Depends, FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

import costspan
from costspan.adapters.asgi import AttributionMiddleware
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
Serving = Callable[[Any], AbstractContextManager[str]]
Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]
CheckLineage = Callable[[list[Observation], str | None, set[str]], None]

TOKENS = {b"Bearer a": "acme", b"Bearer b": "beta"}
ACME = {"authorization": "Bearer a"}
BETA = {"authorization": "Bearer b"}


async def passing_on(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    return await call_next(request)


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
    recorded: Recorded,
    dependency: Callable[..., Any],
    names: set[str],
    endpoint: str,
    serving: Serving,
    check_lineage: CheckLineage,
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


def test_a_call_before_bind_has_its_owner_by_lineage(
    recorded: Recorded, serving: Serving, requests_and_calls: Split
) -> None:
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
