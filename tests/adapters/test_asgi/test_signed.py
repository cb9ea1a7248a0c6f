"""The signed context of a request: believed from a delegate, worth nothing from others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from signed_calls import KEYS, PARENT, Recorded, call, new_counts

import costspan
from costspan.adapters.asgi import AttributionMiddleware, Owner, SignedContext
from costspan.carrier import HEADER, to_carrier
from costspan.core import counters
from costspan.core.clean import Invalid
from costspan.core.context import Context, scope


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
