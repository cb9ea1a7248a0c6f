"""The signed carrier says what it was told to whom it is for, and nothing else is believed."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from signing import KEYS, NEW, carrier_of

import costspan
from costspan.adapter import Attempt
from costspan.carrier import HEADER, Keys, from_carrier, resume, to_carrier
from costspan.core import counters
from costspan.core.context import Context, Holder
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


# --- what it says


def test_a_carrier_says_who_the_work_is_for_and_no_person() -> None:
    carrier = carrier_of(attempt_id="0b" * 16)
    assert list(carrier) == [HEADER]
    signed = from_carrier(carrier, KEYS)
    assert signed is not None
    assert (signed.tenant, signed.session, signed.issuer, signed.audience) == (
        "acme",
        "s1",
        "api",
        "search",
    )
    assert (signed.operation, signed.attempt_id, signed.parent) == ("0a" * 16, "0b" * 16, "0b" * 16)
    assert signed.expires_at - signed.issued_at == 60
    payload = base64.urlsafe_b64decode(carrier[HEADER].split(".")[2] + "==")
    assert b"ann" not in payload
    assert b" " not in payload


def test_without_an_attempt_the_enclosing_event_is_the_parent() -> None:
    named = from_carrier(carrier_of(operation="langchain:r1"), KEYS)
    found = from_carrier(carrier_of(), KEYS)
    assert named is not None
    assert found is not None
    assert (named.parent, found.parent) == ("langchain:r1", "0a" * 16)


def test_what_was_bound_is_what_is_signed() -> None:
    holder = Holder()
    holder.fill("acme", "s9", "ann")
    signed = from_carrier(carrier_of(Context(holder=holder, parent="0a" * 16)), KEYS)
    assert signed is not None
    assert (signed.tenant, signed.session) == ("acme", "s9")
    assert holder.touched, "the request is the parent of what happens there: it must be recorded"


def test_without_a_tenant_session_and_lineage_are_signed() -> None:
    signed = from_carrier(carrier_of(Context(session="s1", parent="0a" * 16)), KEYS)
    assert signed is not None
    assert (signed.tenant, signed.session, signed.parent) == (None, "s1", "0a" * 16)


@pytest.mark.parametrize(
    ("context", "missing"),
    [
        (Context(tenant="acme", tenant_source="metadata", session="s1"), "tenant"),
        (Context(tenant="acme", session="s1", session_origin="caller"), "session"),
        (Context(tenant="acme", parent="x", parent_origin="caller"), "operation"),
    ],
)
def test_what_a_stranger_said_is_not_vouched_for(context: Context, missing: str) -> None:
    signed = from_carrier(carrier_of(context), KEYS)
    assert signed is not None
    assert getattr(signed, missing) is None


def test_nothing_to_say_is_no_header() -> None:
    assert carrier_of(Context()) == {}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"secrets": {"a": "short"}, "current": "a"}, "32 bytes"),
        ({"secrets": {"a.b": NEW}, "current": "a.b"}, "key id"),
        ({"secrets": {"a": NEW}, "current": "b"}, "current key id"),
        ({"secrets": {}, "current": "a"}, "current key id"),
        ({"secrets": {"a": NEW}, "current": "a", "issuer": ""}, "issuer"),
        ({"secrets": {"a": NEW}, "current": "a", "audiences": ["x\n"]}, "audiences"),
    ],
)
def test_keys_that_cannot_be_used_are_refused_at_once(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Keys(**{"issuer": "api", **wrong})


def test_secrets_are_not_shown_and_not_changed() -> None:
    mine = {"a": "q" * 32}
    keys = Keys(mine, "a", "api", audiences="search")
    assert "qqq" not in repr(keys)
    mine["a"] = "z" * 32
    assert from_carrier(carrier_of(keys=keys), keys) is not None
    with pytest.raises(TypeError):
        keys.secrets["b"] = b""  # type: ignore[index]  # that it cannot be is what is tested


def test_without_itsdangerous_the_hint_names_the_extra() -> None:
    code = """
import sys
sys.modules["itsdangerous"] = None
import costspan
try:
    costspan.Keys({"a": "x" * 32}, "a", "api")
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'costspan[signing]'" in ran.stdout


def test_the_face_names_it_without_loading_it() -> None:
    code = "import costspan, sys; print('itsdangerous' in sys.modules, costspan.Keys.__name__)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "Keys"]
    assert (costspan.to_carrier, costspan.from_carrier) == (to_carrier, from_carrier)
    assert costspan.resume is resume


# --- a worker


def call(name: str) -> None:
    Attempt.start(name=name, provider="openai").end(usage={"input": 1})


@pytest.fixture
def message(books_at: Path) -> dict[str, str]:
    with costspan.attribute("acme", session="s1"), costspan.tool("plan") as plan:
        carrier = to_carrier(KEYS, audience="search", message_id="m1")
    return {**carrier, "plan": plan.attempt_id or ""}
