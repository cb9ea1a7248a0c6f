"""The ready-made resolvers: what vouches for an identity is taken, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asgi_calls import _nothing, context_of, counted
from starlette.responses import PlainTextResponse

from costspan.adapter import Attempt
from costspan.adapters.asgi import (
    AttributionMiddleware,
    Later,
    Owner,
    api_keys,
    first_of,
    from_user,
    trusted_header,
)
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def request(*headers: tuple[str, bytes], client: Any = ("10.1.2.3", 41000)) -> dict[str, Any]:
    encoded = [(name.encode(), value) for name, value in headers]
    return {"type": "http", "path": "/", "headers": encoded, "client": client}


def bearer(token: bytes) -> dict[str, Any]:
    return request(("authorization", b"Bearer " + token))


# --- API keys


def test_a_key_is_its_owners() -> None:
    ann = Owner("acme", user="ann")
    resolve = api_keys({"sk-a": ann, "sk-b": "beta"})
    assert resolve(bearer(b"sk-a")) is ann
    assert resolve(bearer(b"sk-b")) == "beta"
    assert resolve(request(("Authorization", b"bEARER  sk-b"))) == "beta"


def test_a_key_may_be_known_by_its_digest_alone() -> None:
    digest = hashlib.sha256(b"sk-a").hexdigest()
    resolve = api_keys({f"sha256:{digest.upper()}": "acme"})
    assert resolve(bearer(b"sk-a")) == "acme"
    assert resolve(bearer(f"sha256:{digest}".encode())) is None  # who read the configuration


def test_a_key_is_not_kept_in_plain() -> None:
    resolve: Any = api_keys({"sk-very-secret": "acme"})
    held = [cell.cell_contents for cell in resolve.__closure__]
    assert "sk-very-secret" not in repr([getattr(each, "__self__", each) for each in held])


def test_a_function_is_given_the_key() -> None:
    resolve = api_keys({"k1": "acme"}.get, header="X-Api-Key", scheme=None)
    assert resolve(request(("x-api-key", b"k1"))) == "acme"
    assert resolve(request(("x-api-key", b"k2"))) is None


@pytest.mark.parametrize(
    ("headers", "counter"),
    [
        ([("authorization", b"Bearer sk-x")], "api_key_refused:unknown"),
        ([("authorization", b"Bearer sk-a ")] * 2, "api_key_refused:repeated"),
        ([("authorization", b"Bearer \xff\x00\r\n")], "api_key_refused:unknown"),
        ([("authorization", b"Bearer " + b"sk-a" * 2500)], "api_key_refused:unknown"),
        ([("authorization", b"Bearer sk-A")], "api_key_refused:unknown"),
    ],
)
def test_a_key_that_is_refused_is_counted(headers: list[tuple[str, bytes]], counter: str) -> None:
    resolve = api_keys({"sk-a": "acme"})
    before = counted(counter)
    assert resolve(request(*headers)) is None
    assert counted(counter) == before + 1


@pytest.mark.parametrize("value", [None, b"", b"Bearer", b"Bearer ", b"Basic sk-a", b"sk-a"])
def test_a_request_without_a_key_is_anonymous(value: bytes | None) -> None:
    before = counters.snapshot()
    resolve = api_keys({"sk-a": "acme"})
    assert resolve(request() if value is None else request(("authorization", value))) is None
    assert counters.snapshot() == before


@pytest.mark.parametrize(
    "keys",
    [
        {"": "acme"},
        {"sk-a": "@platform"},
        {"sk-a": ""},
        {"sk-a": Owner(None)},
        {"sha256:abc": "acme"},
        {"sk-a": "acme", f"sha256:{hashlib.sha256(b'sk-a').hexdigest()}": "beta"},
    ],
)
def test_keys_that_cannot_be_meant_are_refused_at_once(keys: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"tenant_invalid|API key|sha256"):
        api_keys(keys)


# --- a proxy's header


PEERS = ["10.1.0.0/16", "fd00::/8"]


@pytest.mark.parametrize(
    "client", [("10.1.2.3", 41000), ("::ffff:10.1.2.3", 41000), ("fd00::9", 41000)]
)
def test_a_listed_peer_names_the_tenant(client: Any) -> None:
    resolve = trusted_header("X-Tenant", peers=PEERS)
    assert resolve(request(("x-tenant", b"acme"), client=client)) == "acme"


def test_a_unix_socket_is_a_peer_when_it_is_listed() -> None:
    scope = request(("x-tenant", b"acme"), client=None)
    assert trusted_header("x-tenant", peers=["unix"])(scope) == "acme"
    before = counted("identity_header_refused:peer")
    assert trusted_header("x-tenant", peers=PEERS)(scope) is None
    assert counted("identity_header_refused:peer") == before + 1


TENANT = ("x-tenant", b"acme")


@pytest.mark.parametrize(
    ("scope", "reason"),
    [
        (request(TENANT, client=("10.2.0.1", 41000)), "peer"),
        (request(TENANT, client=("203.0.113.9", 41000)), "peer"),
        (request(TENANT, client=("testclient", 50000)), "peer"),
        (request(TENANT, client=("", 50000)), "peer"),
        (request(TENANT, ("x-forwarded-for", b"10.1.2.3"), client=("9.9.9.9", 4)), "peer"),
        (request(TENANT, client=("10.1.2.3", 0)), "peer_hidden"),
        (request(TENANT, ("x-forwarded-for", b"10.1.2.3:41000, 9.9.9.9")), "peer_hidden"),
        (
            request(TENANT, ("forwarded", b'for="[fd00::1]:5"'), client=("fd00::1", 5)),
            "peer_hidden",
        ),
        (request(TENANT, TENANT), "repeated"),
        (request(TENANT, ("X-Tenant", b"beta")), "repeated"),
        (request(("x-tenant", b"acme, beta")), "repeated"),
    ],
)
def test_a_header_that_is_refused_is_counted(scope: dict[str, Any], reason: str) -> None:
    resolve = trusted_header("x-tenant", peers=PEERS)
    before = counted(f"identity_header_refused:{reason}")
    assert resolve(scope) is None
    assert counted(f"identity_header_refused:{reason}") == before + 1


def test_a_client_cannot_lose_its_tenant_by_naming_the_proxy() -> None:
    resolve = trusted_header("x-tenant", peers=PEERS)
    scope = request(TENANT, ("x-forwarded-for", b"10.1.2.3, 10.1.2.3:1, 203.0.113.9"))
    assert resolve(scope) == "acme"


def test_a_server_that_rewrites_the_peer_is_not_believed() -> None:
    from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

    answers: list[Any] = []
    resolve = trusted_header("x-tenant", peers=PEERS)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        answers.append(resolve(scope))

    app_: Any = app
    for forwarded in (b"10.1.2.3", b"10.1.2.3:41000"):
        scope: Any = request(TENANT, ("x-forwarded-for", forwarded), client=("6.6.6.6", 41000))
        coroutine: Any = ProxyHeadersMiddleware(app_, "*")(scope, _nothing, _nothing)
        with pytest.raises(StopIteration):
            coroutine.send(None)
        assert scope["client"][0] == "10.1.2.3"  # what a stranger wrote
    assert answers == [None, None]


@pytest.mark.parametrize(
    "peers", [[], ["0.0.0.0/0"], ["10.0.0.0/8", "::/0"], ["proxy"], ["10.1/x"]]
)
def test_peers_that_cannot_be_meant_are_refused_at_once(peers: list[str]) -> None:
    with pytest.raises(ValueError, match=r"peers|network"):
        trusted_header("x-tenant", peers=peers)


def test_a_proxy_before_a_real_server(
    recorded: Recorded, serving: Callable[[Any], AbstractContextManager[str]]
) -> None:
    """uvicorn puts what a proxy on this machine forwards in place of the proxy's own address."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            Attempt.start(layer="sdk").end(usage={"input": 1})
            await PlainTextResponse("ok")(scope, receive, send)

    resolve = trusted_header("x-tenant", peers=["127.0.0.1"])
    before = counted("identity_header_refused:peer_hidden")
    with serving(AttributionMiddleware(app, resolve=resolve)) as address:
        for forwarded in ({}, {"x-forwarded-for": "127.0.0.1"}):
            httpx.get(f"http://{address}/", headers={"x-tenant": "acme", **forwarded})
    assert [one.tenant for one in recorded()] == ["acme"] * 3 + [None] * 3
    assert counted("identity_header_refused:peer_hidden") == before + 1


HOSTILE = [
    b"acme\r\nx: evil",
    b"acme\x00",
    b"acme\x7f",
    b" acme",
    b"@platform",
    b"acme" * 2500,
    "\uff41cme".encode(),
    "ac\u200bme".encode(),
    b"acm\xe9",
    b"\xff\xfe",
]


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_hostile_header_is_no_tenant(value: bytes) -> None:
    before = counted("tenant_invalid")
    resolve = trusted_header("x-tenant", peers=PEERS)
    context = await context_of(resolve, request(("x-tenant", value)))
    assert context.owner() == (None, None)
    assert context.flags == ("tenant_invalid",)
    assert counted("tenant_invalid") == before + 1


# --- the first of several


def test_the_first_that_names_a_tenant_wins() -> None:
    keys = api_keys({"sk-a": "acme"})
    header = trusted_header("x-tenant", peers=PEERS)
    proxied = request(("x-tenant", b"beta"), ("authorization", b"Bearer sk-a"))
    assert first_of(keys, header)(proxied) == "acme"
    assert first_of(header, keys)(proxied) == "beta"
    assert first_of(header, keys)(bearer(b"sk-a")) == "acme"
    assert first_of(header, keys)(request()) is None


def test_a_user_without_a_tenant_is_kept_only_if_nobody_names_one() -> None:
    ann = Owner(None, user="ann")
    assert first_of(lambda _: None, lambda _: ann, lambda _: None)({}) is ann
    assert first_of(lambda _: ann, lambda _: "acme")({}) == "acme"


def test_one_that_is_not_ready_keeps_its_turn() -> None:
    scope = bearer(b"sk-a")
    asked: list[int] = []

    def before(scope: Any) -> None:
        asked.append(1)

    resolve = first_of(before, from_user("organisation.id"), api_keys({"sk-a": "acme"}))
    pending = resolve(scope)
    assert isinstance(pending, Later)
    again = pending.again()
    assert isinstance(again, Later)
    scope["user"] = SimpleNamespace(is_authenticated=True, organisation=SimpleNamespace(id="beta"))
    assert again.again() == Owner("beta")
    scope["user"] = None
    assert again.again() == "acme"
    assert asked == [1]  # what was answered is not asked again


def test_first_of_takes_no_async_resolver() -> None:
    async def resolve(scope: Any) -> str:
        return "acme"

    with pytest.raises(TypeError, match="async"):
        first_of(resolve)  # type: ignore[arg-type]  # the mistake it is about
