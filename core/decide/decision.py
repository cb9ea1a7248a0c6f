"""The decision about one event: cost, owners, bucket, charge, and everything that decided it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import NamedTuple

import msgspec

from costspan.core.decide.features import Features, Lineage, features_of, work_of
from costspan.core.decide.rules import Rule, RuleSet
from costspan.core.join.merge import Event
from costspan.core.money import MoneyError, parse_usd, round_half_even, split
from costspan.core.prices import Match, Prices
from costspan.core.schema import Observation

PLATFORM = "@platform"
UNATTRIBUTED = "@unattributed"
EVENT_PICO_MAX = 2**63 - 1
"""An event's amounts fit an int64: 9.22 million USD. More than that is a broken number."""


class Share(msgspec.Struct, frozen=True, array_like=True):
    """What one owner bears of an event, in pico-USD; `pool` says which pool of the platform's."""

    owner: str
    bucket: str
    pool: str | None
    cost: int
    charge: int


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are pico-USD; `cost`, `charge` and `shares` are empty where the cost is unknown.

    `rules` are the owner and charge rules that decided (P0: no price); `cost_rule` and
    `bucket_rule` those of the other tables; `via` is the ancestor or session that lineage found
    the driver through. `owner` and `bucket` are decided even without amounts.
    """

    cause: str
    initiator: str
    outcome: str
    driver: str | None
    via: str | None
    owner: str
    bucket: str
    cost: int | None
    charge: int | None
    shares: tuple[Share, ...]
    rules: tuple[str, ...]
    cost_rule: str
    bucket_rule: str
    flags: tuple[str, ...]
    price_row: str | None
    requested_row: str | None
    features: dict[str, str]
    rules_sha256: str
    is_money: bool = True

    @property
    def absorbed(self) -> int | None:
        """What the platform bears itself: cost minus charge, signed; None if unknown."""
        if self.cost is None or self.charge is None:
            return None
        return self.cost - self.charge


class _Priced(NamedTuple):
    """The rows an event's names lead to."""

    executed: Match | None
    requested: Match | None
    substituted: bool


def decide(event: Event, lineage: Lineage, rules: RuleSet, prices: Prices) -> Decision:
    """Decide one event. Pure and total: every event gets a decision, unknown amounts included."""
    facts = event.facts
    flags: list[str] = list(facts.flags)
    work = work_of(event, lineage)
    rows = _rows(event, prices)
    exact = rows.executed.price(facts.usage) if rows.executed and facts.usage else None
    features = features_of(
        event, lineage, work, is_priced=exact is not None, substituted=rows.substituted
    )
    cost_rule = rules.first("cost", features)
    cost = _cost(cost_rule, facts, exact, flags)
    features["basis"] = {"flat": "flat", "usage": "usage"}.get(cost_rule.then, "none")
    owner_rule = rules.first("owner", features)
    owner, weights = _owners(owner_rule, facts, lineage)
    features["owner"] = {PLATFORM: "platform", UNATTRIBUTED: "unattributed"}.get(owner, "tenant")
    premium = _premium(rules.first("premium", features), facts, rows.executed, exact)
    bucket_rule = rules.first("bucket", features)
    rule_ids: tuple[str, ...] = ("P0",)
    shares: tuple[Share, ...] = ()
    charge: int | None = None
    if cost is not None:
        pool = _pool(owner_rule, work.cause)
        base, charge_ids = _charge_base(rules, features, facts, rows, cost, flags)
        if base > EVENT_PICO_MAX:
            flags.append("charge_overflow")
            base = cost
        if rules.knobs["charge_above_cost"] == "capped":
            base = min(base, cost)
        shares = _shares(cost, base, weights, premium, bucket_rule.then, pool)
        charge = sum(share.charge for share in shares)
        rule_ids = (owner_rule.id, *(("O8",) if premium else ()), *charge_ids)
        if charge > cost:
            flags.append("charged_above_cost")
        if facts.usage_source == "estimated" and cost_rule.then == "usage":
            flags.append("estimated")
    else:
        flags.append("unmeasured" if features["usage"] == "missing" else "unpriced")
    return Decision(
        cause=work.cause,
        initiator=work.initiator,
        outcome=event.outcome,
        driver=facts.tenant or lineage.tenant,
        via=lineage.via if facts.tenant is None else None,
        owner=owner,
        bucket=bucket_rule.then,
        cost=cost,
        charge=charge,
        shares=shares,
        rules=rule_ids,
        cost_rule=cost_rule.id,
        bucket_rule=bucket_rule.id,
        flags=tuple(dict.fromkeys(flags)),
        price_row=rows.executed.row.id if rows.executed else None,
        requested_row=rows.requested.row.id if rows.requested and rows.substituted else None,
        features=features,
        rules_sha256=rules.sha256,
        is_money=cost_rule.then != "none",
    )


def _rows(event: Event, prices: Prices) -> _Priced:
    """The price rows of the executed and the requested model, at request start."""
    facts = event.facts
    name = facts.executed_model or facts.requested_model
    if name is None:
        return _Priced(None, None, False)
    at = event.at_ns or 0

    def find(model: str, tier: str | None) -> Match | None:
        return prices.find(model, facts.provider, tier, facts.region, None, at, facts.price_book)

    executed = find(name, facts.tier)
    asked = facts.requested_model
    if asked is None or asked == name:
        return _Priced(executed, executed, False)

    def find_asked(tier: str | None) -> Match | None:
        # A fallback may lead to another provider: the model asked for need not be one of its own.
        at_any = None, tier, facts.region, None, at, facts.price_book
        return find(asked, tier) or prices.find(asked, *at_any)

    # Whether they are two models is a question without tier: a tier without a row is no model.
    plain, asked_plain = find(name, None), find_asked(None)
    substituted = (
        plain is not None and asked_plain is not None and plain.row.id != asked_plain.row.id
    )
    return _Priced(executed, find_asked(facts.tier) if substituted else executed, substituted)


def _cost(rule: Rule, facts: Observation, exact: Fraction | None, flags: list[str]) -> int | None:
    """The cost in pico-USD, rounded half-even once; None is unknown."""
    if rule.then in ("none", "zero"):
        return 0
    if rule.then == "flat":
        cost = _usd(facts.flat_cost, "flat_cost", flags)
        if cost is None:
            return None
    elif rule.then == "usage" and exact is not None:
        cost = round_half_even(exact)
    else:
        return None
    if cost > EVENT_PICO_MAX:
        flags.append("cost_overflow")
        return None
    return cost


def _usd(amount: str | None, name: str, flags: list[str]) -> int | None:
    """A claimed amount in pico-USD; unknown, and named, where a record went around `clean`."""
    try:
        pico = parse_usd(amount or "", rounding=True)
    except MoneyError:
        pico = -1
    if pico < 0:
        flags.append(f"invalid:{name}")
        return None
    return pico


def _owners(
    rule: Rule, facts: Observation, lineage: Lineage
) -> tuple[str, dict[str, int | Fraction]]:
    """The owner an event is listed under, and the weights its cost is split by."""
    if rule.then == "members" and facts.members:
        weights: dict[str, int | Fraction] = {k: v for k, v in facts.members.items() if v > 0}
        if weights:
            # Listed under its largest tenant; a share of nobody's never names the whole.
            return min(weights, key=lambda o: (o == UNATTRIBUTED, -weights[o], o)), weights
    elif rule.then == "tenant" and facts.tenant is not None:
        return facts.tenant, {facts.tenant: 1}
    elif rule.then == "lineage" and lineage.tenant is not None:
        return lineage.tenant, {lineage.tenant: 1}
    elif rule.then in ("faults", "pool", "platform"):
        return PLATFORM, {PLATFORM: 1}
    return UNATTRIBUTED, {UNATTRIBUTED: 1}


def _pool(rule: Rule, cause: str) -> str:
    return "faults" if rule.then == "faults" else cause


def _premium(rule: Rule, facts: Observation, row: Match | None, exact: Fraction | None) -> Fraction:
    """What the cache writes cost above the input rate, as a share of the cost; 0 if none."""
    if rule.then != "pool" or row is None or facts.usage is None or not exact:
        return Fraction(0)
    base = row.rate("input", facts.usage)
    if base is None:
        return Fraction(0)
    premium = Fraction(0)
    for component in ("cache_write_5m", "cache_write_1h"):
        rate = row.rate(component, facts.usage)
        if rate is not None and rate > base:
            premium += (rate - base) * facts.usage.get(component, 0)
    return Fraction(premium, exact)


def _charge_base(
    rules: RuleSet,
    features: Features,
    facts: Observation,
    rows: _Priced,
    cost: int,
    flags: list[str],
) -> tuple[int, tuple[str, ...]]:
    """What the whole event would be charged, before owners split it; and the rules that say so."""
    rule = rules.first("charge", features)
    if rule.then == "zero":
        return 0, (rule.id,)
    if rule.then == "cost":
        return cost, (rule.id,)
    if rule.then in ("list", "fraction"):
        avoided = _usd(facts.avoided_cost or "0", "avoided_cost", flags) or 0
        part = Fraction(rules.knobs["cache_hit_fraction"]) if rule.then == "fraction" else 1
        return cost + round_half_even(avoided * part), (rule.id,)
    quantity_rule = rules.first("quantity", features)
    price_rule = rules.first("price", features)
    ids = [rule.id] if rule.id != "C" else []
    if features["basis"] != "usage" or facts.usage is None:
        return cost, (*ids, price_rule.id)
    usage: Mapping[str, int] = facts.usage
    if quantity_rule.then == "delivered":
        usage = {**usage, **(facts.delivered_usage or {})}
        ids.append(quantity_rule.id)
    executed = rows.executed.price(usage) if rows.executed else None
    base = cost if executed is None else round_half_even(executed)
    if executed is None:
        flags.append("delivered_unpriced")
    if price_rule.then == "executed":
        if price_rule.id != "C6" or not ids:
            ids.append(price_rule.id)
        return base, tuple(ids)
    requested = rows.requested.price(usage) if rows.requested else None
    if requested is None or requested > EVENT_PICO_MAX:
        flags.append("requested_unpriced")
        return base, tuple(ids or ["C6"])
    asked = round_half_even(requested)
    return (min(base, asked) if price_rule.then == "lower" else asked), (*ids, price_rule.id)


def _shares(
    cost: int,
    base: int,
    weights: Mapping[str, int | Fraction],
    premium: Fraction,
    bucket: str,
    pool: str,
) -> tuple[Share, ...]:
    """Split cost and charge by the same weights; what falls to no tenant is absorbed."""
    if premium:
        whole = sum(weights.values())
        weights = {owner: weight * (1 - premium) for owner, weight in weights.items()}
        weights[PLATFORM] = weights.get(PLATFORM, 0) + whole * premium
        pool = "prompt_cache"
    costs = split(cost, weights)
    charges = split(base, weights)
    shares: list[Share] = []
    for owner in sorted(costs):
        if owner == PLATFORM:
            shares.append(Share(owner, "platform", pool, costs[owner], 0))
        elif owner == UNATTRIBUTED:
            shares.append(Share(owner, "unattributed", None, costs[owner], 0))
        else:
            shares.append(Share(owner, bucket, None, costs[owner], charges[owner]))
    return tuple(shares)
