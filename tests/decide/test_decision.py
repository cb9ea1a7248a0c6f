"""One event's decision: every knob in USD, and facts that went around `clean`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from costspan.core.decide import (
    Decision,
    Lineage,
    RuleSet,
    Ruling,
    decide,
    load_profile,
    load_rules,
    ruling,
)
from costspan.core.decide.decision import EVENT_PICO_MAX
from costspan.core.join import merge
from costspan.core.join.identity import Reach, Spoken
from costspan.core.money import format_usd
from costspan.core.prices import PriceBook, Prices
from costspan.core.schema import Observation

BOOK = PriceBook.from_table(
    "v1",
    {
        "gpt-4o": {"input": "2.50", "output": "10.00"},
        "gpt-4o-mini": {"input": "0.15", "output": "0.60"},
        "haiku": {"input": "1.00", "output": "5.00", "cache_write_5m": "1.25"},
        "dear": {"input": "9000000"},
    },
)
USER = {"cause": "primary", "initiator": "user", "tenant": "acme", "tenant_source": "context"}


def decided(rules: str | RuleSet = "", lineage: Lineage | None = None, **facts: Any) -> Decision:
    seen = Observation(oid="w:1", attempt_id="a", **{"provider_result": "ok", **USER, **facts})
    event = merge("a", [Spoken(seen, Reach.OWN)])
    chosen = load_rules(rules) if isinstance(rules, str) else rules
    return decide(event, lineage or Lineage(), chosen, Prices([BOOK]))


def model(requested: str, executed: str, **usage: int) -> dict[str, Any]:
    return {"requested_model": requested, "executed_model": executed, "usage": usage}


def micro(pico: int | None) -> str | None:
    """Micro-USD, for numbers one can check by hand."""
    return None if pico is None else format_usd(pico * 10**6)[:-13]


def knob(name: str, value: str) -> str:
    return f'[knobs]\n{name} = "{value}"\n'


@pytest.mark.parametrize(
    ("rules", "requested", "executed", "charge"),
    [
        # 1000 input tokens cost 2500 on gpt-4o and 150 on gpt-4o-mini.
        (knob("fallback_charge", "requested"), "gpt-4o-mini", "gpt-4o", "150"),
        (knob("fallback_charge", "requested"), "gpt-4o", "gpt-4o-mini", "2500"),
        (knob("fallback_charge", "executed"), "gpt-4o-mini", "gpt-4o", "2500"),
        (knob("fallback_charge", "executed"), "gpt-4o", "gpt-4o-mini", "150"),
        (knob("fallback_charge", "min"), "gpt-4o-mini", "gpt-4o", "150"),
        (knob("fallback_charge", "min"), "gpt-4o", "gpt-4o-mini", "150"),
        (knob("charge_above_cost", "capped"), "gpt-4o", "gpt-4o-mini", "150"),
        (knob("charge_above_cost", "capped"), "gpt-4o-mini", "gpt-4o", "150"),
        ('profile = "chargeback"', "gpt-4o-mini", "gpt-4o", "2500"),
        ('profile = "chargeback"', "gpt-4o", "gpt-4o-mini", "150"),
    ],
)
def test_a_fallback_is_charged_as_the_knob_says(
    rules: str, requested: str, executed: str, charge: str
) -> None:
    decision = decided(rules, **model(requested, executed, input=1000))
    assert micro(decision.charge) == charge
    by_executed = "executed" in rules or "chargeback" in rules
    assert decision.rules == ("O4", "C6" if by_executed else "C5")
    assert ("charged_above_cost" in decision.flags) == (
        (decision.charge or 0) > (decision.cost or 0)
    )


@pytest.mark.parametrize(
    ("value", "fault", "charge"),
    [
        ("none", "agent", "0"),
        ("none", "user", "0"),
        ("agent_fault", "agent", "150"),
        ("agent_fault", "user", "0"),
        ("user_fault", "user", "150"),
        ("user_fault", "agent", "0"),
        ("agent_fault", "provider", "0"),  # the pool of faults owns it
    ],
)
def test_what_was_not_delivered_is_billed_as_the_knob_says(
    value: str, fault: str, charge: str
) -> None:
    call = model("gpt-4o-mini", "gpt-4o-mini", input=1000)
    decision = decided(
        knob("bill_undelivered", value), provider_result="failed", fault=fault, **call
    )
    assert micro(decision.cost) == "150"
    assert micro(decision.charge) == charge


@pytest.mark.parametrize(
    ("rules", "charge"),
    [
        # The lookup's own flat cost is 10; the fill's 4000 were avoided.
        (knob("cache_hit_charge", "lookup"), "10"),
        (knob("cache_hit_charge", "list"), "4010"),
        (knob("cache_hit_charge", "fraction"), "2010"),
        ('[knobs]\ncache_hit_charge = "fraction"\ncache_hit_fraction = "0.25"', "1010"),
    ],
)
def test_a_cache_hit_is_charged_as_the_knob_says(rules: str, charge: str) -> None:
    decision = decided(rules, cache="semantic", flat_cost="0.00001", avoided_cost="0.004")
    assert micro(decision.cost) == "10"
    assert micro(decision.charge) == charge
    assert decision.rules == ("O4", "C4")


def test_a_shared_prefix_is_borne_as_the_knob_says() -> None:
    # 100*1 + 8000*1.25 = 10100, of which 8000*0.25 = 2000 is the premium.
    write = {"shared_prefix": True, **model("haiku", "haiku", input=100, cache_write_5m=8000)}
    pooled = decided("", **write)
    assert [(s.owner, s.pool, micro(s.cost), micro(s.charge)) for s in pooled.shares] == [
        ("@platform", "prompt_cache", "2000", "0"),
        ("acme", None, "8100", "8100"),
    ]
    triggering = decided(knob("shared_prefix", "triggering"), **write)
    assert [(s.owner, micro(s.cost)) for s in triggering.shares] == [("acme", "10100")]
    assert triggering.rules == ("O4", "C6")


def test_safety_is_borne_as_the_knob_says() -> None:
    check = {"cause": "safety", "initiator": "platform", **model("haiku", "haiku", input=1000)}
    assert decided("", **check).owner == "@platform"
    owned = decided(knob("safety_owner", "tenant"), **check)
    assert (owned.owner, owned.bucket, owned.rules) == ("acme", "agent", ("O3t", "C6"))
    found = Lineage(tenant="globex", via="p")
    by_lineage = decided(knob("safety_owner", "tenant"), found, **{**check, "tenant": None})
    assert (by_lineage.owner, by_lineage.rules) == ("globex", ("O3l", "C6"))


def test_pools_are_told_apart() -> None:
    call = model("haiku", "haiku", input=1000)
    assert [share.pool for share in decided("", shared=True, **call).shares] == ["primary"]
    failed = decided("", provider_result="failed", fault="provider", **call)
    assert [share.pool for share in failed.shares] == ["faults"]


# --- numbers that break things -------------------------------------------------------------------


def test_a_cost_beyond_all_bounds_is_unknown_and_flagged() -> None:
    decision = decided("", **model("dear", "dear", input=10**12))
    assert (decision.cost, decision.rules) == (None, ("P0",))
    assert "cost_overflow" in decision.flags


@pytest.mark.parametrize(
    "facts",
    [
        {
            "delivery": "cancelled_by_user",
            "delivered_usage": {"input": 10**12},
            **model("dear", "dear", input=1),
        },
        model("dear", "gpt-4o", input=10**12),
    ],
)
def test_a_charge_beyond_all_bounds_is_the_cost(facts: dict[str, Any]) -> None:
    """It must fit the ledger's integers: an error there would hold up every record behind it."""
    decision = decided("", **facts)
    assert decision.charge == decision.cost
    assert decision.cost is not None
    assert decision.cost <= EVENT_PICO_MAX
    assert {"charge_overflow", "requested_unpriced"} & set(decision.flags)


def test_an_avoided_cost_beyond_all_bounds_is_not_charged() -> None:
    rules = knob("cache_hit_charge", "list")
    decision = decided(rules, cache="semantic", flat_cost="9000000", avoided_cost="9000000")
    assert decision.charge == decision.cost == 9_000_000 * 10**12
    assert "charge_overflow" in decision.flags


@pytest.mark.parametrize("claim", ["", "ten", "-1", "1e400", "NaN"])
def test_a_flat_cost_that_went_around_clean_is_unknown_never_zero(claim: str) -> None:
    decision = decided("", flat_cost=claim)
    assert decision.cost is None
    assert "invalid:flat_cost" in decision.flags


def test_an_avoided_cost_that_went_around_clean_changes_nothing() -> None:
    decision = decided(
        knob("cache_hit_charge", "list"), cache="semantic", flat_cost="1", avoided_cost="much"
    )
    assert decision.charge == decision.cost == 10**12
    assert "invalid:avoided_cost" in decision.flags


def test_own_rules_cannot_make_an_unknown_cost_zero() -> None:
    rules = '[[cost]]\nid = "X"\nthen = "flat"\nbecause = "a tool has a flat cost"'
    assert decided(rules).cost is None
    rules = '[[cost]]\nid = "X"\nthen = "usage"\nbecause = "price it"'
    assert decided(rules, **model("nobody", "nobody", input=5)).cost is None


def test_the_same_facts_and_rules_give_the_same_decision() -> None:
    call = {"lineage": Lineage("globex", "p"), **model("gpt-4o", "gpt-4o-mini", input=7)}
    assert decided(load_profile("billing"), **call) == decided("", **call)
    assert decided("", **call).rules_sha256 == load_profile("billing").sha256


# --- what decisions share ------------------------------------------------------------------------


def test_events_of_equal_features_share_one_ruling() -> None:
    call = model("gpt-4o", "gpt-4o", input=7)
    one = decided("", **call)
    other = decided("", **{**call, "tenant": "globex", "usage": {"output": 9}, "attempt": 1})
    assert other.ruling is one.ruling
    assert (other.owner, other.cost) != (one.owner, one.cost)
    retried = decided("", **call, attempt=2, retry_reason="agent")
    assert retried.ruling is not one.ruling
    assert (retried.bucket, one.bucket) == ("agent", "direct")


def test_a_ruling_is_named_by_its_content() -> None:
    call = model("gpt-4o", "gpt-4o", input=7)
    one = decided("", **call).ruling
    read_back = msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Ruling)
    assert read_back == one
    assert read_back.key == one.key
    turned = msgspec.structs.replace(one, features=dict(reversed(one.features.items())))
    assert turned.key == one.key, "the order of features says nothing"
    others = [
        decided("", **{**call, **changed}).ruling
        for changed in ({"tenant": None}, {"cause": "step"}, {"usage": None}, {"shared": True})
    ]
    others.append(decided('profile = "chargeback"', **call).ruling)
    assert len({one.key, *(each.key for each in others)}) == 6


def test_a_decision_reads_back_equal() -> None:
    decision = decided("", shared_prefix=True, **model("haiku", "haiku", cache_write_5m=7))
    content = msgspec.msgpack.encode(decision)
    assert msgspec.msgpack.decode(content, type=Decision) == decision


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ruling, "_STANDINGS_MAX", 3)
    expected = decided("", **model("gpt-4o", "gpt-4o", input=7))
    for kind in ("model", "tool", "router", "image", "audio", "rerank"):
        decided("", kind=kind)
        assert len(ruling._kept) <= 3
        assert len(ruling._by_features) <= 3
    assert decided("", **model("gpt-4o", "gpt-4o", input=7)) == expected
