"""What the rules say of one combination of features, worked out once and kept.

Everything a rule may look at is finite, so thousands of events share each answer. The answers are
kept by the rule set's content hash and by what was told; no tenant, id or amount is in either.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import msgspec

from costspan.core.decide.features import Features, Told, features_of
from costspan.core.decide.rules import Rule, RuleSet

PLATFORM = "@platform"
UNATTRIBUTED = "@unattributed"

_STANDINGS_MAX = 4096
_BASIS = {"flat": "flat", "usage": "usage"}
_OWNER = {PLATFORM: "platform", UNATTRIBUTED: "unattributed"}


class Ruling(msgspec.Struct, frozen=True, dict=True):
    """What the tables say of one combination of features: the same for thousands of events.

    `rules` are the owner and charge rules that decided (P0: no price); `cost_rule` and
    `bucket_rule` those of the other tables. `decide` gives equal features the very same object.
    """

    cause: str
    initiator: str
    outcome: str
    bucket: str
    rules: tuple[str, ...]
    cost_rule: str
    bucket_rule: str
    is_money: bool
    rules_sha256: str
    features: Features

    @cached_property
    def key(self) -> str:
        """A digest of the content, the same in every process: what a ledger may name it by."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:32]


class Course:
    """What the tables say once the event's owner is known.

    Attributes:
        premium: the rule of that table; so are `bucket`, `charge`, `quantity` and `price`.
        basis: what the cost was made of: "usage", "flat" or "none".
    """

    __slots__ = (
        *("basis", "bucket", "charge", "premium", "price", "quantity"),
        *("_cost", "_features", "_rulings", "_sha256"),
    )

    def __init__(self, rules: RuleSet, features: Features, cost: Rule) -> None:
        self.basis = features["basis"]
        self.premium = rules.first("premium", features)
        self.bucket = rules.first("bucket", features)
        self.charge = rules.first("charge", features)
        self.quantity = rules.first("quantity", features)
        self.price = rules.first("price", features)
        self._features = features
        self._cost = cost
        self._sha256 = rules.sha256
        self._rulings: dict[tuple[str, ...], Ruling] = {}

    def ruling(self, rule_ids: tuple[str, ...]) -> Ruling:
        """The ruling in which these owner and charge rules decided."""
        found = self._rulings.get(rule_ids)
        if found is None:
            features = self._features
            found = self._rulings[rule_ids] = Ruling(
                cause=features["cause"],
                initiator=features["initiator"],
                outcome=features["outcome"],
                bucket=self.bucket.then,
                rules=rule_ids,
                cost_rule=self._cost.id,
                bucket_rule=self.bucket.id,
                is_money=self._cost.then != "none",
                rules_sha256=self._sha256,
                features=features,
            )
        return found


class Standing:
    """What the tables say of an event before it is known whose it is.

    Attributes:
        cost: the rule of the cost table.
        owner: the rule of the owner table.
        cause: the cause, said or derived.
        is_measured: whether its usage is known.
    """

    __slots__ = ("_courses", "_features", "_rules", "cause", "cost", "is_measured", "owner")

    def __init__(self, rules: RuleSet, features: Features) -> None:
        self.cause = features["cause"]
        self.is_measured = features["usage"] != "missing"
        self.cost = rules.first("cost", features)
        self._features = {**features, "basis": _BASIS.get(self.cost.then, "none")}
        self.owner = rules.first("owner", self._features)
        self._rules = rules
        self._courses: dict[str, Course] = {}

    def owned_by(self, owner: str) -> Course:
        """What follows if this is the owner that the event is listed under."""
        kind = _OWNER.get(owner, "tenant")
        found = self._courses.get(kind)
        if found is None:
            features = {**self._features, "owner": kind}
            found = self._courses[kind] = Course(self._rules, features, self.cost)
        return found


_kept: dict[tuple[str, Told], Standing] = {}
_by_features: dict[tuple[str, ...], Standing] = {}
"""Different things told may come to equal features: those share one answer too."""


def standing_of(rules: RuleSet, told: Told) -> Standing:
    """What the tables say of what was told; worked out once, kept up to a bound."""
    key = (rules.sha256, told)
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= _STANDINGS_MAX:
            _kept.clear()
            _by_features.clear()
        features = features_of(told)
        values = (rules.sha256, *features.values())
        found = _by_features.get(values)
        if found is None:
            found = _by_features[values] = Standing(rules, features)
        _kept[key] = found
    return found
