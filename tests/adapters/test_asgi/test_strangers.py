"""Nothing that a stranger writes names an owner, a cause or a cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asgi_calls import Seeing, call, calling, counted, http, receive, send
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from costspan.adapters.asgi import AttributionMiddleware
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]


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


async def test_the_clients_request_id_is_kept_apart_from_ours(
    recorded: Recorded, requests_and_calls: Split
) -> None:
    scope = http(headers=[(b"x-request-id", b"client-1")])
    for _ in range(2):
        await AttributionMiddleware(calling)(scope, receive, send)
    requests, calls = requests_and_calls(recorded())
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
