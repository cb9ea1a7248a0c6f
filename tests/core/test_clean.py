"""Bad input becomes a flagged observation: never an exception, and never another's name."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any

import msgspec
import pytest
from clean_wire import encoded
from hypothesis import example, given
from hypothesis import strategies as st

from costspan.core import clean, runtime
from costspan.core.bounded import KEY_CHARS_MAX
from costspan.core.journal.frames import PAYLOAD_BYTES_MAX
from costspan.core.names import TENANT_CHARS_MAX
from costspan.core.recorder import Ack
from costspan.core.schema import FIELDS, Observation

any_text = st.text(st.characters(exclude_categories=()), max_size=200)
numbers = st.one_of(
    st.integers(),
    st.floats(allow_nan=True, allow_infinity=True),
    st.booleans(),
    st.sampled_from([10**12, 10**12 + 1, 10**30, -1, float("nan"), -0.0, 1e300]),
)
leaves = st.one_of(st.none(), numbers, any_text, st.binary(max_size=50), st.decimals())
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(any_text, inner, max_size=5)
    ),
    max_leaves=20,
)
observations = st.dictionaries(st.one_of(st.sampled_from(FIELDS), any_text), anything, max_size=12)


@given(observations)
@example({"tenant": "\ud800", "usage": {"input": float("nan")}, "labels": {"\udfff": "\x00"}})
@example({"attributes": {"\ud800": "\ud800"}, "flags": ["\ud800"], "operation_ids": ["\ud800"]})
def test_whatever_comes_in_is_written_whole_and_read_back(fields: dict[str, Any]) -> None:
    observation = clean.observation(fields)
    assert len(encoded(observation)) < PAYLOAD_BYTES_MAX
    for name, value in fields.items():
        if name not in FIELDS and value is not None:
            assert any(flag.startswith("unknown:") for flag in observation.flags)


@given(observations)
@example({"usage": {}, "usage_source": "provider", "flags": ()})
@example({"labels": {}, "members": {}, "delivered_usage": {}, "operation_ids": ["0"]})
@example({"layer": "sdk", "phase": "end", "schema_version": 1, "flags": ["mock"]})
@example({"raw_usage": {"a": 1, "b": 2**63}, "attributes": {"a": 10**30}})
def test_the_fields_alone_are_the_observation_on_the_wire(fields: dict[str, Any]) -> None:
    kept = clean.wire_fields(fields)
    body = msgspec.msgpack.encode(kept)
    # By the decoder itself: `decode_body` would clean what is not valid.
    assert msgspec.msgpack.decode(body, type=Observation) == clean.observation(fields)
    assert clean.wire_fields(kept) == kept


@given(observations, observations)
def test_fields_are_cleaned_one_by_one(fields: dict[str, Any], more: dict[str, Any]) -> None:
    fields = {name: value for name, value in fields.items() if name not in more}
    first = clean.wire_fields(fields)
    if "flags" in first or "usage_source" in first:
        return  # what was wrong with them is said of all
    assert clean.wire_fields(more, first) == clean.wire_fields({**fields, **more})


def test_a_text_is_known_as_clean_for_its_own_field_alone() -> None:
    for name in ("@platform", " acme", "acme ", "x" * 200):
        assert clean.observation({"provider": name, "name": name}).provider == name
        seen = clean.observation({"tenant": name, "session": name, "cause": name})
        assert (seen.tenant, seen.session, seen.cause) == (None, name, None)


@given(any_text)
def test_a_tenant_is_kept_in_nfc_or_refused_visibly(name: str) -> None:
    observation = clean.observation({"tenant": name})
    if observation.tenant is None:
        assert "tenant_invalid" in observation.flags
        assert any(flag.startswith("tenant:") for flag in observation.flags)
    else:
        assert observation.tenant == unicodedata.normalize("NFC", name)
        assert 1 <= len(observation.tenant) <= TENANT_CHARS_MAX
        assert observation.flags == ()


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        " acme",
        "acme\n",
        "acme\x00",
        "@platform",
        "ac\u200bme",  # zero width space
        "\u202eacme",  # right-to-left override
        "\ud800",
        "a" * 129,
        "a" * 10_000_000,
        17,
        None.__class__,
        ["acme"],
        {"acme": 1},
    ],
)
def test_a_hostile_tenant_names_nobody(hostile: object) -> None:
    observation = clean.observation({"tenant": hostile, "usage": {"input": 5}})
    assert observation.tenant is None
    assert "tenant_invalid" in observation.flags
    assert observation.usage == {"input": 5}
    assert len(encoded(observation)) < 500


@pytest.mark.parametrize(
    "name", ["acme", "ACME", "\u00e5ngstr\u00f6m", "ﬁ", "租户", "😀", "a b", "x" * 128]
)
def test_a_good_tenant_stays_itself(name: str) -> None:
    assert clean.observation({"tenant": name}).tenant == name


def test_composed_and_decomposed_forms_are_one_tenant() -> None:
    assert clean.tenant_id("A\u030angstrom") == clean.tenant_id("\u00c5ngstrom")


@pytest.mark.parametrize(
    "count", [float("nan"), float("inf"), -1, -0.5, 1.5, 10**12 + 1, 10**40, True, "12", None, [1]]
)
def test_an_impossible_count_spoils_the_usage_and_says_so(count: object) -> None:
    observation = clean.observation(
        {"usage": {"input": 7, "output": count}, "usage_source": "provider", "tenant": "acme"}
    )
    assert observation.usage is None
    assert observation.usage_source == "missing"
    assert "invalid_usage" in observation.flags
    assert observation.tenant == "acme"


def test_a_whole_float_is_a_count_and_zero_is_a_count() -> None:
    assert clean.observation({"usage": {"input": 100.0, "output": 0}}).usage == {
        "input": 100,
        "output": 0,
    }


def test_an_empty_usage_is_missing_never_zero() -> None:
    observation = clean.observation({"usage": {}, "usage_source": "provider"})
    assert (observation.usage, observation.usage_source) == (None, "missing")


def test_component_names_that_would_meet_when_cut_are_refused() -> None:
    long = "x" * KEY_CHARS_MAX
    observation = clean.observation({"usage": {long + "a": 1, long + "b": 2}})
    assert observation.usage is None
    assert "invalid_usage" in observation.flags


def test_an_impossible_delivered_usage_leaves_the_providers_alone() -> None:
    observation = clean.observation({"usage": {"input": 7}, "delivered_usage": {"input": -1}})
    assert observation.usage == {"input": 7}
    assert observation.delivered_usage is None
    assert "invalid:delivered_usage" in observation.flags


def test_a_hostile_usage_mapping_is_a_missing_usage() -> None:
    class Hostile(dict[str, int]):
        def items(self) -> Any:
            raise RuntimeError("no")

    observation = clean.observation({"usage": Hostile(a=1), "usage_source": "provider"})
    assert (observation.usage, observation.usage_source) == (None, "missing")
    assert observation.flags == ("invalid:usage:RuntimeError",)


@pytest.mark.parametrize("nothing", ["", "0", "0" * 32, "00000000-0000-0000-0000-000000000000"])
def test_empty_and_all_zero_ids_name_nothing(nothing: str) -> None:
    observation = clean.observation({"session": nothing, "operation_ids": [nothing, "x"]})
    assert observation.session is None
    assert observation.operation_ids == ("x",)


def test_the_share_of_an_invalid_member_is_counted_where_everybody_sees_it() -> None:
    observation = clean.observation({"members": {"acme": 3, "bad\n": 4, "@x": 5}})
    assert observation.members == {"acme": 3, "@unattributed": 9}


@pytest.mark.parametrize(
    ("amount", "kept"),
    [
        ("0.01", "0.01"),
        (Decimal("1E-7"), "0.0000001"),
        (0.1, "0.1"),
        (3, "3"),
        (Decimal("1E+3"), "1000"),
        ("-0", "0"),
        (Decimal(1) / Decimal(3) / 10**6, "0.0000003333333333333333333333333333"),
    ],
)
def test_an_amount_is_exact_text(amount: object, kept: str) -> None:
    assert clean.observation({"flat_cost": amount}).flat_cost == kept


@pytest.mark.parametrize(
    "amount",
    [
        *("nan", "inf", "-1", "one", "\ud800", "1" * 99, "1e-999999999", "1E999999999999999999"),
        *(-0.01, float("nan"), True, b"1", [1], 9_000_001, Decimal("1E-999999")),
    ],
)
def test_an_amount_that_is_none_is_refused_and_flagged(amount: object) -> None:
    observation = clean.observation({"host_cost": amount})
    assert observation.host_cost is None
    assert observation.flags == ("invalid:host_cost",)


class TenantName(str):
    """What ORMs and template engines hand out."""


class Verdict(str, Enum):  # noqa: UP042  (not a StrEnum: its str() is not its value)
    BAD = "cancelled_by_user"


def test_subclasses_of_str_are_plain_text(recorded: Callable[[], list[Observation]]) -> None:
    name = TenantName("acme")
    fields = {"tenant": name, "session": name, "name": name, "labels": {name: name}}
    ack = runtime.record({**fields, "client_claims": {name: name}, "delivery": Verdict.BAD})
    assert isinstance(ack, Ack)
    (seen,) = recorded()
    assert (seen.tenant, seen.session, seen.name) == ("acme", "acme", "acme")
    assert (seen.labels, seen.client_claims) == ({"acme": "acme"}, {"acme": "acme"})
    assert seen.delivery == "cancelled_by_user"


def test_a_word_that_is_no_member_of_a_closed_set_is_flagged() -> None:
    observation = clean.observation({"cause": "fun", "layer": ["sdk"], "kind": {}, "phase": 1})
    assert set(observation.flags) == {
        "invalid:cause",
        "invalid:layer:TypeError",
        "invalid:kind:TypeError",
        "invalid:phase",
    }
    assert observation.layer == "sdk"


def test_hostile_objects_everywhere() -> None:
    class Hostile:
        def __str__(self) -> str:
            raise RuntimeError("no")

        __repr__ = __str__

        def __hash__(self) -> int:
            raise RuntimeError("no")

    observation = clean.observation(dict.fromkeys(FIELDS, Hostile()))
    assert len(observation.flags) >= 30
    assert len(encoded(observation)) < 5_000
    assert clean.observation({"unknown": 1, "\ud800": 2}).flags == (
        "unknown:unknown",
        "unknown:\ufffd",
    )
