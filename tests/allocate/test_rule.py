"""Allocation rules are data: what they can say, what is refused, and what names them."""

from __future__ import annotations

import pytest

from costspan.core.allocate import METHODS, AllocationError, AllocationRule, load_rule
from costspan.core.allocate.rule import POOLS, PoolRule

WHOLE = """
name = "finance 2026"
charged = true

[every]
method = "activity"
by = "tokens"
without = ["internal"]

[pool.safety]
method = "weighted"
weights = { acme = 6, globex = "1.5" }
charged = false

[pool.prompt_cache]
method = "shapley"

[pool.faults]
method = "none"

[pool.unattributed]
method = "even"

[[invoice]]
source = "openai"
account = "org-9"
"""


def test_a_whole_rule() -> None:
    rule = load_rule(WHOLE)
    assert rule.of("router") == PoolRule(by="tokens", without=("internal",))
    assert rule.of("safety").weights == {"acme": 6, "globex": "1.5"}
    assert [rule.is_charged(pool) for pool in ("router", "safety", "faults")] == [True, False, True]
    assert rule.of("unattributed").method == "even"
    assert rule.invoice[0].account == "org-9"


def test_without_a_rule_everything_by_activity_but_what_is_nobodys() -> None:
    rule = load_rule("")
    assert rule == AllocationRule()
    for pool in POOLS:
        wanted = "none" if pool == "unattributed" else "activity"
        assert (rule.of(pool).method, rule.is_charged(pool)) == (wanted, False)
    assert load_rule('[every]\nmethod = "even"').of("unattributed").method == "none"


BAD = {
    "colour = 1": "there is no field in an allocation rule called 'colour'",
    "[pools.safety]\n": "called 'pools'; did you mean pool?",
    "[pool.saftey]\n": "there is no pool called 'saftey'; did you mean safety?",
    '[pool.safety]\nmetod = "even"': "called 'metod'; did you mean method?",
    '[pool.safety]\nmethod = "fair"': "method is 'fair'; it can be none, even, activity",
    '[pool.safety]\nmethod = "even"\nby = "cost"': "by says nothing to method 'even'",
    '[pool.safety]\nby = "weather"': "the rule cannot be used",
    "charged = 1": "the rule cannot be used",
    "pool = 3": "write a table",
    "[pool]\nsafety = 3": "write a table",
    '[pool.safety]\nmethod = "weighted"': "no weights above zero",
    '[pool.safety]\nmethod = "weighted"\nweights = {a = 0}': "no weights above zero",
    '[pool.safety]\nmethod = "weighted"\nweights = {a = 1, b = -1}': "weight of 'b' is negative",
    '[pool.safety]\nmethod = "weighted"\nweights = {a = 0.5}': "the rule cannot be used",
    '[pool.safety]\nmethod = "weighted"\nweights = {a = "half"}': "not an amount",
    '[pool.safety]\nmethod = "weighted"\nweights = {"@platform" = 1}': "'@platform' is no tenant",
    '[every]\nwithout = [""]': "'' is no tenant",
    '[pool.safety]\nmethod = "shapley"\nneeds = {a = "-1"}': "a need is negative",
    '[pool.safety]\nmethod = "shapley"\nneeds = "all"': "the rule cannot be used",
    '[pool.safety]\nmethod = "shapley"\nneeds = {a = "1"}\ncosts = {a = "1"}': "two games",
    '[pool.safety]\nmethod = "shapley"\ncosts = {"a+" = "1"}': "'' is no tenant",
    '[[invoice]]\naccount = "x"': "the rule cannot be used",
    '[[invoice]]\nsource = "x"\nacount = "y"': "the rule cannot be used",
    "[pool.safety": "not a TOML file",
}


@pytest.mark.parametrize("text", BAD)
def test_what_a_rule_cannot_say(text: str) -> None:
    with pytest.raises(AllocationError) as refused:
        load_rule(text)
    assert BAD[text] in str(refused.value)


@pytest.mark.parametrize("method", METHODS)
def test_one_method_for_all(method: str) -> None:
    rule = load_rule(WHOLE).with_method(method)  # type: ignore[arg-type]
    assert rule.every.method == rule.of("safety").method == rule.of("unattributed").method == method
    assert rule.of("faults").method == "none"
    assert rule.is_charged("safety") is False
    assert load_rule(WHOLE).with_method("weighted").of("safety").weights == {
        "acme": 6, "globex": "1.5",
    }  # fmt: skip
    assert AllocationRule().with_method("even").of("unattributed").method == "none"


def test_all_charged_and_undone() -> None:
    rule = load_rule(WHOLE)
    assert rule.all_charged().is_charged("safety")
    assert {rule.undone().of(pool).method for pool in POOLS} == {"none"}
    assert len({rule.sha256, rule.all_charged().sha256, rule.undone().sha256}) == 3
