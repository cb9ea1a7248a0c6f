"""The user whom Starlette's own `AuthenticationMiddleware` authenticated, in either order."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from asgi_calls import context_of, counted
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    BaseUser,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

import costspan
from costspan.adapter import Attempt
from costspan.adapters.asgi import (
    AttributionMiddleware,
    Later,
    Owner,
    from_user,
)
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def request() -> dict[str, Any]:
    return {"type": "http", "path": "/", "headers": []}


class Member(SimpleUser):
    """A user of an organisation."""

    def __init__(self, name: str, organisation: object) -> None:
        super().__init__(name)
        self.organisation = SimpleNamespace(id=organisation)


class ByHeader(AuthenticationBackend):
    """The application's own authentication, by a password everybody knows."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("x-password")
        if name == "wrong":
            raise AuthenticationError
        return None if name is None else (AuthCredentials(), Member("ann", name))


async def index(request: Request) -> Response:
    if "bind" in request.query_params:
        costspan.bind("evil")
    with costspan.attribute("evil"):  # the principal is not replaced, whenever it is known
        Attempt.start(layer="sdk").end(usage={"input": 1})
    return PlainTextResponse("ok")


def application(order: str) -> Starlette:
    attribution = Middleware(
        AttributionMiddleware, resolve=from_user("organisation.id", user="username")
    )
    authentication = Middleware(AuthenticationMiddleware, backend=ByHeader())
    passing: Any = BaseHTTPMiddleware
    between = Middleware(passing, dispatch=lambda request, call_next: call_next(request))
    stack = [authentication, between, attribution]
    return Starlette(
        routes=[Route("/", index)], middleware=stack if order == "outside" else stack[::-1]
    )


@pytest.mark.parametrize("order", ["outside", "inside"])
def test_starlettes_user_owns_the_request_in_either_order(recorded: Recorded, order: str) -> None:
    before = counted("tenant_disagreement")
    client = TestClient(application(order))
    for tenant in ("acme", "beta"):
        assert client.get("/", headers={"x-password": tenant}).status_code == 200
    seen = recorded()
    assert [one.tenant for one in seen] == ["acme"] * 3 + ["beta"] * 3
    assert {(one.tenant_source, one.user) for one in seen} == {("principal", "ann")}
    assert counted("tenant_disagreement") == before + 2


@pytest.mark.parametrize("order", ["outside", "inside"])
def test_who_is_bound_does_not_come_before_who_authenticated(
    recorded: Recorded, order: str
) -> None:
    before = counted("bind_disagreement")
    TestClient(application(order)).get("/?bind=1", headers={"x-password": "acme"})
    assert [one.tenant for one in recorded()] == ["acme"] * 3
    assert counted("bind_disagreement") == before + 1


@pytest.mark.parametrize("order", ["outside", "inside"])
def test_nobody_authenticated_owns_nothing(recorded: Recorded, order: str) -> None:
    client = TestClient(application(order))
    before = counted("resolve_never_ready")
    assert client.get("/").status_code == 200  # an UnauthenticatedUser
    assert client.get("/", headers={"x-password": "wrong"}).status_code == 400
    (start, end, asked) = recorded()
    assert (start.tenant, end.tenant, asked.tenant) == ("evil", "evil", None)
    assert counted("resolve_never_ready") == before


def test_without_authentication_inside_it_is_said(recorded: Recorded) -> None:
    app = Starlette(routes=[Route("/", index)])
    app.add_middleware(AttributionMiddleware, resolve=from_user("organisation.id"))
    before = counted("resolve_never_ready")
    TestClient(app).get("/")
    assert recorded()[-1].tenant is None
    assert counted("resolve_never_ready") == before + 1


def read(user: Any, /, **how: Any) -> Any:
    return from_user(**{"tenant": "organisation.id", **how})({"user": user})


def test_from_user_reads_ids_and_functions() -> None:
    number = UUID(int=7)
    assert read(Member("ann", 42), user="username") == Owner("42", user="ann")
    assert read(Member("ann", number), session="organisation.id") == Owner(
        str(number), session=str(number)
    )
    whole = Owner("acme", feature="chat", may_delegate=True)
    assert read(Member("ann", 1), tenant=lambda user: whole) is whole
    assert read(Member("ann", 1), tenant=lambda user: None) is None


@pytest.mark.parametrize(
    ("user", "counter"),
    [
        (SimpleUser("ann"), "user_refused:attribute_missing"),
        (Member("ann", True), "tenant_invalid"),
    ],
)
async def test_a_user_without_a_tenant_is_counted(user: BaseUser, counter: str) -> None:
    before = counted(counter)
    scope = {**request(), "user": user}
    context = await context_of(from_user("organisation.id"), scope)
    assert context.owner() == (None, None)
    assert counted(counter) == before + 1


@pytest.mark.parametrize("user", [None, object(), {"is_authenticated": True}])
def test_who_does_not_say_to_be_authenticated_is_not(user: object) -> None:
    assert from_user(lambda user: "evil")({"user": user}) is None


async def test_what_is_asked_later_may_fail_or_clash_and_the_request_goes_on() -> None:
    answers: list[tuple[Any, str]] = [
        (Owner("hub", may_delegate=True), "late_delegate"),
        ("a\nb", "tenant_invalid"),
        (7, "resolve_invalid"),
    ]
    for answer, counter in answers:
        before = counted(counter)
        context = await context_of(lambda _, said=answer: Later(lambda: said), request())
        assert context.owner() == (None, None)
        assert counted(counter) == before + 1
