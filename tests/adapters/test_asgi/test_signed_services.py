"""The signed context between two services over HTTP: one tree, on the user's tenant."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from asgi_calls import serving
from signed_calls import KEYS, PARENT, Recorded, call, new_counts
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import costspan
from costspan.adapters.asgi import AttributionMiddleware, Owner, SignedContext
from costspan.adapters.requests import CostSession, ToolPrice
from costspan.carrier import HEADER, to_carrier
from costspan.core import counters
from costspan.core.context import Context, scope


def principal_of(request_scope: Any) -> Owner | None:
    """Both services' authentication: what they know a token for."""
    token = dict(request_scope["headers"]).get(b"authorization", b"").decode()
    known = {
        "acme-key": Owner("acme", session="chat-acme"),
        "beta-key": Owner("beta", session="chat-beta"),
        "mallory-key": Owner("mallory"),
        "front-key": Owner("front", session="of front", user="robot", may_delegate=True),
    }
    return known.get(token)


def back_service(seen: list[dict[str, str]]) -> Any:
    """The sub-agent: it works for whoever the delegate signed for."""

    async def agent(request: Request) -> JSONResponse:
        seen.append(dict(request.headers))
        call("sub-agent")
        return JSONResponse({})

    return AttributionMiddleware(
        Starlette(routes=[Route("/agent", agent, methods=["POST"])]),
        resolve=principal_of,
        signed=SignedContext(KEYS, may_act_for={"front": ["acme", "beta"]}),
    )


def front_service(back: str, client: str) -> Any:
    """The user's service: a tool run of it asks the sub-agent, by one client or the other."""
    url, auth = f"http://{back}/agent", {"authorization": "front-key"}
    session = CostSession(keys=KEYS, hosts={back: "back"}, tools={back: ToolPrice("ask", "0.01")})

    async def by_httpx() -> None:
        with costspan.tool("ask", cost="0.01"):
            async with httpx.AsyncClient() as http:
                headers = {**auth, **costspan.to_carrier(KEYS, audience="back")}
                (await http.post(url, headers=headers)).raise_for_status()

    async def chat(request: Request) -> JSONResponse:
        call("plan", "0.1")
        if client == "httpx":
            await by_httpx()
        else:
            answer = await asyncio.to_thread(session.post, url, headers=auth)
            answer.raise_for_status()
        return JSONResponse({})

    return AttributionMiddleware(
        Starlette(routes=[Route("/chat", chat, methods=["POST"])]), resolve=principal_of
    )


@pytest.mark.parametrize("client", ["httpx", "requests"])
def test_a_sub_agent_in_another_service_lands_on_the_users_tenant(
    recorded: Recorded, client: str
) -> None:
    seen: list[dict[str, str]] = []

    async def users(front: str) -> None:
        async with httpx.AsyncClient(timeout=20) as http:
            asked = [
                http.post(f"http://{front}/chat", headers={"authorization": f"{tenant}-key"})
                for tenant in ("acme", "beta", "acme", "beta")
            ]
            for answer in await asyncio.gather(*asked):
                answer.raise_for_status()

    with serving(back_service(seen)) as back, serving(front_service(back, client)) as front:
        asyncio.run(users(front))
    assert len(seen) == 4
    assert all(HEADER not in headers for headers in seen), "the application must not pass it on"

    observations = recorded()
    ends = [one for one in observations if one.phase == "end"]
    tools = {one.attempt_id: one for one in ends if one.kind == "tool"}
    hops = {one.attempt_id: one for one in ends if one.kind == "request" and one.parent}
    assert len(tools) == len(hops) == 4
    for one in (one for one in ends if one.name == "sub-agent"):
        hop = hops[one.parent]
        tool = tools[hop.parent]
        assert hop.parent_origin == "signed"
        assert one.tenant == hop.tenant == tool.tenant
        assert (one.tenant_source, one.session_origin) == ("signed", "signed")
        assert one.session == tool.session == f"chat-{one.tenant}"
        assert (one.user, hop.user) == (None, None), "the delegate's own user is not the tenant's"

    costspan.flush()
    with costspan.open_ledger() as books:
        found = books.totals()
        (root,) = books.explain(str(next(iter(hops)))).roots
    rows = {(row["owner"], row["bucket"]): row["cost"] for row in found["rows"]}
    assert rows == {
        (tenant, bucket): cost
        for tenant in ("acme", "beta")
        for bucket, cost in (("direct", "0.200000000000"), ("agent", "0.060000000000"))
    }
    assert found["balanced"]
    assert (root.event.facts.kind, len(root.below)) == ("request", 2), "one tree over both"


def test_a_captured_context_replayed_beside_another_principal_changes_nothing(
    recorded: Recorded,
) -> None:
    with scope(Context(tenant="acme", session="chat-acme", parent=PARENT)):
        captured = to_carrier(KEYS, audience="back")
    before = counters.snapshot()
    with serving(back_service([])) as back:
        for headers in ({}, captured):
            answer = httpx.post(
                f"http://{back}/agent", headers={"authorization": "mallory-key", **headers}
            )
            answer.raise_for_status()
    plain, replayed = [one for one in recorded() if one.kind == "request"]
    claims = {"issuer": "front", "tenant": "acme", "session": "chat-acme", "parent": PARENT}
    assert plain.client_claims is None
    assert replayed.client_claims == {"signed": claims}
    for one in (plain, replayed):
        assert (one.tenant, one.tenant_source) == ("mallory", "principal")
        assert (one.session, one.parent) == (None, None)
    assert new_counts(before) == {"signed_disagreement": 1}
    costspan.flush()
    with costspan.open_ledger() as books:
        (row,) = books.totals("owner")["rows"]
    assert (row["owner"], row["cost"]) == ("mallory", "0.040000000000")
