"""The rule tables over their whole finite space: total, none dead, and what the design says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import get_args

import pytest

from costspan.core.decide import (
    DOMAINS,
    RuleError,
    RuleSet,
    load_profile,
    load_rules,
    profile_names,
)
from costspan.core.decide.profiles import KNOBS
from costspan.core.decide.rules import EFFECTS, TableName

TABLES: tuple[TableName, ...] = get_args(TableName)
UNDELIVERED = ("failed", "blocked", "unknown", "cancelled_by_platform")


def with_knob(profile: str, knob: str, value: str) -> RuleSet:
    return load_rules(f'profile = "{profile}"\n[knobs]\n{knob} = "{value}"\n')


VARIANTS = [
    *(pytest.param(load_profile(profile), id=profile) for profile in profile_names()),
    *(
        pytest.param(with_knob(profile, knob, value), id=f"{profile}-{knob}-{value}")
        for profile in profile_names()
        for knob, values in KNOBS.items()
        for value in values or ("0", "1", "0.25")
    ),
]


def space(rules: RuleSet, table: TableName) -> Iterator[dict[str, str]]:
    """Every combination of the features that the rules of a table look at."""
    names = rules.looked_at(table)
    for values in product(*(DOMAINS[name] for name in names)):
        yield dict(zip(names, values, strict=True))


_proved: set[bytes] = set()


@pytest.mark.parametrize("rules", VARIANTS)
@pytest.mark.parametrize("table", TABLES)
def test_some_rule_always_matches_and_none_is_dead(rules: RuleSet, table: TableName) -> None:
    same = repr(rules.tables[table]).encode()
    deciding = {rule.id for rule in rules.tables[table]}
    if same in _proved:  # most knobs turn one table and leave the others as they are
        assert deciding
        return
    for features in space(rules, table):
        first = next(r for r in rules.tables[table] if r.misses(features) is None)
        assert rules.first(table, features) is first
        assert first.then in EFFECTS[table]
        deciding.discard(first.id)
    assert not deciding, "rules that nothing reaches"
    _proved.add(same)


def owner_by_design(f: Mapping[str, str]) -> str:
    if f["has_members"] == "yes":
        return "O1"
    if f["outcome"] == "failed" and f["fault"] in ("provider", "platform"):
        return "O2"
    if f["is_overhead"] == "yes" and f["policy_owner"] != "tenant":
        return "O3"
    if f["has_tenant"] == "yes":
        return "O4"
    if f["has_lineage"] == "yes":
        return "O5"
    return "O6" if f["initiator"] == "platform" else "O7"


def bucket_by_design(f: Mapping[str, str]) -> str:
    if f["owner"] != "tenant":
        return f["owner"]
    if f["retry"] in ("agent", "guardrail"):
        return "agent"
    direct = f["initiator"] == "user" and f["cause"] in ("primary", "cache_lookup", "batch")
    return "direct" if direct else "agent"


def cost_by_design(f: Mapping[str, str]) -> str:
    if f["is_money"] == "no":
        return "none"
    if f["provider_billed"] == "no":
        return "zero"
    if f["has_flat_cost"] == "yes":
        return "flat"
    if f["cache"] == "exact":
        return "zero"
    return "usage" if f["usage"] != "missing" and f["is_priced"] == "yes" else "unknown"


def charge_by_design(f: Mapping[str, str]) -> str:
    if f["outcome"] in UNDELIVERED or f["owner"] != "tenant":
        return "zero"
    return "cost" if f["cache"] in ("exact", "semantic") else "priced"


def test_the_default_profile_is_what_the_design_says() -> None:
    rules = load_profile("billing")
    for f in space(rules, "owner"):
        assert rules.first("owner", f).id == owner_by_design(f)
    for f in space(rules, "bucket"):
        assert rules.first("bucket", f).then == bucket_by_design(f)
    for f in space(rules, "cost"):
        assert rules.first("cost", f).then == cost_by_design(f)
    for f in space(rules, "charge"):
        assert rules.first("charge", f).then == charge_by_design(f)


def test_overhead_never_reaches_a_tenants_bucket() -> None:
    """Invariant 18, by the tables alone: an owner of the platform's has the platform's bucket."""
    for profile in profile_names():
        rules = load_profile(profile)
        for f in space(rules, "owner"):
            rule = rules.first("owner", f)
            overhead = f["is_overhead"] == "yes" and f["policy_owner"] != "tenant"
            assert not overhead or rule.then in ("members", "faults", "pool")
        for f in space(rules, "bucket"):
            then = rules.first("bucket", f).then
            assert (then in ("direct", "agent")) == (f["owner"] == "tenant")


KNOB_EFFECTS = [
    ("fallback_charge", "executed", "price", {"substituted": "yes", "basis": "usage"}, "executed"),
    ("fallback_charge", "min", "price", {"substituted": "yes", "basis": "usage"}, "lower"),
    (
        *("bill_undelivered", "agent_fault", "charge"),
        *({"outcome": "failed", "fault": "agent", "owner": "tenant", "cache": "none"}, "priced"),
    ),
    (
        *("bill_undelivered", "user_fault", "charge"),
        *({"outcome": "failed", "fault": "agent", "owner": "tenant", "cache": "none"}, "zero"),
    ),
    (
        *("cache_hit_charge", "list", "charge"),
        *({"outcome": "ok", "fault": "none", "owner": "tenant", "cache": "exact"}, "list"),
    ),
    (
        *("cache_hit_charge", "fraction", "charge"),
        *({"outcome": "ok", "fault": "none", "owner": "tenant", "cache": "exact"}, "fraction"),
    ),
    (
        *("shared_prefix", "triggering", "premium"),
        *({"has_shared_prefix": "yes", "owner": "tenant", "basis": "usage"}, "keep"),
    ),
]


@pytest.mark.parametrize(("knob", "value", "table", "features", "then"), KNOB_EFFECTS)
def test_a_knob_turns_one_effect(
    knob: str, value: str, table: TableName, features: dict[str, str], then: str
) -> None:
    assert with_knob("billing", knob, value).first(table, features).then == then
    assert load_profile("billing").first(table, features).then != then or then == "zero"


def test_safety_may_be_the_tenants() -> None:
    rules = with_knob("billing", "safety_owner", "tenant")
    check = {
        "cause": "safety", "initiator": "platform", "is_overhead": "yes", "has_members": "no",
        "has_tenant": "no", "has_lineage": "yes", "outcome": "ok", "fault": "none",
        "policy_owner": "none",
    }  # fmt: skip
    assert rules.first("owner", check).then == "lineage"
    assert rules.first("owner", {**check, "has_tenant": "yes"}).then == "tenant"
    assert rules.first("owner", {**check, "has_lineage": "no"}).then == "pool"
    assert rules.first("owner", {**check, "cause": "eval"}).then == "pool"


OWN = """
profile = "billing"
[[owner]]
id = "GUARD"
when = { kind = "guardrail", has_tenant = "yes" }
then = "tenant"
because = "our contracts say that a guardrail is the tenant's"
"""


def test_own_rules_come_first_and_the_built_in_ones_stay_visible() -> None:
    rules, built_in = load_rules(OWN), load_profile("billing")
    assert [rule.id for rule in rules.tables["owner"]] == [
        "GUARD",
        *(rule.id for rule in built_in.tables["owner"]),
    ]
    assert not rules.tables["owner"][0].builtin
    assert all(rule.builtin for rule in built_in.tables["owner"])
    assert rules.sha256 != built_in.sha256
    assert {table: rules.tables[table] for table in TABLES if table != "owner"} == {
        table: built_in.tables[table] for table in TABLES if table != "owner"
    }


@pytest.mark.parametrize("rules", [*VARIANTS, pytest.param(load_rules(OWN), id="own")])
def test_bytes_and_back(rules: RuleSet) -> None:
    again = RuleSet.from_bytes(rules.to_bytes())
    assert again == rules
    assert again.sha256 == rules.sha256
    assert again.to_bytes() == rules.to_bytes()


def test_the_hash_is_of_the_content() -> None:
    turned = OWN.replace(
        'kind = "guardrail", has_tenant = "yes"', 'has_tenant = ["yes"], kind = ["guardrail"]'
    )
    assert load_rules(turned).sha256 == load_rules(OWN).sha256
    assert (
        load_rules(OWN.replace("our contracts", "the contracts")).sha256 != load_rules(OWN).sha256
    )
    assert with_knob("billing", "fallback_charge", "requested").sha256 == (
        load_profile("billing").sha256
    )


def test_explain_says_what_missed_and_stops_at_what_decided() -> None:
    rules = load_profile("billing")
    features = {
        "has_members": "no", "outcome": "failed", "fault": "user", "is_overhead": "yes",
        "policy_owner": "tenant", "has_tenant": "yes", "has_lineage": "no", "initiator": "user",
    }  # fmt: skip
    tried = list(rules.explain("owner", features))
    assert [(each.rule, each.missed) for each in tried] == [
        ("O1", "has_members is no, not yes"),
        ("O2", "fault is user, not platform or provider"),
        ("O3", "policy_owner is tenant, not none or platform"),
        ("O4", None),
    ]
    for table in TABLES:
        for found in space(rules, table):
            *missed, decided = rules.explain(table, found)
            assert decided.rule == rules.first(table, found).id
            assert decided.missed is None
            assert all(each.missed for each in missed)


def rule(table: str = "owner", **changes: str) -> str:
    fields = {"id": '"X"', "then": '"tenant"', "because": '"b"', **changes}
    return f"[[{table}]]\n" + "\n".join(f"{k} = {v}" for k, v in fields.items() if v)


REFUSED = {
    "not toml [": "not a TOML file",
    "owners = []": "did you mean owner?",
    'profile = "nobody"': "the profiles are billing, chargeback",
    "profile = 3": "profile is 3",
    "knobs = 3": "write a table",
    '[knobs]\nfalback_charge = "min"': "did you mean fallback_charge?",
    '[knobs]\nfallback_charge = "max"': "it can be requested, executed, min",
    "[knobs]\ncache_hit_fraction = 0.5": "a decimal from 0 to 1 as a string",
    '[knobs]\ncache_hit_fraction = "1.01"': "a decimal from 0 to 1 as a string",
    '[knobs]\ncache_hit_fraction = "-1"': "a decimal from 0 to 1 as a string",
    "[owner]\nid = 'X'": "begin each rule with [[owner]]",
    "owner = ['X']": "begin each rule with [[owner]]",
    rule(id=""): "has no id",
    rule(id='"O4"'): "two owner rules are called 'O4'",
    rule() + "\n" + rule(): "two owner rules are called 'X'",
    rule(then=""): "then is None; it can be members",
    rule(then='"zero"'): "then is 'zero'; it can be members",
    rule(table="cost"): "then is 'tenant'; it can be none, zero",
    rule(because=""): "say why in `because`",
    rule(when="'kind'"): "when is 'kind'",
    rule(when="{ knd = 'model' }"): "did you mean kind?",
    rule(when="{ kind = 'modl' }"): "kind is never 'modl'; it can be model",
    rule(when="{ kind = 3 }"): "kind is never 3",
    rule(when="{ kind = [] }"): "would never match",
    rule(when="{ owner = 'tenant' }"): "owner is only decided after the owner rules",
    rule("cost", then='"zero"', when="{ basis = 'flat' }"): "basis is only decided after",
    rule(unless="'x'"): "there is no key in [[owner]] X called 'unless'",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_rule_file_cannot_say_is_refused_and_named(text: str) -> None:
    with pytest.raises(RuleError) as refused:
        load_rules(text)
    assert REFUSED[text] in str(refused.value)
