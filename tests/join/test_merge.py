"""Who is believed about what: the table of DESIGN.md section 2, field by field."""

from __future__ import annotations

from itertools import permutations
from typing import Any, get_args

import pytest

from costspan.core import schema
from costspan.core.join import Event, disagreements, merge
from costspan.core.join.identity import Reach, Spoken
from costspan.core.schema import FIELDS, Observation

# The table, spelled out: field -> (what the layer nearest the provider says, the nearest the user).
NEAREST_PROVIDER: dict[str, tuple[Any, Any]] = {
    "executed_model": ("m1", "m2"), "provider": ("p1", "p2"), "provider_account": ("x", "y"),
    "deployment": ("d1", "d2"), "region": ("eu", "us"), "tier": ("batch", "flex"),
    "provider_billed": (False, True), "fault": ("provider", "user"), "error_type": ("E1", "E2"),
    "cache": ("miss", "exact"), "fill_event": ("f1", "f2"), "avoided_cost": ("1", "2"),
    "flat_cost": ("0", "2"), "host_cost": ("1", "2"), "response_id": ("r1", "r2"),
}  # fmt: skip
NEAREST_USER: dict[str, tuple[Any, Any]] = {
    "requested_model": ("m1", "m2"), "delivery": ("delivered", "blocked"),
    "delivered_usage": ({"output": 1}, {"output": 2}), "session": ("s1", "s2"),
    "parent": ("p1", "p2"), "user": ("u1", "u2"), "agent": ("a1", "a2"), "feature": ("f1", "f2"),
    "workload": ("w1", "w2"), "labels": ({"a": "1"}, {"b": "2"}),
    "members": ({"acme": 1}, {"globex": 2}), "shared": (True, False),
    "shared_prefix": (True, False), "policy_owner": ("platform", "tenant"),
    "kind": ("model", "tool"), "name": ("n1", "n2"),
}  # fmt: skip
OWN_ONLY: dict[str, Any] = {
    "attempt": 2, "retry_of": "a0", "retry_reason": "agent", "attempts_hidden": 1,
}  # fmt: skip


def seen(number: int, **fields: Any) -> Observation:
    return Observation(oid=f"w:{number}", writer="w", seq=number, **fields)


def merged(*observations: Observation | Spoken) -> Event:
    """The event of these, the same in every order."""
    spoken = [s if isinstance(s, Spoken) else Spoken(s, Reach.OWN) for s in observations]
    events = {repr(merge("a", order)): merge("a", order) for order in permutations(spoken)}
    assert len(events) == 1, "the order of arrival matters"
    return next(iter(events.values()))


@pytest.mark.parametrize("field", NEAREST_PROVIDER)
def test_the_layer_nearest_the_provider_wins(field: str) -> None:
    near, far = NEAREST_PROVIDER[field]
    layers = ("provider", "gateway", "sdk", "framework", "manual")
    for at, layer in enumerate(layers[:-1]):
        for further in layers[at + 1 :]:
            event = merged(
                seen(1, layer=layer, **{field: near}), seen(2, layer=further, **{field: far})
            )
            assert getattr(event.facts, field) == near
    assert getattr(merged(seen(1, layer="provider"), seen(2, **{field: far})).facts, field) == far


@pytest.mark.parametrize("field", NEAREST_USER)
def test_the_layer_nearest_the_user_wins(field: str) -> None:
    far, near = NEAREST_USER[field]
    layers = ("manual", "framework", "otel", "gateway", "provider")
    for at, layer in enumerate(layers[:-1]):
        for further in layers[at + 1 :]:
            event = merged(
                seen(1, layer=layer, **{field: near}), seen(2, layer=further, **{field: far})
            )
            assert getattr(event.facts, field) == near
    assert getattr(merged(seen(1, layer="manual"), seen(2, **{field: far})).facts, field) == far


def test_ties_go_to_the_end_then_the_greatest_number_then_the_least_oid() -> None:
    start = seen(9, phase="start", user="start")
    assert merged(start, seen(1, user="end")).facts.user == "end"
    assert merged(seen(9, user="nine"), seen(10, user="ten")).facts.user == "ten"
    one = Observation(oid="v:5", writer="v", seq=5, user="v")
    assert merged(one, Observation(oid="w:5", writer="w", seq=5, user="w")).facts.user == "v"


@pytest.mark.parametrize("field", OWN_ONLY)
@pytest.mark.parametrize("reach", [Reach.FULL, Reach.SHARED])
def test_only_the_attempt_itself_counts_its_tries(field: str, reach: Reach) -> None:
    evidence = Spoken(seen(2, layer="manual", **{field: OWN_ONLY[field]}), reach)
    assert getattr(merged(seen(1), evidence).facts, field) is None
    assert getattr(merged(seen(1, **{field: OWN_ONLY[field]})).facts, field) == OWN_ONLY[field]


SHARED_EVIDENCE = {
    "tenant": "acme", "session": "s", "parent": "p", "user": "u", "agent": "a", "feature": "f",
    "workload": "w", "labels": {"a": "b"}, "members": {"acme": 1}, "shared": True,
    "shared_prefix": True, "policy_owner": "tenant", "cause": "safety", "initiator": "agent",
    "delivery": "blocked",
}  # fmt: skip


def test_evidence_on_several_attempts_says_owner_cause_and_delivery_alone() -> None:
    values = {
        **{field: pair[0] for field, pair in (NEAREST_PROVIDER | NEAREST_USER).items()},
        "usage": {"input": 1}, "usage_source": "provider", "provider_result": "ok",
        **SHARED_EVIDENCE,
    }  # fmt: skip
    event = merged(seen(1), Spoken(seen(2, layer="framework", **values), Reach.SHARED))
    for field, value in values.items():
        expected = value if field in SHARED_EVIDENCE else None
        assert getattr(event.facts, field) == expected, field
    full = merged(seen(1), Spoken(seen(2, layer="framework", **values), Reach.FULL))
    for field, value in values.items():
        assert getattr(full.facts, field) == value, field


@pytest.mark.parametrize("reach", [Reach.FULL, Reach.SHARED])
def test_a_verdict_from_outside_never_overrides_the_attempts_own(reach: Reach) -> None:
    verdict = Spoken(seen(2, layer="manual", delivery="blocked"), reach)
    assert merged(seen(1, delivery="delivered"), verdict).facts.delivery == "delivered"
    assert merged(seen(1), verdict).facts.delivery == "blocked"


def test_usage_comes_whole_and_the_providers_count_is_believed_first() -> None:
    near = seen(
        1, layer="gateway", usage={"input": 9}, usage_source="estimated", raw_usage={"a": 1}
    )
    far = seen(2, layer="framework", usage={"output": 5}, usage_source="provider")
    event = merged(near, far)
    assert (event.facts.usage, event.facts.usage_source) == ({"output": 5}, "provider")
    assert event.facts.raw_usage is None
    missing = seen(3, layer="provider", usage_source="missing")
    assert merged(near, missing).facts.usage == {"input": 9}
    assert merged(missing).facts.usage_source == "missing"
    unsaid = merged(seen(1, usage={"input": 1}))
    assert unsaid.facts.usage_source == "provider", "usage without a source is the provider's"
    empty = merged(seen(1, layer="provider", usage={}, usage_source="provider"), far)
    assert empty.facts.usage == {"output": 5}, "an empty usage is missing"


def test_the_tenant_is_the_most_trusted_then_the_nearest_the_user() -> None:
    order = get_args(schema.TenantSource)
    for at, trusted in enumerate(order[:-1]):
        less = order[at + 1]
        event = merged(
            seen(1, layer="provider", tenant="acme", tenant_source=trusted),
            seen(2, layer="manual", tenant="globex", tenant_source=less),
        )
        assert (event.facts.tenant, event.facts.tenant_source) == ("acme", trusted)
    event = merged(
        seen(1, layer="gateway", tenant="acme", tenant_source="context"),
        seen(2, layer="framework", tenant="globex", tenant_source="context"),
    )
    assert event.facts.tenant == "globex"


def test_the_cause_is_what_was_said_before_what_was_inferred() -> None:
    for more, less in (("explicit", "structure"), ("structure", "inferred")):
        event = merged(
            seen(1, layer="provider", cause="step", initiator="agent", cause_source=more),
            seen(2, layer="manual", cause="primary", initiator="user", cause_source=less),
        )
        assert (event.facts.cause, event.facts.initiator) == ("step", "agent")
        assert event.facts.cause_source == more


@pytest.mark.parametrize("name", ["session", "parent"])
def test_what_a_caller_chose_is_absent(name: str) -> None:
    chosen = seen(1, layer="manual", **{name: "theirs", f"{name}_origin": "caller"})
    assert getattr(merged(chosen).facts, name) is None
    ours = seen(2, layer="provider", **{name: "ours"})
    signed = seen(3, layer="gateway", **{name: "signed", f"{name}_origin": "signed"})
    assert getattr(merged(chosen, ours).facts, name) == "ours"
    event = merged(chosen, ours, signed)
    assert getattr(event.facts, name) == "signed"
    assert getattr(event.facts, f"{name}_origin") == "signed"


@pytest.mark.parametrize("field", ["error_type", "executed_model", "flat_cost", "user"])
def test_whatever_a_sweep_says_is_believed_last(field: str) -> None:
    for layer in ("provider", "manual"):
        sweep = seen(9, layer=layer, source="sweep", **{field: "1"})
        for other in ("gateway", "framework"):
            assert getattr(merged(sweep, seen(1, layer=other, **{field: "2"})).facts, field) == "2"
        assert getattr(merged(sweep, seen(1)).facts, field) == "1"


def test_a_known_result_beats_an_unknown_one() -> None:
    sweep = seen(9, layer="provider", source="sweep", provider_result="unknown")
    assert merged(sweep, seen(1, layer="manual", provider_result="failed")).outcome == "failed"
    nearest = merged(
        seen(1, layer="gateway", provider_result="ok"),
        seen(2, layer="framework", provider_result="failed"),
    )
    assert nearest.outcome == "ok"


@pytest.mark.parametrize("result", [None, "ok", "failed", "unknown"])
@pytest.mark.parametrize("delivery", [None, *get_args(schema.Delivery)])
def test_the_outcome(result: str | None, delivery: str | None) -> None:
    said = {"provider_result": result, "delivery": delivery}
    event = merged(seen(1, **{name: value for name, value in said.items() if value}))
    if result == "failed":
        assert event.outcome == "failed"
    elif delivery not in (None, "delivered"):
        assert event.outcome == delivery
    else:
        assert event.outcome == ("ok" if result == "ok" else "unknown")


@pytest.mark.parametrize(
    ("end", "is_open"),
    [
        ({}, True),
        ({"delivery": "blocked"}, True),
        ({"tenant": "acme", "feature": "f"}, True),
        ({"provider_result": "unknown"}, False),
        ({"provider_result": "ok"}, False),
        ({"usage": {"input": 1}}, False),
        ({"usage_source": "missing"}, False),
        ({"flat_cost": "1"}, False),
        ({"provider_billed": False}, False),
    ],
)
def test_a_start_is_open_until_an_end_brings_usage_or_a_result(
    end: dict[str, Any], is_open: bool
) -> None:
    start = seen(1, phase="start")
    assert merged(start).is_open
    assert merged(start, seen(2, **end)).is_open is is_open
    assert merged(start, Spoken(seen(2, **end), Reach.FULL)).is_open is is_open
    assert not merged(seen(2, **end)).is_open


def test_time_is_the_attempts_own_and_sets_are_united() -> None:
    event = merged(
        seen(1, started_at=50, operation_ids=("b",), flags=("x",), span_id="s1"),
        seen(2, started_at=40, operation_ids=("a", "b"), flags=("y",)),
        Spoken(seen(3, started_at=10, operation_ids=("c",), span_id="s2"), Reach.FULL),
        Spoken(seen(4, started_at=5, span_id="s3"), Reach.SHARED),
    )
    assert event.facts.started_at == 40
    assert event.operation_names == event.facts.operation_ids == ("a", "b", "c")
    assert event.facts.flags == ("x", "y")
    assert event.oid_names == ("w:1", "w:2", "w:3", "w:4")
    assert event.span_names == ("s1", "s2")


def test_disagreement_is_told_but_an_inference_is_none() -> None:
    spoken = [
        Spoken(seen(1, executed_model="m1", cause="step", cause_source="inferred"), Reach.OWN),
        Spoken(seen(2, executed_model="m2", cause="primary", ended_at=1), Reach.OWN),
        Spoken(seen(3, executed_model="m3", ended_at=2), Reach.SHARED),
    ]
    assert disagreements(spoken) == {"executed_model": {"w:1": "m1", "w:2": "m2"}}


NOT_MERGED = frozenset(
    "schema_version oid source source_version layer phase writer seq session_origin parent_origin"
    " cause_source usage_source raw_usage tenant_source".split()
)


def test_every_field_that_somebody_said_is_kept() -> None:
    """A null says nothing; whatever one observation alone says is a fact of the event."""
    values: dict[str, Any] = {
        **{field: pair[0] for field, pair in (NEAREST_PROVIDER | NEAREST_USER).items()},
        **OWN_ONLY, **SHARED_EVIDENCE,
        "usage": {"input": 1}, "provider_result": "ok", "attempt_id": "a", "operation_ids": ("o",),
        "tool_call_id": "t", "client_claims": {"x": 1}, "trace_id": "t", "span_id": "s",
        "request_id": "r", "client_request_id": "c", "hops": 1, "trace_origin": "ours",
        "route": "fast", "route_reason": "policy", "prompt_template": ("n", "1"),
        "started_at": 1, "ended_at": 2, "recorded_at": 3, "prompt_hash": "h",
        "attributes": {"k": 1}, "price_book": "v1", "period": "2026-01",
        "effective_period": "2026-01", "flags": ("f",),
    }  # fmt: skip
    assert set(values) == set(FIELDS) - NOT_MERGED
    facts = merged(seen(1, **values), seen(2, layer="gateway")).facts
    for field, value in values.items():
        assert getattr(facts, field) == value, field
