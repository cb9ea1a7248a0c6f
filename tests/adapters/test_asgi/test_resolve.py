"""`resolve`, called as a server calls it: who is believed, and what a broken one costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from asgi_calls import Seeing, call, calling, counted, http, receive, send
from hypothesis import given
from hypothesis import strategies as st

import costspan
from costspan.adapters.asgi import AttributionMiddleware, Owner
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
Split = Callable[[list[Observation]], tuple[list[Observation], list[Observation]]]


async def test_resolve_gives_the_whole_owner(recorded: Recorded, requests_and_calls: Split) -> None:
    owner = Owner("acme", session="s1", user="ann", feature="chat", labels={"team": "red"})
    await AttributionMiddleware(calling, resolve=lambda scope: owner)(http(), receive, send)
    requests, calls = requests_and_calls(recorded())
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
    recorded: Recorded, resolve: Any, counter: str, requests_and_calls: Split
) -> None:
    before = counted(counter)
    await AttributionMiddleware(calling, resolve=resolve)(http(), receive, send)
    assert counted(counter) == before + 1
    (request,), (one,) = requests_and_calls(recorded())
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
