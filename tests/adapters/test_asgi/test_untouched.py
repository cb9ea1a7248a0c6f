"""What passes untouched: scopes, channels, exceptions, and other requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgi_calls import call, calling, counted, http, receive, send
from starlette.requests import Request

import costspan
from costspan.adapters.asgi import AttributionMiddleware
from costspan.core.context import NOTHING, current
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]


def _raise(scope: Any) -> str:
    raise PermissionError("no")


@pytest.mark.parametrize("kind", ["lifespan", "something.new"])
async def test_other_scopes_pass_untouched(kind: str) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send, current()))

    scope = {"type": kind}
    await AttributionMiddleware(app, resolve=_raise)(scope, receive, send)
    assert seen[0] is scope
    assert seen[1:] == [receive, send, NOTHING]
    assert scope == {"type": kind}


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_request_keeps_its_scope_and_its_channels(kind: str) -> None:
    seen: list[object] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.extend((scope, receive, send))

    scope = http(type=kind)
    before = dict(scope)
    middleware = AttributionMiddleware(app)
    state = dict(vars(middleware))
    await middleware(scope, receive, send)
    assert seen[0] is scope
    assert seen[1:] == [receive, send]
    assert scope == before
    assert vars(middleware) == state


@pytest.mark.parametrize(
    "error", [ValueError("x"), asyncio.CancelledError(), KeyboardInterrupt(), SystemExit(3)]
)
async def test_the_hosts_exception_is_the_same_object(
    recorded: Recorded, error: BaseException, requests_and_calls: Split
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        call()
        raise error

    with pytest.raises(type(error)) as raised:
        await AttributionMiddleware(app)(http(), receive, send)
    assert raised.value is error
    assert current() is NOTHING
    (request,), _ = requests_and_calls(recorded())
    assert (request.provider_result, request.error_type) == ("failed", type(error).__name__)


async def test_a_cancelled_request_is_cancelled_and_recorded(
    recorded: Recorded, requests_and_calls: Split
) -> None:
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call()
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(AttributionMiddleware(app)(http(), receive, send))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (request,), _ = requests_and_calls(recorded())
    assert request.error_type == "CancelledError"


async def test_a_request_without_a_call_is_not_recorded(
    recorded: Recorded, requests_and_calls: Split
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        costspan.bind("acme")

    call("outside")
    await AttributionMiddleware(app)(http(), receive, send)
    requests, calls = requests_and_calls(recorded())
    assert (requests, [one.name for one in calls]) == ([], ["outside"])


async def test_requests_need_not_be_recorded(recorded: Recorded, requests_and_calls: Split) -> None:
    quiet = AttributionMiddleware(calling, resolve=lambda _: "acme", record_requests=False)
    await quiet(http(), receive, send)
    requests, (one,) = requests_and_calls(recorded())
    assert (requests, one.tenant) == ([], "acme")
    assert one.request_id


async def test_mounted_twice_the_outer_one_speaks(
    recorded: Recorded, requests_and_calls: Split
) -> None:
    inner = AttributionMiddleware(calling, resolve=lambda scope: "inner")
    app = AttributionMiddleware(inner, resolve=lambda scope: "outer")
    before = counted("asgi_mounted_twice")
    scope = http()
    for _ in range(2):  # also when a server hands the same scope in again
        await app(scope, receive, send)
    requests, calls = requests_and_calls(recorded())
    assert [one.tenant for one in (*requests, *calls)] == ["outer"] * 4
    assert counted("asgi_mounted_twice") == before + 2


async def test_two_direct_calls_in_one_task_do_not_meet(
    recorded: Recorded, requests_and_calls: Split
) -> None:
    app = AttributionMiddleware(calling, resolve=lambda scope: scope.get("user"))
    await app(http(user="acme"), receive, send)
    assert current() is NOTHING
    await app(http(), receive, send)
    with costspan.attribute("outside", session="s1"), costspan.work("safety"):
        await app(http(), receive, send)  # a server started under an owner serves strangers too
        assert current().owner()[0] == "outside"
    requests, calls = requests_and_calls(recorded())
    for seen in (requests, calls):
        assert [one.tenant for one in seen] == ["acme", None, None]
        assert {(one.session, one.cause) for one in seen} == {(None, None)}
    assert [one.parent for one in calls] == [one.attempt_id for one in requests]


async def test_a_route_of_another_kind_has_no_name(
    recorded: Recorded, requests_and_calls: Split
) -> None:
    class Strange:
        @property
        def path(self) -> str:
            raise RuntimeError("no")

    for route in (None, object(), Strange(), Request):
        await AttributionMiddleware(calling)(http(route=route), receive, send)
    requests, calls = requests_and_calls(recorded())
    assert [one.name for one in requests] == [None] * 4
    assert len(calls) == 4
