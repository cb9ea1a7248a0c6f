"""The decision about one event: cost, owners, bucket, charge, and everything that decided it."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import msgspec

from costspan.core.decide.amounts import EVENT_PICO_MAX, charge_of, cost_of, premium_of
from costspan.core.decide.charging import own_charges
from costspan.core.decide.features import Features, Lineage, told_of
from costspan.core.decide.rules import Rule, RuleSet
from costspan.core.decide.ruling import PLATFORM, UNATTRIBUTED, Ruling, standing_of
from costspan.core.join.merge import Event
from costspan.core.money import split
from costspan.core.prices import ChargeBook, Prices
from costspan.core.schema import Observation

__all__ = ["EVENT_PICO_MAX", "PLATFORM", "UNATTRIBUTED", "Decision", "Share", "decide"]


class Share(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one owner bears of an event, in pico-USD; `pool` says which pool of the platform's."""

    owner: str
    bucket: str
    pool: str | None
    cost: int
    charge: int


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What the rules made of one event: the ruling it shares with others, and what is its own.

    Amounts are pico-USD; `cost`, `charge` and `shares` are empty where the cost is unknown. `via`
    is the ancestor or session that lineage found the driver through. The owner and the bucket are
    decided even without amounts.
    """

    ruling: Ruling
    driver: str | None
    via: str | None
    owner: str
    cost: int | None
    charge: int | None
    shares: tuple[Share, ...]
    flags: tuple[str, ...]
    price_row: str | None
    requested_row: str | None

    @property
    def absorbed(self) -> int | None:
        """What the platform bears itself: cost minus charge, signed; None if unknown."""
        if self.cost is None or self.charge is None:
            return None
        return self.cost - self.charge

    @property
    def cause(self) -> str:
        """The ruling's cause."""
        return self.ruling.cause

    @property
    def initiator(self) -> str:
        """The ruling's initiator."""
        return self.ruling.initiator

    @property
    def outcome(self) -> str:
        """The ruling's outcome."""
        return self.ruling.outcome

    @property
    def bucket(self) -> str:
        """The ruling's bucket."""
        return self.ruling.bucket

    @property
    def rules(self) -> tuple[str, ...]:
        """The owner and charge rules that decided."""
        return self.ruling.rules

    @property
    def cost_rule(self) -> str:
        """The rule that decided the cost."""
        return self.ruling.cost_rule

    @property
    def bucket_rule(self) -> str:
        """The rule that decided the bucket."""
        return self.ruling.bucket_rule

    @property
    def is_money(self) -> bool:
        """Whether it is in the books at all (K0)."""
        return self.ruling.is_money

    @property
    def rules_sha256(self) -> str:
        """The hash of the rule set that decided."""
        return self.ruling.rules_sha256

    @property
    def features(self) -> Features:
        """The features the rules looked at. Shared by many decisions: read, never change."""
        return self.ruling.features


def decide(
    event: Event,
    lineage: Lineage,
    rules: RuleSet,
    prices: Prices,
    charges: ChargeBook | None = None,
) -> Decision:
    """Decide one event. Pure and total: every event gets a decision, unknown amounts included.

    `charges` are what tenants are charged where it is not what the prices say.
    """
    facts = event.facts
    rows = prices.rows(
        facts.executed_model,
        facts.requested_model,
        facts.provider,
        facts.tier,
        facts.region,
        event.at_ns or 0,
        facts.price_book,
    )
    priced = rows.executed.cost(facts.usage) if rows.executed and facts.usage else None
    told = told_of(event, lineage, is_priced=priced is not None, substituted=rows.substituted)
    standing = standing_of(rules, told)
    flags = list(facts.flags)
    cost = cost_of(standing.cost, facts, priced, flags)
    owner, weights = _owners(standing.owner, facts, lineage)
    course = standing.owned_by(owner)
    rule_ids: tuple[str, ...] = ("P0",)
    shares: tuple[Share, ...] = ()
    charge: int | None = None
    if cost is not None:
        base = charge_of(course, rules.knobs, facts, rows, cost, flags)
        premium = premium_of(course.premium, facts, rows.executed)
        pool = "faults" if standing.owner.then == "faults" else standing.cause
        own: Mapping[str, int] = {}
        if charges is not None:
            at_ns = event.at_ns or 0
            own, said = own_charges(charges, weights, base, facts, at_ns, cost, rules.knobs)
            flags += said
        bucket = course.bucket.then
        shares = _shares(cost, base.amount, weights, premium, bucket, pool, own)
        charge = sum([share.charge for share in shares])
        rule_ids = (standing.owner.id, *(("O8",) if premium else ()), *base.rule_ids)
        if own:
            rule_ids = (*rule_ids, "CB")
        if charge > cost:
            flags.append("charged_above_cost")
        if facts.usage_source == "estimated" and standing.cost.then == "usage":
            flags.append("estimated")
    else:
        flags.append("unpriced" if standing.is_measured else "unmeasured")
    return Decision(
        course.ruling(rule_ids),
        facts.tenant or lineage.tenant,
        lineage.via if facts.tenant is None else None,
        owner,
        cost,
        charge,
        shares,
        tuple(dict.fromkeys(flags)) if flags else (),
        rows.executed.row.id if rows.executed else None,
        rows.requested.row.id if rows.requested and rows.substituted else None,
    )


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


def _shares(
    cost: int,
    base: int,
    weights: Mapping[str, int | Fraction],
    premium: Fraction | None,
    bucket: str,
    pool: str,
    own: Mapping[str, int],
) -> tuple[Share, ...]:
    """Split cost and charge by the same weights; what falls to no tenant is absorbed.

    A tenant in `own` has its share of what the whole event would be charged to it.
    """
    if premium:
        whole = sum(weights.values())
        weights = {owner: weight * (1 - premium) for owner, weight in weights.items()}
        weights[PLATFORM] = weights.get(PLATFORM, 0) + whole * premium
        pool = "prompt_cache"
    elif len(weights) == 1:
        (owner,) = weights
        return (_share(owner, bucket, pool, cost, own.get(owner, base)),)
    costs, charges = split(cost, weights), split(base, weights)
    for owner, amount in own.items():
        charges[owner] = split(amount, weights)[owner]
    return tuple(
        [_share(owner, bucket, pool, costs[owner], charges[owner]) for owner in sorted(costs)]
    )


def _share(owner: str, bucket: str, pool: str, cost: int, charge: int) -> Share:
    if owner == PLATFORM:
        return Share(owner, "platform", pool, cost, 0)
    if owner == UNATTRIBUTED:
        return Share(owner, "unattributed", None, cost, 0)
    return Share(owner, bucket, None, cost, charge)
