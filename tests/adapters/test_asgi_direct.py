"""The middleware called as a server calls it: who is believed, and what passes untouched."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import costspan
from costspan.adapter import Attempt
from costspan.adapters.asgi import AttributionMiddleware, Owner
from costspan.core import counters
from costspan.core.context import NOTHING, Context, current
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


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


def split(seen: list[Observation]) -> tuple[list[Observation], list[Observation]]:
    requests = [one for one in seen if one.kind == "request"]
    calls = [one for one in seen if one.kind == "model" and one.phase == "end"]
    return requests, calls


# --- resolve


async def test_resolve_gives_the_whole_owner(recorded: Recorded) -> None:
    owner = Owner("acme", session="s1", user="ann", feature="chat", labels={"team": "red"})
    await AttributionMiddleware(calling, resolve=lambda scope: owner)(http(), receive, send)
    requests, calls = split(recorded())
    for one in (*requests, *calls):
        assert (one.tenant, one.tenant_source) == ("acme", "principal")
        assert (one.session, one.session_origin, one.user) == ("s1", "ours", "ann")
        assert (one.feature, one.labels) == ("chat", {"team": "red"})


async def test_resolve_may_be_async_and_sees_the_scope(recorded: Recorded) -> None:
    async def resolve(scope: Any) -> str:
        await asyncio.sleep(0)
        return str(scope["user"])

    await AttributionMiddleware(calling, resolve=resolve)(http(user="acme"), receive, send)
    assert {one.tenant for one in recorded()} == {"acme"}


async def test_a_delegate_is_less_trusted_than_who_is_bound() -> None:
    app = Seeing()
    delegate = AttributionMiddleware(app, resolve=lambda _: Owner("hub", may_delegate=True))
    await delegate(http(), receive, send)
    assert app.context.owner() == ("hub", "delegating_principal")
    assert app.context.holder is not None
    assert app.context.holder.fill("acme", None, None)
    assert app.context.owner() == ("acme", "principal")


async def test_a_principal_is_not_replaced_by_bind_or_attribute(recorded: Recorded) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert not costspan.bind("evil")
        assert not costspan.bind(session="other")
        with costspan.attribute("evil"):
            call()

    before = counted("bind_disagreement")
    principal = Owner("acme", session="s1")
    await AttributionMiddleware(app, resolve=lambda scope: principal)(http(), receive, send)
    assert {(one.tenant, one.session) for one in recorded()} == {("acme", "s1")}
    assert counted("bind_disagreement") == before + 2


def _raise(scope: Any) -> str:
    raise PermissionError("no")


async def _raise_later(scope: Any) -> str:
    await asyncio.sleep(0)
    raise PermissionError("no")


@pytest.mark.parametrize(
    ("resolve", "counter"),
    [
        (_raise, "resolve_failed"),
        (_raise_later, "resolve_failed"),
        (lambda: "acme", "resolve_failed"),  # it cannot even be called
        (lambda scope: 17, "resolve_invalid"),
        (lambda scope: {"tenant": "acme"}, "resolve_invalid"),
        (lambda scope: b"acme", "resolve_invalid"),
        (lambda scope: "", "tenant_invalid"),
        (lambda scope: "@platform", "tenant_invalid"),
        (lambda scope: "acme\r\nx: y", "tenant_invalid"),
        (lambda scope: "a" * 10_000_000, "tenant_invalid"),
        (lambda scope: Owner(17), "tenant_invalid"),  # type: ignore[arg-type]  # a host's mistake
    ],
)
async def test_a_broken_resolve_is_counted_and_the_request_goes_on_without_an_owner(
    recorded: Recorded, resolve: Any, counter: str
) -> None:
    before = counted(counter)
    await AttributionMiddleware(calling, resolve=resolve)(http(), receive, send)
    assert counted(counter) == before + 1
    (request,), (one,) = split(recorded())
    assert (
        (request.tenant, request.tenant_source) == (one.tenant, one.tenant_source) == (None, None)
    )
    assert one.parent == request.attempt_id
    assert ("tenant_invalid" in one.flags) == (counter == "tenant_invalid")


@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_any_text_is_a_tenant_or_a_flag(name: str) -> None:
    app = Seeing()
    middleware = AttributionMiddleware(app, resolve=lambda scope: name)
    asyncio.run(middleware(http(), receive, send))
    tenant, source = app.context.owner()
    assert (tenant is None) == ("tenant_invalid" in app.context.flags) == (source is None)


async def test_labels_that_are_none_cost_only_themselves(recorded: Recorded) -> None:
    owner = Owner("acme", labels=["red"])  # type: ignore[arg-type]  # a host's mistake
    await AttributionMiddleware(calling, resolve=lambda scope: owner)(http(), receive, send)
    for one in recorded():
        assert (one.tenant, one.labels) == ("acme", None)
        assert "invalid:labels" in one.flags


async def test_resolve_saying_none_leaves_the_request_to_bind(recorded: Recorded) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert costspan.bind("acme")
        call()

    await AttributionMiddleware(app, resolve=lambda scope: None)(http(), receive, send)
    assert {one.tenant for one in recorded()} == {"acme"}


# --- strangers


SPOOFED = {
    "tenant": "evil",
    "x-tenant-id": "evil",
    "x-costspan-tenant": "evil",
    "x-costspan-context": "evil",
    "x-litellm-tags": "tenant:evil",
    "x-litellm-customer-id": "evil",
    "x-litellm-spend-logs-metadata": '{"tenant": "evil"}',
    "baggage": "tenant=evil,costspan.tenant=evil,cause=safety,session=evil,user=%0d%0aevil",
    "cause": "safety",
    "initiator": "platform",
    "shared": "true",
    "provider_billed": "false",
    "flat_cost": "1000000",
    "x-flat-cost": "1000000",
    "x-session-id": "evil",
    "x-user-id": "evil",
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
VARYING = [
    "oid",
    "seq",
    "writer",
    "attempt_id",
    "parent",
    "request_id",
    "started_at",
    "ended_at",
    "recorded_at",
]


@pytest.mark.parametrize("tenant", [None, "acme"])
async def test_nothing_a_stranger_writes_changes_anything(
    recorded: Recorded, tenant: str | None
) -> None:
    async def index(request: Request) -> Response:
        call()
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", index)])
    app.add_middleware(AttributionMiddleware, resolve=lambda scope: tenant)

    async def facts(query: str, headers: dict[str, str]) -> list[dict[str, Any]]:
        already = len(recorded())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get(f"/{query}", headers=headers)
        rows = ({name: getattr(one, name) for name in one.__struct_fields__} for one in recorded())
        return [{**row, **dict.fromkeys(VARYING)} for row in rows][already:]

    honest = await facts("", {})
    spoofed = await facts(
        "?tenant=evil&cause=safety&flat_cost=9", {**SPOOFED, "traceparent": TRACEPARENT}
    )
    assert len(honest) == 3
    assert spoofed[:2] == honest[:2]  # START and END of the call: no trace of it
    trace = {"trace_id": TRACEPARENT[3:35], "trace_origin": "caller"}
    assert spoofed[2] == {**honest[2], **trace}


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-" + b"0" * 16 + b"-01",
        b"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        b"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
        b"\xff" * 10_000,
    ],
)
async def test_an_invalid_traceparent_is_dropped_and_counted(
    recorded: Recorded, traceparent: bytes
) -> None:
    before = counted("traceparent_invalid")
    scope = http(headers=[(b"traceparent", traceparent)])
    await AttributionMiddleware(calling)(scope, receive, send)
    assert counted("traceparent_invalid") == before + 1
    assert {one.trace_id for one in recorded()} == {None}


async def test_the_clients_request_id_is_kept_apart_from_ours(recorded: Recorded) -> None:
    scope = http(headers=[(b"x-request-id", b"client-1")])
    for _ in range(2):
        await AttributionMiddleware(calling)(scope, receive, send)
    requests, calls = split(recorded())
    assert {one.client_request_id for one in (*requests, *calls)} == {"client-1"}
    assert len({one.request_id for one in requests}) == 2
    assert [one.request_id for one in calls] == [one.attempt_id for one in requests]


@pytest.mark.parametrize(
    "value", [b"", b"a\r\nb", b"a\x00", b"\xc3\xa9", b"x" * 129, b"x" * 10_000_000]
)
async def test_a_bad_client_request_id_is_dropped_and_counted(value: bytes) -> None:
    app = Seeing()
    before = counted("client_request_id_invalid")
    await AttributionMiddleware(app)(http(headers=[(b"x-request-id", value)]), receive, send)
    assert app.context.client_request_id is None
    assert app.context.request_id
    assert counted("client_request_id_invalid") == before + 1


# --- what passes untouched


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
    recorded: Recorded, error: BaseException
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        call()
        raise error

    with pytest.raises(type(error)) as raised:
        await AttributionMiddleware(app)(http(), receive, send)
    assert raised.value is error
    assert current() is NOTHING
    (request,), _ = split(recorded())
    assert (request.provider_result, request.error_type) == ("failed", type(error).__name__)


async def test_a_cancelled_request_is_cancelled_and_recorded(recorded: Recorded) -> None:
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
    (request,), _ = split(recorded())
    assert request.error_type == "CancelledError"


async def test_a_request_without_a_call_is_not_recorded(recorded: Recorded) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        costspan.bind("acme")

    call("outside")
    await AttributionMiddleware(app)(http(), receive, send)
    requests, calls = split(recorded())
    assert (requests, [one.name for one in calls]) == ([], ["outside"])


async def test_requests_need_not_be_recorded(recorded: Recorded) -> None:
    quiet = AttributionMiddleware(calling, resolve=lambda _: "acme", record_requests=False)
    await quiet(http(), receive, send)
    requests, (one,) = split(recorded())
    assert (requests, one.tenant) == ([], "acme")
    assert one.request_id


async def test_mounted_twice_the_outer_one_speaks(recorded: Recorded) -> None:
    inner = AttributionMiddleware(calling, resolve=lambda scope: "inner")
    app = AttributionMiddleware(inner, resolve=lambda scope: "outer")
    before = counted("asgi_mounted_twice")
    scope = http()
    for _ in range(2):  # also when a server hands the same scope in again
        await app(scope, receive, send)
    requests, calls = split(recorded())
    assert [one.tenant for one in (*requests, *calls)] == ["outer"] * 4
    assert counted("asgi_mounted_twice") == before + 2


async def test_two_direct_calls_in_one_task_do_not_meet(recorded: Recorded) -> None:
    app = AttributionMiddleware(calling, resolve=lambda scope: scope.get("user"))
    await app(http(user="acme"), receive, send)
    assert current() is NOTHING
    await app(http(), receive, send)
    with costspan.attribute("outside", session="s1"), costspan.work("safety"):
        await app(http(), receive, send)  # a server started under an owner serves strangers too
        assert current().owner()[0] == "outside"
    requests, calls = split(recorded())
    for seen in (requests, calls):
        assert [one.tenant for one in seen] == ["acme", None, None]
        assert {(one.session, one.cause) for one in seen} == {(None, None)}
    assert [one.parent for one in calls] == [one.attempt_id for one in requests]


async def test_a_route_of_another_kind_has_no_name(recorded: Recorded) -> None:
    class Strange:
        @property
        def path(self) -> str:
            raise RuntimeError("no")

    for route in (None, object(), Strange(), Request):
        await AttributionMiddleware(calling)(http(route=route), receive, send)
    requests, calls = split(recorded())
    assert [one.name for one in requests] == [None] * 4
    assert len(calls) == 4
