"""A worker that goes on with what was sent to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from signing import KEYS, Refusals

import costspan
from costspan.adapter import Attempt
from costspan.carrier import Signed, resume, to_carrier
from costspan.core.context import Context, Holder, scope
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def call(name: str) -> None:
    Attempt.start(name=name, provider="openai").end(usage={"input": 1})


@pytest.fixture
def message(books_at: Path) -> dict[str, str]:
    with costspan.attribute("acme", session="s1"), costspan.tool("plan") as plan:
        carrier = to_carrier(KEYS, audience="search", message_id="m1")
    return {**carrier, "plan": plan.attempt_id or ""}


def test_a_worker_continues_what_was_sent(recorded: Recorded, message: dict[str, str]) -> None:
    with costspan.attribute("beta", session="of the worker", user="bob"):
        with resume(message, KEYS, message_id="m1"):
            call("resumed")
            with costspan.tool("inner"):
                call("under a tool")
            with costspan.attribute("beta"):
                call("renamed")
        call("own")
    seen = {one.name: one for one in recorded() if one.phase == "end"}
    one = seen["resumed"]
    assert (one.tenant, one.tenant_source) == ("acme", "signed")
    assert (one.session, one.session_origin) == ("s1", "signed")
    assert (one.parent, one.parent_origin) == (message["plan"], "signed")
    assert one.user is None
    inner = seen["under a tool"]
    assert (inner.parent, inner.parent_origin) == (seen["inner"].attempt_id, None)
    assert seen["renamed"].tenant == "acme", "an application's word is below a signature"
    assert (seen["own"].tenant, seen["own"].parent) == ("beta", None)


def test_a_replayed_message_is_nobodys(
    recorded: Recorded, message: dict[str, str], refusals: Refusals
) -> None:
    with costspan.attribute("beta"), resume(message, KEYS, message_id="m2"):
        call("replayed")
    one = next(one for one in recorded() if one.name == "replayed")
    assert (one.tenant, one.session, one.parent) == (None, None, None)
    assert refusals() == {"carrier_message": 1}


def test_a_signature_is_worth_nothing_beside_what_was_bound(recorded: Recorded) -> None:
    signed = Context(
        tenant="acme",
        tenant_source="signed",
        session="s1",
        session_origin="signed",
        parent="0a" * 16,
        parent_origin="signed",
        holder=Holder(),
    )
    with scope(signed):
        call("before")
        costspan.bind("mallory")
        call("after")
        with costspan.detached(keep_owner=True):
            call("detached")
    seen = {one.name: one for one in recorded() if one.phase == "end"}
    assert (seen["before"].tenant, seen["before"].session) == ("acme", "s1")
    for name in ("after", "detached"):
        one = seen[name]
        assert (one.tenant, one.session, one.parent) == ("mallory", None, None)


def test_a_signed_says_its_times_in_seconds() -> None:
    signed = Signed(issuer="a", audience="b", issued_at=1, expires_at=2)
    assert signed.parent is None
    assert msgspec.to_builtins(signed) == {"iss": "a", "aud": "b", "iat": 1, "exp": 2}
