"""What a carrier is refused for: its place, its message, its moment, its keys, a flipped bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signing import KEYS, NEW, OLD, Refusals, carrier_of, forged

import costspan
from costspan.carrier import HEADER, Keys, from_carrier, to_carrier
from costspan.core.context import Context

# --- what it says


@pytest.fixture
def message(books_at: Path) -> dict[str, str]:
    with costspan.attribute("acme", session="s1"), costspan.tool("plan") as plan:
        carrier = to_carrier(KEYS, audience="search", message_id="m1")
    return {**carrier, "plan": plan.attempt_id or ""}


def test_a_carrier_over_one_kib_is_no_header(refusals: Refusals) -> None:
    assert carrier_of(Context(tenant="acme", session="s" * 900)) == {}
    assert refusals() == {"carrier_too_big": 1}
    largest = carrier_of(Context(tenant="é" * 128, session="s" * 200))
    assert len(largest[HEADER]) <= 1024
    assert from_carrier(largest, KEYS) is not None


# --- what is refused


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"audience": "billing"}, "audience"),
        ({"message_id": "m1"}, "message"),
        ({"message_id": ""}, "message"),
        ({"now": 4e9}, "expired"),
        ({"now": 1e9}, "expired"),
    ],
)
def test_it_holds_for_its_place_message_and_moment_alone(
    asked: dict[str, Any], reason: str, refusals: Refusals
) -> None:
    assert from_carrier(carrier_of(), KEYS, **asked) is None
    assert refusals() == {f"carrier_{reason}": 1}


def test_it_expires_on_the_second() -> None:
    carrier = carrier_of(ttl_seconds=30)
    signed = from_carrier(carrier, KEYS)
    assert signed is not None
    assert from_carrier(carrier, KEYS, now=signed.expires_at - 0.001) == signed
    assert from_carrier(carrier, KEYS, now=signed.expires_at) is None
    assert from_carrier(carrier, KEYS, now=signed.issued_at - 30) == signed  # clocks differ
    assert from_carrier(carrier, KEYS, now=signed.issued_at - 31) is None


def test_a_message_id_binds(refusals: Refusals) -> None:
    carrier = carrier_of(message_id="m1", ttl_seconds=86_400)
    signed = from_carrier(carrier, KEYS, message_id="m1")
    assert signed is not None
    assert signed.expires_at - signed.issued_at == 86_400
    assert from_carrier(carrier, KEYS, message_id="m2") is None
    assert from_carrier(carrier, KEYS) is None
    assert refusals() == {"carrier_message": 2}
    assert carrier_of(message_id="") == {}


@pytest.mark.parametrize("ttl", [301, 86_400, 0, -5])
def test_over_http_it_holds_five_minutes_at_most(ttl: int, refusals: Refusals) -> None:
    signed = from_carrier(carrier_of(ttl_seconds=ttl), KEYS)
    assert signed is not None
    assert signed.expires_at - signed.issued_at == (300 if ttl > 300 else 1)
    assert refusals() == {"carrier_ttl_clamped": 1}


def test_an_issuer_cannot_allow_itself_more(refusals: Refusals) -> None:
    claims = {"iss": "api", "aud": "search", "iat": 1000, "exp": 1301, "tnt": "acme"}
    assert from_carrier({HEADER: forged(claims)}, KEYS, now=1100) is None
    assert refusals() == {"carrier_expired": 1}
    claims["exp"] = 1300
    assert from_carrier({HEADER: forged(claims)}, KEYS, now=1100) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"tnt": "@platform"},
        {"tnt": " acme"},
        {"tnt": "a\u202eb"},
        {"tnt": "e\u0301"},  # not NFC: another id than the one it would be recorded as
        {"tnt": 7},
        {"iat": "1000"},
        {"iat": True},
        {"exp": None},
        {"iss": None},
    ],
)
def test_claims_that_make_no_sense_are_refused(changed: dict[str, Any], refusals: Refusals) -> None:
    claims = {"iss": "api", "aud": "search", "iat": 1000, "exp": 1060, "tnt": "acme"}
    assert from_carrier({HEADER: forged(claims)}, KEYS, now=1001) is not None
    assert from_carrier({HEADER: forged({**claims, **changed})}, KEYS, now=1001) is None
    assert refusals() == {"carrier_tampered": 1}


def test_only_known_issuers_are_believed(refusals: Refusals) -> None:
    carrier = carrier_of(keys=Keys({"new": NEW}, "new", "planner"))
    assert from_carrier(carrier, KEYS) is None
    assert refusals() == {"carrier_issuer": 1}
    trusting = Keys({"new": NEW}, "new", "api", audiences="search", issuers=["planner"])
    assert from_carrier(carrier, trusting) is not None
    assert from_carrier(carrier_of(), trusting) is None, "its own issuer is not on the list"


def test_without_audiences_nothing_is_believed(refusals: Refusals) -> None:
    assert from_carrier(carrier_of(), Keys({"new": NEW}, "new", "api")) is None
    assert refusals() == {"carrier_audience": 1}


def test_keys_rotate(refusals: Refusals) -> None:
    before = Keys({"old": OLD}, "old", "api", audiences="search")
    after = Keys({"new": NEW}, "new", "api", audiences="search")
    assert from_carrier(carrier_of(keys=before), KEYS) is not None
    assert from_carrier(carrier_of(keys=KEYS), after) is not None
    assert refusals() == {}
    assert from_carrier(carrier_of(keys=before), after) is None
    assert refusals() == {"carrier_key": 1}


def test_one_keys_carrier_under_another_keys_name(refusals: Refusals) -> None:
    claims = {"iss": "api", "aud": "search", "iat": 1000, "exp": 1060, "tnt": "acme"}
    assert from_carrier({HEADER: forged(claims, OLD, "new")}, KEYS, now=1001) is None
    assert refusals() == {"carrier_tampered": 1}


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda value: {}, "missing"),
        (lambda value: [], "missing"),
        (lambda value: [(HEADER, value), (HEADER, value)], "duplicated"),
        (lambda value: {HEADER: value, HEADER.upper(): value}, "duplicated"),
        (lambda value: {HEADER: f"{value}, {value}"}, "duplicated"),
        (lambda value: {HEADER: value + "A" * 1024}, "too_big"),
        (lambda value: {HEADER: ""}, "tampered"),
        (lambda value: {HEADER: value + "="}, "tampered"),
        (lambda value: {HEADER: " " + value}, "tampered"),
        (lambda value: {HEADER: value.replace("1.", "2.", 1)}, "tampered"),
        (lambda value: {HEADER: value.replace(".new.", ".old.", 1)}, "tampered"),
        (lambda value: {HEADER: value.replace(".new.", ".gone.", 1)}, "key"),
        (lambda value: {HEADER: value.rpartition(".")[0] + "."}, "tampered"),
        (lambda value: {HEADER: value + "é"}, "tampered"),
        (lambda value: {HEADER: 7}, "failed:TypeError"),
        (lambda value: 7, "failed:TypeError"),
    ],
)
def test_every_refusal_is_counted_and_none_raises(
    read: Callable[[str], Any], reason: str, refusals: Refusals
) -> None:
    assert from_carrier(read(carrier_of()[HEADER]), KEYS) is None
    assert refusals() == {f"carrier_{reason}": 1}


def test_headers_in_any_case_and_as_bytes() -> None:
    value = carrier_of()[HEADER]
    assert from_carrier({"X-Costspan-Context": value}, KEYS) is not None
    assert from_carrier([(HEADER, value.encode()), ("other", b"x")], KEYS) is not None


@given(data=st.data())
def test_any_flipped_bit_is_refused(data: st.DataObject) -> None:
    value = bytearray(carrier_of()[HEADER].encode())
    at = data.draw(st.integers(0, len(value) - 1))
    value[at] ^= 1 << data.draw(st.integers(0, 7))
    assert from_carrier({HEADER: bytes(value)}, KEYS) is None


def test_no_last_character_of_the_signature_but_one() -> None:
    """43 characters of base64 hold two bits more than the hash: they must not be free."""
    value = carrier_of()[HEADER]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    right = [last for last in alphabet if from_carrier({HEADER: value[:-1] + last}, KEYS)]
    assert right == [value[-1]]


@given(st.text(max_size=300) | st.binary(max_size=300))
def test_no_garbage_raises(value: str | bytes) -> None:
    assert from_carrier({HEADER: value}, KEYS) is None


@given(
    tenant=st.text(min_size=1, max_size=20).filter(lambda text: text[0] != "@"),
    session=st.none() | st.text(min_size=1, max_size=20),
)
def test_what_is_signed_is_what_is_read(tenant: str, session: str | None) -> None:
    with costspan.attribute(tenant, session=session) as context:
        carrier = to_carrier(KEYS, audience="search")
    if not carrier:  # no valid tenant id, and nothing else to say; or text that has no UTF-8
        return
    signed = from_carrier(carrier, KEYS)
    assert signed is not None
    assert (signed.tenant, signed.session) == (context.tenant, context.session)


# --- keys
