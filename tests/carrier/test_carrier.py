"""The signed carrier says what it was told to whom it is for, and nothing else is believed."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import itsdangerous
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import costspan
from costspan.adapter import Attempt
from costspan.carrier import HEADER, Keys, Signed, from_carrier, resume, to_carrier
from costspan.core import counters
from costspan.core.context import Context, Holder, scope
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
OLD, NEW = "o" * 32, b"n" * 32
KEYS = Keys({"old": OLD, "new": NEW}, "new", "api", audiences="search")
ACME = Context(
    tenant="acme",
    tenant_source="principal",
    session="s1",
    session_origin="ours",
    user="ann@example.com",
    parent="0a" * 16,
)


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


class Refusals:
    """What was refused since it was made, by reason."""

    def __init__(self) -> None:
        self._before = counters.snapshot()

    def __call__(self) -> dict[str, int]:
        now = counters.snapshot()
        changed = {name: now[name] - self._before.get(name, 0) for name in now}
        return {n: times for n, times in changed.items() if times and n.startswith("carrier_")}


@pytest.fixture
def refusals() -> Refusals:
    return Refusals()


def carrier_of(context: Context = ACME, keys: Keys = KEYS, **how: Any) -> dict[str, str]:
    with scope(context):
        return to_carrier(keys, audience=how.pop("audience", "search"), **how)


def forged(claims: Mapping[str, Any], secret: str | bytes = NEW, key_id: str = "new") -> str:
    """A carrier as somebody who has the key could make it."""
    payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
    signer = itsdangerous.Signer(
        secret, salt=b"costspan.carrier.v1", key_derivation="hmac", digest_method=hashlib.sha256
    )
    return signer.sign(f"1.{key_id}.{payload}").decode()


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
