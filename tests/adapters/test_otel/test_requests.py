"""A request and its calls in the server's trace: joined, and nothing in it trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from otel_calls import SAMPLED, TRACE, UNSAMPLED, call, ids, place
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import costspan
from costspan.adapters.asgi import AttributionMiddleware, Owner
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def owner_of(scope: Any) -> Owner:
    return Owner(dict(scope["headers"])[b"x-key"].decode(), session="s1")


def instrumentations() -> list[Any]:
    return [
        pytest.param("starlette.middleware.opentelemetry", id="starlette"),
        pytest.param("opentelemetry.instrumentation.asgi", id="instrumentation-asgi"),
    ]


def serving(instrumentation: str, traces: Any, *, outside: bool, resolve: Any) -> Starlette:
    """An application under an instrumentation that is outside of us, or inside."""
    module = pytest.importorskip(instrumentation)
    middleware: Any = module.OpenTelemetryMiddleware
    server = Middleware(middleware, tracer_provider=traces.provider)
    ours = Middleware(AttributionMiddleware, resolve=resolve)

    async def index(request: Request) -> Response:
        if request.query_params:
            costspan.bind(request.query_params["tenant"])
        with traces.span("step"):
            call(name="in a step")
        call(name="in the request")
        return PlainTextResponse("ok", background=BackgroundTask(call, name="afterwards"))

    stack = [server, ours] if outside else [ours, server]
    return Starlette(routes=[Route("/", index)], middleware=stack)


async def get(app: Any, path: str = "/", **headers: str) -> None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        assert (await client.get(path, headers=named)).status_code == 200


def server_span(traces: Any) -> ReadableSpan:
    span: ReadableSpan
    (span,) = (one for one in traces.finished().values() if one.kind is SpanKind.SERVER)
    return span


@pytest.mark.parametrize("traceparent", [None, SAMPLED])
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("instrumentation", instrumentations())
async def test_a_request_and_its_calls_are_in_the_servers_trace(
    recorded: Recorded,
    traces: Any,
    instrumentation: str,
    outside: bool,
    traceparent: str | None,
) -> None:
    app = serving(instrumentation, traces, outside=outside, resolve=owner_of)
    await get(app, x_key="acme", **({} if traceparent is None else {"traceparent": traceparent}))
    *calls, request = recorded()
    server = server_span(traces)
    origin = "ours" if traceparent is None else "caller"
    assert {one.name for one in calls} == {"in a step", "in the request", "afterwards"}
    assert {(one.trace_id, one.trace_origin) for one in calls} == {(ids(server)[0], origin)}
    spans = {one.name: one.span_id for one in calls}
    assert spans["in a step"] == ids(traces.finished()["step"])[1]
    assert spans["in the request"] == spans["afterwards"] == ids(server)[1]
    if outside:
        assert place(request) == (*ids(server), origin)
    elif traceparent is not None:  # its span began when we had looked
        assert place(request) == (TRACE, None, "caller")
    said = traces.said(server.name)
    assert (said["tenant.id"], said["session.id"]) == ("acme", "s1")
    assert said["request.id"] == request.attempt_id
    assert traces.said("step")["tenant.id"] == "acme"


@pytest.mark.parametrize("instrumentation", instrumentations())
async def test_who_is_bound_later_is_on_the_servers_span_too(
    recorded: Recorded, traces: Any, instrumentation: str
) -> None:
    async def quiet(request: Request) -> Response:
        costspan.bind("acme")
        return PlainTextResponse("ok")

    app = serving(instrumentation, traces, outside=True, resolve=None)
    app.router.routes.append(Route("/quiet", quiet))
    await get(app, "/quiet")
    server = server_span(traces)
    said = traces.said(server.name)
    # One of the two ends its span with the last byte of the answer, before we know.
    assert said.get("tenant.id", "acme") == "acme"
    assert ("tenant.id" in said) == (instrumentation.startswith("starlette"))
    assert said["request.id"]


async def test_a_stranger_who_turns_sampling_off_pays_all_the_same(
    recorded: Recorded, traces: Any
) -> None:
    app = serving("starlette.middleware.opentelemetry", traces, outside=True, resolve=owner_of)
    await get(app, x_key="acme", traceparent=UNSAMPLED)
    assert traces.finished() == {}
    seen = recorded()
    assert len(seen) == 7
    assert {(one.tenant, one.trace_id, one.trace_origin) for one in seen} == {
        ("acme", TRACE, "caller")
    }


@pytest.mark.parametrize("keep_owner", [False, True])
async def test_what_is_detached_is_still_in_the_callers_trace(
    recorded: Recorded, traces: Any, keep_owner: bool
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with (
            traces.span("server", context=extract({"traceparent": SAMPLED})),
            costspan.detached(keep_owner=keep_owner),
            traces.span("deep"),
        ):
            call()
        await PlainTextResponse("ok")(scope, receive, send)

    await get(AttributionMiddleware(app, resolve=owner_of), x_key="acme", traceparent=SAMPLED)
    assert {(one.tenant, one.trace_id, one.trace_origin) for one in recorded()} == {
        ("acme" if keep_owner else None, TRACE, "caller")
    }


async def test_two_tenants_in_one_trace_never_meet(books_at: Any, traces: Any) -> None:
    app = serving("starlette.middleware.opentelemetry", traces, outside=True, resolve=owner_of)
    for tenant in ("acme", "beta", "acme"):
        await get(app, x_key=tenant, traceparent=SAMPLED)
    costspan.flush()
    with costspan.open_ledger(books_at / "ledger.db") as books:
        events = [one for one in books.events() if one["kind"] == "model"]
    assert sorted(one["owner"] for one in events) == ["acme"] * 6 + ["beta"] * 3
    assert {one["trace_id"] for one in events} == {TRACE}
    assert len(events) == 9
