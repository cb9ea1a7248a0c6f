"""`costspan rules`: listed, checked, and compared over the whole feature space."""

from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path
from typing import get_args

import pytest
from desk import Desk

from costspan.cli.boxes import compare, decided, merged, never_decides
from costspan.core.decide import DOMAINS, RuleSet, load_profile, load_rules
from costspan.core.decide.rules import TableName

OWN = """
[[owner]]
id = "safety-to-tenant"
when = { cause = "safety", has_tenant = "yes" }
then = "tenant"
because = "our contract says so"

[[bucket]]
id = "evals-are-direct"
when = { cause = ["eval", "index"], initiator = ["user", "agent"], owner = "tenant" }
then = "direct"
because = "asked for"
"""
DEAD = """
[[owner]]
id = "mine"
when = { has_tenant = "yes" }
then = "tenant"
because = "first"

[[owner]]
id = "never"
when = { has_tenant = "yes", kind = "image" }
then = "platform"
because = "too late"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.toml"
    path.write_text(OWN, "utf-8")
    return path


def _differing(before: RuleSet, after: RuleSet, table: TableName) -> int:
    """By trying every combination of what either looks at."""
    names = sorted({*before.looked_at(table), *after.looked_at(table)})
    rest = {name: values[0] for name, values in DOMAINS.items()}
    count = 0
    for values in product(*(DOMAINS[name] for name in names)):
        features = {**rest, **dict(zip(names, values, strict=True))}
        count += before.first(table, features).then != after.first(table, features).then
    return count


@pytest.mark.parametrize("table", get_args(TableName))
@pytest.mark.parametrize("other", ["chargeback", OWN])
def test_a_difference_is_exactly_where_trying_everything_finds_it(
    table: TableName, other: str
) -> None:
    before = load_profile("billing")
    after = load_rules(OWN) if other is OWN else load_profile(other)
    found = compare(before, after, table)
    assert sum(each.combinations for each in found.differences) == _differing(before, after, table)


def test_boxes_cover_the_space_once() -> None:
    rules = load_profile("billing").tables["owner"]
    names = {name for rule in rules for name, _ in rule.when}
    whole = {name: frozenset(DOMAINS[name]) for name in names}
    boxes = [box for box, _ in decided(rules, whole)]
    assert sum(prod(map(len, box.values())) for box in boxes) == prod(map(len, whole.values()))
    assert merged(boxes) == [whole]


def test_diff(desk: Desk, own: Path) -> None:
    found = desk.run("rules", "diff", "billing", own, "--json").json
    owner = found["tables"]["owner"]
    assert {each["before"]["rule"] for each in owner["differences"]} == {"O1", "O2", "O3"}
    assert {each["after"]["rule"] for each in owner["differences"]} == {"safety-to-tenant"}
    assert all(each["when"]["cause"] == ["safety"] for each in owner["differences"])
    ran = desk.run("rules", "diff", "billing", own)
    assert ran.code == 0
    assert "O3 pool" in ran.out
    assert "combinations are decided differently" in ran.out


def test_diff_of_profiles_and_exit_code(desk: Desk) -> None:
    ran = desk.run("rules", "diff", "billing", "chargeback", "--exit-code")
    assert ran.code == 1
    assert "knob charge_above_cost: allowed -> capped" in ran.out
    assert "C5 requested" in ran.out
    ran = desk.run("rules", "diff", "billing", "billing", "--exit-code")
    assert ran.code == 0
    assert "the same decision in every case" in ran.out


def test_list_marks_your_own(desk: Desk, own: Path) -> None:
    lines = desk.run("rules", "list", "--rules", own).out.splitlines()
    (mine,) = [line for line in lines if "safety-to-tenant" in line]
    assert "safety-to-tenant*" in mine
    assert "cause=safety has_tenant=yes" in mine
    assert any(line.split()[:2] == ["owner", "O7"] for line in lines)
    tables = desk.run("rules", "--rules", own, "list", "--json").json["tables"]
    assert tables["owner"][0]["id"] == "safety-to-tenant"


def test_check(desk: Desk, own: Path) -> None:
    ran = desk.run("rules", "check", own)
    assert ran.code == 0
    assert "2 rules of your own in front of profile billing" in ran.out


def test_check_finds_a_rule_that_never_decides(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "dead.toml"
    path.write_text(DEAD, "utf-8")
    ran = desk.run("rules", "check", path)
    assert ran.code == 1
    assert "owner never never decides" in ran.out
    assert "owner O4 of the profile never decides any more" in ran.out
    dead = desk.run("rules", "check", path, "--json").json["never_decide"]
    assert {each["rule"] for each in dead} == {"never", "O4"}


def test_no_rule_of_a_profile_is_dead() -> None:
    for name in ("billing", "chargeback"):
        tables = load_profile(name).tables
        assert not [rule.id for rules in tables.values() for rule in never_decides(rules)]


def test_check_says_what_would_be_right(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[[owner]]\nid = "x"\nthen = "tenat"\nbecause = "y"\n', "utf-8")
    ran = desk.run("rules", "check", path)
    assert ran.code == 2
    assert "it can be" in ran.err
    assert str(path) in ran.err
    ran = desk.run("rules", "diff", "billing", path)
    assert (ran.code, str(path) in ran.err) == (2, True)
    assert desk.run("rules", "check", tmp_path / "none.toml").code == 2


def test_profile(desk: Desk) -> None:
    ran = desk.run("rules", "profile")
    assert "fallback_charge" in ran.out
    assert "chargeback" in ran.out
    knobs = desk.run("rules", "profile", "chargeback", "--json").json["chargeback"]["knobs"]
    assert knobs["fallback_charge"] == "executed"
    assert desk.run("rules", "profile", "nobodys").code == 2


def test_the_policies_of_a_ledger(empty: Desk) -> None:
    (first,) = empty.run("rules", "list", "--ledger-rules", "--json").json["policies"]
    assert (first["profile"], first["effective_from"]) == ("billing", 0)
    empty.run("drain", "--profile", "chargeback")
    ran = empty.run("rules", "list", "--ledger-rules", "--json")
    assert [each["profile"] for each in ran.json["policies"]] == ["billing", "chargeback"]
    assert ran.json["in_force"]["profile"] == "chargeback"
    page = empty.run("rules", "list", "--ledger-rules").out
    assert "the beginning" in page
    assert "profile chargeback" in page


def test_the_charge_book_of_each_policy_is_named(empty: Desk, tmp_path: Path) -> None:
    charges = tmp_path / "charges.toml"
    charges.write_text('[book]\nid = "sales"\n[[charge]]\nfactor = "2"\n', "utf-8")
    empty.run("drain", "--charges", charges)
    first, last = empty.run("rules", "list", "--ledger-rules", "--json").json["policies"]
    assert (first["charges"], last["charges"]) == (None, "sales")
    named = f"sales {last['charges_sha256'][:12]}"
    assert named in empty.run("rules", "list", "--ledger-rules").out


def test_no_ledger_no_policies(desk: Desk) -> None:
    assert desk.run("rules", "list", "--ledger-rules").code == 3
