"""The signed context between services: believed from a delegate, worth nothing from others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from asgi_calls import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import costspan
from costspan.adapter import Attempt
from costspan.adapters.asgi import AttributionMiddleware, Owner, SignedContext
from costspan.adapters.requests import CostSession, ToolPrice
from costspan.carrier import HEADER, Keys, to_carrier
from costspan.core import counters
from costspan.core.clean import Invalid
from costspan.core.context import Context, scope
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
KEYS = Keys({"k1": "s" * 32}, "k1", "front", audiences="back")
PARENT = "0a" * 16
COUNTED = ("signed_", "carrier_", "may_act_for_", "tenant_", "asgi_")


def call(name: str = "call", cost: str = "0.02") -> None:
    """The LLM call of these tests; its cost is said, so that no price list decides."""
    attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o", name=name)
    attempt.end(usage={"input": 1}, flat_cost=cost)


# --- two services over HTTP


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


# --- who is believed


def new_counts(before: dict[str, int]) -> dict[str, int]:
    now = counters.snapshot()
    changed = {name: now[name] - before.get(name, 0) for name in now}
    return {name: n for name, n in changed.items() if n and name.startswith(COUNTED)}


async def unused(*_: Any) -> Any:
    raise AssertionError("these applications neither read nor answer")


async def calling(request_scope: Any, receive: Any, send: Any) -> None:
    call()


async def ask(
    signed: SignedContext,
    owner: Owner | None,
    carried: Context,
    app: Any = calling,
    **middleware: Any,
) -> dict[str, int]:
    """One request by `owner`, with what `carried` signs; returns what was counted."""
    with scope(carried):
        headers = [(HEADER.encode(), to_carrier(KEYS, audience="back")[HEADER].encode())]
    before = counters.snapshot()
    wrapped = AttributionMiddleware(app, resolve=lambda _: owner, signed=signed, **middleware)
    await wrapped({"type": "http", "path": "/", "headers": headers}, unused, unused)
    return new_counts(before)


ACME = Context(tenant="acme", session="s1", parent=PARENT)
NOBODYS = Context(session="s1", parent=PARENT)
DELEGATE = Owner("front", session="of front", user="robot", may_delegate=True)
ROBOT = Owner("front", user="robot")
FOR_ACME = {"front": ["acme"]}
SIGNED = ("acme", "signed", "s1", PARENT)


def only_acme(owner: Owner, tenant: str | None) -> bool:
    return owner.user == "robot" and tenant == "acme"


@pytest.mark.parametrize(
    ("terms", "owner", "carried", "expected", "counted"),
    [
        # a delegate
        ({"may_act_for": FOR_ACME}, DELEGATE, ACME, SIGNED, None),
        ({"may_act_for": {"front": "acme"}}, DELEGATE, ACME, SIGNED, None),
        ({"may_act_for": only_acme}, DELEGATE, ACME, SIGNED, None),
        ({}, DELEGATE, ACME, "own", "signed_not_covered"),
        ({"may_act_for": {"front": "acme-2"}}, DELEGATE, ACME, "own", "signed_not_covered"),
        ({"may_act_for": {"other": "acme"}}, DELEGATE, ACME, "own", "signed_not_covered"),
        ({"may_act_for": only_acme}, DELEGATE, NOBODYS, "own", "signed_not_covered"),
        ({"may_act_for": FOR_ACME}, DELEGATE, NOBODYS, "own", "signed_not_covered"),
        ({"may_act_for": lambda owner, tenant: 1}, DELEGATE, ACME, "own", "signed_not_covered"),
        (
            {"may_act_for": lambda owner, tenant: tenant is None},
            DELEGATE,
            NOBODYS,
            ("front", "delegating_principal", "s1", PARENT),
            None,
        ),
        (
            {},
            DELEGATE,
            Context(tenant="front", session="s1", parent=PARENT),
            ("front", "signed", "s1", PARENT),
            None,
        ),
        (
            {"may_act_for": only_acme},
            Owner(None, user="robot", may_delegate=True),
            ACME,
            SIGNED,
            None,
        ),
        # a principal that may not delegate
        ({}, Owner("acme"), ACME, ("acme", "principal", "s1", PARENT), None),
        ({}, Owner("acme", session="mine"), ACME, ("acme", "principal", "mine", PARENT), None),
        ({"may_act_for": FOR_ACME}, Owner("front"), ACME, "own", "signed_disagreement"),
        ({"may_act_for": only_acme}, ROBOT, ACME, "own", "signed_disagreement"),
        ({}, Owner("front"), NOBODYS, "own", "signed_not_covered"),
        ({"may_act_for": lambda *_: True}, ROBOT, NOBODYS, "own", "signed_not_covered"),
        ({}, Owner(None), ACME, "own", "signed_disagreement"),
        ({}, Owner("@bad"), ACME, "own", "signed_disagreement"),
        # nobody
        ({"may_act_for": FOR_ACME}, None, ACME, "own", "signed_without_principal"),
        ({"accept_without_principal": True}, None, ACME, SIGNED, None),
        ({"accept_without_principal": True}, None, NOBODYS, (None, None, "s1", PARENT), None),
        (
            {"accept_without_principal": True},
            Owner("front"),
            ACME,
            "own",
            "signed_disagreement",
        ),
    ],
)  # fmt: skip
async def test_who_is_believed(
    recorded: Recorded,
    terms: dict[str, Any],
    owner: Owner | None,
    carried: Context,
    expected: Any,
    counted: str | None,
) -> None:
    counts = await ask(SignedContext(KEYS, **terms), owner, carried)
    (request,) = [one for one in recorded() if one.kind == "request"]
    (made,) = [one for one in recorded() if one.name == "call" and one.phase == "end"]
    if expected == "own":
        tenant = owner.tenant if owner is not None and owner.tenant != "@bad" else None
        source = "delegating_principal" if owner is not None and owner.may_delegate else "principal"
        session = None if owner is None else owner.session
        expected = (tenant, source if tenant else None, session, None)
        assert request.client_claims is not None
        assert request.client_claims["signed"]["session"] == "s1"
    else:
        assert request.client_claims is None
        assert request.parent_origin == "signed"
    for one in (request, made):
        assert (one.tenant, one.tenant_source, one.session) == expected[:3]
    assert request.parent == expected[3]
    assert (made.parent, made.parent_origin) == (request.attempt_id, None)
    counts.pop("tenant_invalid", None)
    assert counts == ({} if counted is None else {counted: 1})


async def test_a_may_act_for_that_raises_permits_nothing(recorded: Recorded) -> None:
    def broken(owner: Owner, tenant: str | None) -> bool:
        raise LookupError

    counts = await ask(SignedContext(KEYS, may_act_for=broken), DELEGATE, ACME)
    assert counts == {"may_act_for_failed": 1, "signed_not_covered": 1}
    assert {one.tenant for one in recorded()} == {"front"}


def test_terms_that_cannot_be_meant_are_refused_at_once() -> None:
    async def later(owner: Owner, tenant: str | None) -> bool:
        return True

    with pytest.raises(TypeError, match="async"):
        SignedContext(KEYS, may_act_for=later)  # type: ignore[arg-type]  # that is what is tested
    with pytest.raises(Invalid):
        SignedContext(KEYS, may_act_for={"front": ["@platform"]})


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize("carried", [ACME, NOBODYS])
async def test_whoever_is_bound_inside_is_above_what_was_signed(
    recorded: Recorded, carried: Context, is_recorded: bool
) -> None:
    async def binding(request_scope: Any, receive: Any, send: Any) -> None:
        costspan.bind("mallory")
        call()

    signed = SignedContext(KEYS, accept_without_principal=True)
    counts = await ask(signed, None, carried, binding, record_requests=is_recorded)
    assert counts == {"signed_disagreement": 1}
    for one in recorded():
        assert (one.tenant, one.tenant_source, one.session) == ("mallory", "principal", None)
        assert one.parent_origin is None
    assert any(one.kind == "request" for one in recorded()) == is_recorded


async def test_whoever_is_bound_inside_may_agree(recorded: Recorded) -> None:
    async def binding(request_scope: Any, receive: Any, send: Any) -> None:
        costspan.bind("acme")
        call()

    assert not await ask(SignedContext(KEYS, accept_without_principal=True), None, ACME, binding)
    for one in recorded():
        assert (one.tenant, one.session) == ("acme", "s1")


async def test_without_a_record_of_the_request_the_signed_parent_is_the_parent(
    recorded: Recorded,
) -> None:
    signed = SignedContext(KEYS, may_act_for=FOR_ACME)
    await ask(signed, DELEGATE, ACME, record_requests=False)
    assert {(one.tenant, one.parent, one.parent_origin) for one in recorded()} == {
        ("acme", PARENT, "signed")
    }


# --- the header


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        (lambda header: [header, header], "carrier_duplicated"),
        (lambda header: [(b"X-CostSpan-Context", header[1]), header], "carrier_duplicated"),
        (lambda header: [(header[0], header[1][:-1])], "carrier_tampered"),
        (lambda header: [(header[0], b"\xff\x00")], "carrier_tampered"),
        (lambda header: [(b"traceparent", b"x")], None),
    ],
)
async def test_a_header_that_is_not_believed_is_taken_out_all_the_same(
    recorded: Recorded, change: Callable[[Any], list[Any]], counted: str | None
) -> None:
    seen: list[Any] = []

    async def looking(request_scope: Any, receive: Any, send: Any) -> None:
        seen.append(request_scope["headers"])
        call()

    def resolve(request_scope: Any) -> Owner:
        seen.append(request_scope["headers"])
        return DELEGATE

    with scope(ACME):
        value = to_carrier(KEYS, audience="back")[HEADER].encode()
    other = (b"authorization", b"front-key")
    headers = [*change((HEADER.encode(), value)), other]
    signed = SignedContext(KEYS, may_act_for=FOR_ACME)
    before = counters.snapshot()
    app = AttributionMiddleware(looking, resolve=resolve, signed=signed)
    await app({"type": "http", "path": "/", "headers": headers}, unused, unused)
    assert len(seen) == 2
    for left in seen:
        assert other in left
        assert not [name for name, _ in left if name.lower() == HEADER.encode()]
    assert {one.tenant for one in recorded()} == {"front"}
    assert new_counts(before) == ({} if counted is None else {counted: 1})


async def test_a_middleware_that_was_told_nothing_believes_nothing(recorded: Recorded) -> None:
    with scope(ACME):
        headers = [(HEADER.encode(), to_carrier(KEYS, audience="back")[HEADER].encode())]
    app = AttributionMiddleware(calling, resolve=lambda _: DELEGATE)
    await app({"type": "http", "path": "/", "headers": headers}, unused, unused)
    assert {(one.tenant, one.session) for one in recorded()} == {("front", "of front")}
