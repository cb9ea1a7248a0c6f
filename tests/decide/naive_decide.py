"""One decision at a time, straight down the tables, in fractions: the oracle of the memoised one.

It prices with `Fraction`, asks `Prices.find` for every name, tries every rule in order, and keeps
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from costspan.core.decide import Decision, Lineage, Rule, RuleSet, Ruling, Share
from costspan.core.join import Event
from costspan.core.money import PICO, MoneyError, parse_usd, split
from costspan.core.prices import UNIT_COMPONENTS, Match, Prices, is_prompt
from costspan.core.schema import OVERHEAD_CAUSES, Observation, initiator_of

PLATFORM, UNATTRIBUTED = "@platform", "@unattributed"
MAX = 2**63 - 1
WORKING = ("model", "embedding", "image", "audio", "rerank")


def decide(event: Event, lineage: Lineage, rules: RuleSet, prices: Prices) -> Decision:
    """Decide one event, slowly."""
    facts, flags = event.facts, list(event.facts.flags)
    executed, requested, substituted = rows(event, prices)
    exact = price(executed, facts.usage)
    features = features_of(event, lineage, exact is not None, substituted)
    cost_rule = first(rules, "cost", features)
    cost = cost_of(cost_rule, facts, exact, flags)
    features["basis"] = cost_rule.then if cost_rule.then in ("flat", "usage") else "none"
    owner_rule = first(rules, "owner", features)
    owner, weights = owners(owner_rule, facts, lineage)
    features["owner"] = {PLATFORM: "platform", UNATTRIBUTED: "unattributed"}.get(owner, "tenant")
    bucket = first(rules, "bucket", features)
    rule_ids: tuple[str, ...] = ("P0",)
    shares: tuple[Share, ...] = ()
    if cost is not None:
        base, charge_ids = charge_of(rules, features, facts, (executed, requested), cost, flags)
        if base > MAX:
            flags.append("charge_overflow")
            base = cost
        if rules.knobs["charge_above_cost"] == "capped":
            base = min(base, cost)
        premium = Fraction(0)
        if first(rules, "premium", features).then == "pool":
            premium = premium_of(executed, facts.usage, exact)
        pool = "faults" if owner_rule.then == "faults" else features["cause"]
        shares = shares_of(cost, base, weights, premium, bucket.then, pool)
        rule_ids = (owner_rule.id, *(["O8"] if premium else []), *charge_ids)
        if sum(share.charge for share in shares) > cost:
            flags.append("charged_above_cost")
        if facts.usage_source == "estimated" and cost_rule.then == "usage":
            flags.append("estimated")
    else:
        flags.append("unmeasured" if features["usage"] == "missing" else "unpriced")
    return Decision(
        ruling=Ruling(
            cause=features["cause"], initiator=features["initiator"], outcome=event.outcome,
            bucket=bucket.then, rules=rule_ids, cost_rule=cost_rule.id, bucket_rule=bucket.id,
            is_money=cost_rule.then != "none", rules_sha256=rules.sha256, features=features,
        ),
        driver=facts.tenant or lineage.tenant,
        via=lineage.via if facts.tenant is None else None,
        owner=owner,
        cost=cost,
        charge=None if cost is None else sum(share.charge for share in shares),
        shares=shares,
        flags=tuple(dict.fromkeys(flags)),
        price_row=executed.row.id if executed else None,
        requested_row=requested.row.id if requested and substituted else None,
    )  # fmt: skip


def first(rules: RuleSet, table: Any, features: dict[str, str]) -> Rule:
    """The first rule that matches."""
    return next(rule for rule in rules.tables[table] if rule.misses(features) is None)


def rows(event: Event, prices: Prices) -> tuple[Match | None, Match | None, bool]:
    """The executed and the requested row, and whether they are two models."""
    facts, at = event.facts, event.at_ns or 0
    name, asked = facts.executed_model or facts.requested_model, facts.requested_model

    def find(model: str, tier: str | None, provider: str | None = facts.provider) -> Match | None:
        return prices.find(model, provider, tier, facts.region, None, at, facts.price_book)

    if name is None:
        return None, None, False
    executed = find(name, facts.tier)
    if asked is None or asked == name:
        return executed, executed, False
    one, other = find(name, None), find(asked, None) or find(asked, None, None)
    if one is None or other is None or one.row.id == other.row.id:
        return executed, executed, False
    return executed, find(asked, facts.tier) or find(asked, facts.tier, None), True


def price(match: Match | None, usage: Mapping[str, int] | None) -> Fraction | None:
    """The exact price by the row's own text; None where anything has no rate."""
    if match is None or not usage:
        return None
    rates = rates_of(match, usage)
    total = Fraction(0)
    for component, quantity in usage.items():
        if quantity and (component not in rates or quantity < 0):
            return None
        total += rates.get(component, 0) * quantity
    return total


def rates_of(match: Match, usage: Mapping[str, int]) -> dict[str, Fraction]:
    """pico-USD for one of each component, in the context tier of this prompt."""
    prompt = sum(quantity for name, quantity in usage.items() if is_prompt(name))
    texts = dict(match.row.rates)
    for tier in match.row.above:
        if prompt > tier.above_input_tokens:
            texts |= tier.rates
    return {
        name: Fraction(text) * PICO / (1 if name in UNIT_COMPONENTS else 10**6)
        for name, text in texts.items()
    }


def features_of(
    event: Event, lineage: Lineage, is_priced: bool, substituted: bool
) -> dict[str, str]:
    """The feature vector, before anybody is owner."""
    facts, kind = event.facts, event.facts.kind or "model"
    cause: str
    if facts.cause is not None:
        cause, initiator = facts.cause, facts.initiator or initiator_of(facts.cause)
    else:
        cause = "primary"
        if kind in ("tool", "retrieval"):
            cause = kind
        elif kind in WORKING and lineage.step is not None:
            cause = {"retrieval": "retrieval", "tool": "subagent"}[lineage.step]
        initiator = facts.initiator or ("user" if cause == "primary" else "agent")
    is_free = kind in ("tool", "retrieval", "router") and not (
        facts.executed_model is not None or facts.requested_model is not None or facts.usage
        or facts.flat_cost is not None or {"invalid:flat_cost", "invalid_usage"} & {*facts.flags}
    )  # fmt: skip
    is_retry = facts.attempt > 1 if facts.attempt is not None else facts.retry_of is not None
    owned = facts.tenant is not None or lineage.tenant is not None
    overhead = cause in OVERHEAD_CAUSES and (initiator == "platform" or not owned)

    def yes(condition: object) -> str:
        return "yes" if condition else "no"

    return {
        "kind": kind,
        "cause": cause,
        "initiator": initiator,
        "outcome": event.outcome,
        "fault": facts.fault or "none",
        "retry": (facts.retry_reason or "none") if is_retry else "none",
        "has_members": yes(sum((facts.members or {}).values()) > 0),
        "has_tenant": yes(facts.tenant is not None),
        "has_lineage": yes(lineage.tenant is not None),
        "is_overhead": yes(facts.shared or overhead),
        "policy_owner": facts.policy_owner or "none",
        "cache": facts.cache or "none",
        "is_money": yes(kind != "request" and not is_free),
        "provider_billed": {None: "unknown", True: "yes", False: "no"}[facts.provider_billed],
        "has_flat_cost": yes(facts.flat_cost is not None),
        "usage": (facts.usage_source or "provider") if facts.usage else "missing",
        "is_priced": yes(is_priced),
        "has_shared_prefix": yes(facts.shared_prefix),
        "substituted": yes(substituted),
        "owner": "unattributed",
        "basis": "none",
    }


def usd(text: str | None, name: str, flags: list[str]) -> int | None:
    """A claimed amount, flagged where it is none."""
    try:
        pico = parse_usd(text or "", rounding=True)
    except MoneyError:
        pico = -1
    if pico < 0:
        flags.append(f"invalid:{name}")
    return None if pico < 0 else pico


def cost_of(rule: Rule, facts: Observation, exact: Fraction | None, flags: list[str]) -> int | None:
    """The cost that this rule gives, rounded once."""
    cost = {"none": 0, "zero": 0}.get(rule.then)
    if rule.then == "flat":
        cost = usd(facts.flat_cost, "flat_cost", flags)
    elif rule.then == "usage" and exact is not None:
        cost = round(exact)
    if cost is not None and cost > MAX:
        flags.append("cost_overflow")
        return None
    return cost


def owners(
    rule: Rule, facts: Observation, lineage: Lineage
) -> tuple[str, dict[str, int | Fraction]]:
    """The owner an event is listed under, and who bears how much of it."""
    members: dict[str, int | Fraction] = {k: v for k, v in (facts.members or {}).items() if v > 0}
    if rule.then == "members" and members:
        return min(members, key=lambda o: (o == UNATTRIBUTED, -members[o], o)), members
    owner = {
        "tenant": facts.tenant, "lineage": lineage.tenant,
        "faults": PLATFORM, "pool": PLATFORM, "platform": PLATFORM,
    }.get(rule.then)  # fmt: skip
    owner = UNATTRIBUTED if owner is None else owner
    return owner, {owner: 1}


def premium_of(
    match: Match | None, usage: Mapping[str, int] | None, exact: Fraction | None
) -> Fraction:
    """The part of the cost that cache writes cost above the input rate."""
    if match is None or not usage or not exact:
        return Fraction(0)
    rates = rates_of(match, usage)
    if "input" not in rates:
        return Fraction(0)
    return Fraction(
        sum(
            max(Fraction(0), rates.get(name, Fraction(0)) - rates["input"]) * usage.get(name, 0)
            for name in ("cache_write_5m", "cache_write_1h")
        ),
        exact,
    )


def charge_of(
    rules: RuleSet,
    features: dict[str, str],
    facts: Observation,
    matches: tuple[Match | None, Match | None],
    cost: int,
    flags: list[str],
) -> tuple[int, tuple[str, ...]]:
    """What the whole would be charged, and by which rules."""
    rule = first(rules, "charge", features)
    if rule.then in ("zero", "cost"):
        return (0 if rule.then == "zero" else cost), (rule.id,)
    if rule.then in ("list", "fraction"):
        avoided = usd(facts.avoided_cost or "0", "avoided_cost", flags) or 0
        part = Fraction(rules.knobs["cache_hit_fraction"]) if rule.then == "fraction" else 1
        return cost + round(avoided * part), (rule.id,)
    quantity, by_price = first(rules, "quantity", features), first(rules, "price", features)
    ids = [rule.id] if rule.id != "C" else []
    if features["basis"] != "usage" or facts.usage is None:
        return cost, (*ids, by_price.id)
    usage = facts.usage
    if quantity.then == "delivered":
        usage = usage | (facts.delivered_usage or {})
        ids.append(quantity.id)
    executed, requested = (price(match, usage) for match in matches)
    if executed is None:
        flags.append("delivered_unpriced")
    base = cost if executed is None else round(executed)
    if by_price.then == "executed":
        return base, tuple(ids if by_price.id == "C6" and ids else [*ids, by_price.id])
    if requested is None or round(requested) > MAX:
        flags.append("requested_unpriced")
        return base, tuple(ids or ["C6"])
    asked = round(requested)
    return (min(base, asked) if by_price.then == "lower" else asked), (*ids, by_price.id)


def shares_of(
    cost: int,
    base: int,
    weights: Mapping[str, int | Fraction],
    premium: Fraction,
    bucket: str,
    pool: str,
) -> tuple[Share, ...]:
    """Cost and charge by the same weights; what falls to no tenant is charged to nobody."""
    if premium:
        whole = sum(weights.values())
        weights = {owner: weight * (1 - premium) for owner, weight in weights.items()}
        weights[PLATFORM] = weights.get(PLATFORM, 0) + whole * premium
        pool = "prompt_cache"
    costs, charges = split(cost, weights), split(base, weights)
    return tuple(
        Share(owner, "platform", pool, costs[owner], 0)
        if owner == PLATFORM
        else Share(owner, "unattributed", None, costs[owner], 0)
        if owner == UNATTRIBUTED
        else Share(owner, bucket, None, costs[owner], charges[owner])
        for owner in sorted(costs)
    )
