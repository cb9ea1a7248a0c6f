"""What a whole event costs and would be charged, before owners share it: pico-USD, or unknown."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from costspan.core.decide.rules import Rule
from costspan.core.decide.ruling import Course
from costspan.core.money import MoneyError, parse_usd, round_half_even
from costspan.core.prices import Match, Rows
from costspan.core.schema import Observation

EVENT_PICO_MAX = 2**63 - 1
"""An event's amounts fit an int64: 9.22 million USD. More than that is a broken number."""

_INVALID = -1


def cost_of(rule: Rule, facts: Observation, priced: int | None, flags: list[str]) -> int | None:
    """The cost by the rule that decides it, given what the usage is priced at; None is unknown."""
    then = rule.then
    if then == "usage":
        cost = priced
    elif then == "flat":
        cost = _usd(facts.flat_cost, "flat_cost", flags)
    else:
        return 0 if then in ("none", "zero") else None
    if cost is not None and cost > EVENT_PICO_MAX:
        flags.append("cost_overflow")
        return None
    return cost


def _usd(amount: str | None, name: str, flags: list[str]) -> int | None:
    """A claimed amount in pico-USD; unknown, and named, where a record went around `clean`."""
    pico = _pico(amount or "")
    if pico < 0:
        flags.append(f"invalid:{name}")
        return None
    return pico


@lru_cache(4096)
def _pico(amount: str) -> int:
    try:
        return parse_usd(amount, rounding=True)
    except MoneyError:
        return _INVALID


def premium_of(rule: Rule, facts: Observation, row: Match | None) -> Fraction | None:
    """What the cache writes cost above the input rate, as a share of the cost; None if nothing."""
    if rule.then != "pool" or row is None or facts.usage is None:
        return None
    exact, base = row.price(facts.usage), row.rate("input", facts.usage)
    if not exact or base is None:
        return None
    premium = Fraction(0)
    for component in ("cache_write_5m", "cache_write_1h"):
        rate = row.rate(component, facts.usage)
        if rate is not None and rate > base:
            premium += (rate - base) * facts.usage.get(component, 0)
    return Fraction(premium, exact) if premium else None


class Base(NamedTuple):
    """What a whole event would be charged by the rules, pico-USD, before any charge book.

    Attributes:
        amount: pico-USD.
        rule_ids: the charge rules that say so.
        is_zero_by_rule: whether a rule says that nothing is charged.
        match: the row that it is the price by; None if it is no price (a flat cost, a cache hit).
        usage: the quantities that it is the price of.
        is_requested: whether the row is that of the model asked for instead of the one that ran.
    """

    amount: int
    rule_ids: tuple[str, ...]
    is_zero_by_rule: bool = False
    match: Match | None = None
    usage: Mapping[str, int] | None = None
    is_requested: bool = False


def charge_of(
    course: Course,
    knobs: Mapping[str, str],
    facts: Observation,
    rows: Rows,
    cost: int,
    flags: list[str],
) -> Base:
    """What the whole event would be charged, and the rules that say so; flags what is unusual."""
    base = _base(course, knobs, facts, rows, cost, flags)
    if base.amount > EVENT_PICO_MAX:
        flags.append("charge_overflow")
        base = base._replace(amount=cost)
    if base.amount > cost and knobs["charge_above_cost"] == "capped":
        base = base._replace(amount=cost)
    return base


def _base(
    course: Course,
    knobs: Mapping[str, str],
    facts: Observation,
    rows: Rows,
    cost: int,
    flags: list[str],
) -> Base:
    rule = course.charge
    if rule.then == "zero":
        return Base(0, (rule.id,), is_zero_by_rule=True)
    if rule.then == "cost":
        return Base(cost, (rule.id,))
    if rule.then in ("list", "fraction"):
        avoided = _usd(facts.avoided_cost or "0", "avoided_cost", flags) or 0
        part = Fraction(knobs["cache_hit_fraction"]) if rule.then == "fraction" else 1
        return Base(cost + round_half_even(avoided * part), (rule.id,))
    ids = () if rule.id == "C" else (rule.id,)
    if course.basis != "usage" or facts.usage is None:
        return Base(cost, (*ids, course.price.id))
    return _priced(course, facts, facts.usage, rows, cost, ids, flags)


def _priced(
    course: Course,
    facts: Observation,
    usage: Mapping[str, int],
    rows: Rows,
    cost: int,
    ids: tuple[str, ...],
    flags: list[str],
) -> Base:
    """Quantity x price, of a cost that is the executed row's price for the usage."""
    base = cost
    if course.quantity.then == "delivered":
        usage = {**usage, **(facts.delivered_usage or {})}
        ids = (*ids, course.quantity.id)
        delivered = rows.executed.cost(usage) if rows.executed else None
        if delivered is None:
            flags.append("delivered_unpriced")
        else:
            base = delivered
    rule = course.price
    if rule.then == "executed":
        ids = ids if ids and rule.id == "C6" else (*ids, rule.id)
        return Base(base, ids, match=rows.executed, usage=usage)
    asked = rows.requested.cost(usage) if rows.requested else None
    if asked is None or asked > EVENT_PICO_MAX:
        flags.append("requested_unpriced")
        return Base(base, ids or ("C6",), match=rows.executed, usage=usage)
    if rule.then == "lower" and base <= asked:
        return Base(base, (*ids, rule.id), match=rows.executed, usage=usage)
    return Base(asked, (*ids, rule.id), False, rows.requested, usage, rows.substituted)
