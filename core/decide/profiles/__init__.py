"""Rule files: the profiles that ship, and a user's own rules in front of one of them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any, TypeGuard, get_args

from costspan.core.decide.features import DOMAINS
from costspan.core.decide.rules import EFFECTS, Rule, RuleSet, TableName

KNOBS: dict[str, tuple[str, ...]] = {
    "fallback_charge": ("requested", "executed", "min"),
    "bill_undelivered": ("none", "agent_fault", "user_fault"),
    "cache_hit_charge": ("lookup", "list", "fraction"),
    "cache_hit_fraction": (),
    "shared_prefix": ("premium_pooled", "triggering"),
    "safety_owner": ("platform", "tenant"),
    "charge_above_cost": ("allowed", "capped"),
}
"""Knob -> what it can be set to (`cache_hit_fraction` is a decimal string from 0 to 1)."""

_TABLES: tuple[str, ...] = get_args(TableName)
_NOT_YET = {"cost": ("basis", "owner"), "owner": ("owner",)}
"""Table -> features that are decided by it or after it."""


class RuleError(ValueError):
    """A rule file that cannot be used: which rule, what is wrong, and what would be right."""


def profile_names() -> tuple[str, ...]:
    """The profiles that ship."""
    here = files("costspan.core.decide.profiles")
    return tuple(sorted(f.name[:-5] for f in here.iterdir() if f.name.endswith(".toml")))


@cache
def load_profile(name: str) -> RuleSet:
    """A profile that ships.

    Raises:
        RuleError: if none has this name.
    """
    plain = _shipped(name)
    return _compile(name, plain, ())


def load_rules(text: str, profile: str | None = None) -> RuleSet:
    """A user's rules in front of a profile's.

    Args:
        text: TOML: `profile`, `[knobs]`, and rules in `[[owner]]`, `[[bucket]]`, `[[charge]]`, ….
        profile: The profile, where the text names none.

    Raises:
        RuleError: for anything a rule file cannot say.
    """
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RuleError(f"not a TOML file: {error}") from error
    name = plain.pop("profile", None) or profile or "billing"
    if not isinstance(name, str):
        raise RuleError(f"profile is {name!r}; it can be {', '.join(profile_names())}")
    base = _shipped(name)
    knobs = plain.pop("knobs", {})
    if not _is_table(knobs):
        raise RuleError(f"knobs is {knobs!r}; write a table: [knobs]")
    _refuse_unknown(plain, (*_TABLES, "name"), "table")
    for table in _TABLES:
        rules = plain.get(table, [])
        if not _is_list(rules) or not all(map(_is_table, rules)):
            raise RuleError(f"{table} is no list of rules; begin each rule with [[{table}]]")
    base = {**base, "knobs": {**base["knobs"], **knobs}}
    own = tuple(
        (table, _rule(table, rule, builtin=False))
        for table in _TABLES
        for rule in plain.get(table, ())
    )
    return _compile(name, base, own)


def _shipped(name: str) -> dict[str, Any]:
    source = files("costspan.core.decide.profiles") / f"{name}.toml"
    if not name.isidentifier() or not source.is_file():
        known = ", ".join(profile_names())
        raise RuleError(f"there is no profile {name!r}; the profiles are {known}")
    plain = tomllib.loads(source.read_text("utf-8"))
    if extends := plain.pop("extends", None):
        base = _shipped(extends)
        plain = {**base, **plain, "knobs": {**base["knobs"], **plain.get("knobs", {})}}
    return plain


def _compile(name: str, plain: Mapping[str, Any], own: Iterable[tuple[str, Rule]]) -> RuleSet:
    knobs: dict[str, str] = dict(plain["knobs"])
    _check_knobs(knobs)
    mine = list(own)
    tables: dict[str, tuple[Rule, ...]] = {}
    for table in _TABLES:
        built_in = [_rule(table, rule, builtin=True) for rule in plain[table]]
        front = [rule for name_, rule in mine if name_ == table]
        tables[table] = (*front, *_turned(table, built_in, knobs))
        ids = [rule.id for rule in tables[table]]
        for rule_id in ids:
            if ids.count(rule_id) > 1:
                raise RuleError(f"two {table} rules are called {rule_id!r}: give each its own id")
    return RuleSet(name, knobs, tables)


def _turned(table: str, rules: list[Rule], knobs: Mapping[str, str]) -> list[Rule]:
    """The built-in rules of a table as the knobs turn them."""
    turned: list[Rule] = []
    for rule in rules:
        if rule.id == "O3" and knobs["safety_owner"] == "tenant":
            turned += _safety_to_tenant()
        if rule.id == "C1" and knobs["bill_undelivered"] != "none":
            fault = knobs["bill_undelivered"].removesuffix("_fault")
            because = f"undelivered through the {fault}'s own fault: charged all the same"
            own = (("fault", frozenset({fault})), ("owner", frozenset({"tenant"})))
            when = tuple(sorted((*rule.when, *own), key=lambda condition: condition[0]))
            turned.append(Rule("C1f", when, "priced", because))
        if rule.id == "C4":
            effect = {"lookup": "cost"}.get(knobs["cache_hit_charge"], knobs["cache_hit_charge"])
            rule = Rule(rule.id, rule.when, effect, rule.because)
        if rule.id == "C5":
            choice = knobs["fallback_charge"]
            if choice == "executed":
                continue  # then C6 decides, for every model
            effect = "lower" if choice == "min" else choice
            rule = Rule(rule.id, rule.when, effect, rule.because)
        if rule.id == "O8" and knobs["shared_prefix"] == "triggering":
            continue
        turned.append(rule)
    return turned


def _safety_to_tenant() -> list[Rule]:
    because = "safety checks belong to the tenant they protect (knob safety_owner)"
    when = {"cause": ("safety",), "policy_owner": ("none", "tenant")}

    def rule(name: str, found: str, then: str) -> Rule:
        conditions = sorted({**when, found: ("yes",)}.items())
        return Rule(name, tuple((f, frozenset(v)) for f, v in conditions), then, because)

    return [rule("O3t", "has_tenant", "tenant"), rule("O3l", "has_lineage", "lineage")]


def _check_knobs(knobs: Mapping[str, str]) -> None:
    _refuse_unknown(knobs, tuple(KNOBS), "knob")
    for knob, value in knobs.items():
        allowed = KNOBS[knob]
        if allowed and value not in allowed:
            raise RuleError(f"knob {knob} is {value!r}; it can be {', '.join(allowed)}")
        if not allowed and not _is_fraction(value):
            raise RuleError(f"knob {knob} is {value!r}; write a decimal from 0 to 1 as a string")


def _is_fraction(value: object) -> bool:
    if not isinstance(value, str):
        return False
    whole, _, rest = value.partition(".")
    if not whole.isdecimal() or (rest and not rest.isdecimal()):
        return False
    return whole.strip("0") == "" or (whole.lstrip("0") == "1" and rest.strip("0") == "")


def _rule(table: str, plain: Mapping[str, Any], *, builtin: bool) -> Rule:
    rule_id = plain.get("id")
    if not isinstance(rule_id, str) or not rule_id:
        raise RuleError(f"a rule in [[{table}]] has no id")
    where = f"[[{table}]] {rule_id}"
    _refuse_unknown(plain, ("id", "when", "then", "because"), f"key in {where}")
    then = plain.get("then")
    if then not in EFFECTS[table]:
        raise RuleError(f"{where}: then is {then!r}; it can be {', '.join(EFFECTS[table])}")
    because = plain.get("because")
    if not isinstance(because, str) or not because:
        raise RuleError(f"{where}: say why in `because`, for whoever reads a bill")
    conditions = plain.get("when", {})
    if not _is_table(conditions):
        raise RuleError(f"{where}: when is {conditions!r}; write {{ feature = value, … }}")
    when: list[tuple[str, frozenset[str]]] = []
    for feature, given in sorted(conditions.items()):
        _refuse_unknown((feature,), tuple(DOMAINS), f"feature in {where}")
        if feature in _NOT_YET.get(table, ()):
            raise RuleError(f"{where}: {feature} is only decided after the {table} rules")
        values = given if _is_list(given) else [given]
        if not values:
            raise RuleError(f"{where}: {feature} has no values, so the rule would never match")
        for value in values:
            if value not in DOMAINS[feature]:
                known = ", ".join(DOMAINS[feature])
                raise RuleError(f"{where}: {feature} is never {value!r}; it can be {known}")
        when.append((feature, frozenset(values)))
    return Rule(rule_id, tuple(when), then, because, builtin)


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _refuse_unknown(given: Iterable[str], known: tuple[str, ...], what: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            raise RuleError(f"there is no {what} called {name!r}{meant}")
