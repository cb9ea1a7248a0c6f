"""Rules are data: conditions over finite features, one effect, and a reason. First match wins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Literal, get_args

import msgspec

from costspan.core.decide.features import DOMAINS, Features

TableName = Literal["cost", "owner", "premium", "bucket", "charge", "quantity", "price"]

EFFECTS: dict[str, tuple[str, ...]] = {
    "cost": ("none", "zero", "flat", "usage", "unknown"),
    "owner": ("members", "faults", "pool", "tenant", "lineage", "platform", "unattributed"),
    "premium": ("pool", "keep"),
    "bucket": ("platform", "unattributed", "agent", "direct"),
    "charge": ("zero", "cost", "list", "fraction", "priced"),
    "quantity": ("delivered", "used"),
    "price": ("requested", "executed", "lower"),
}
"""Table -> every effect a rule of it may have."""

FALLBACKS: dict[str, str] = {
    "cost": "unknown",
    "owner": "unattributed",
    "premium": "keep",
    "bucket": "agent",
    "charge": "priced",
    "quantity": "used",
    "price": "executed",
}


class Rule(msgspec.Struct, frozen=True):
    """`then` where every feature of `when` has one of its values; `because` is for people."""

    id: str
    when: tuple[tuple[str, frozenset[str]], ...]
    then: str
    because: str
    builtin: bool = True

    def misses(self, features: Features) -> str | None:
        """The first condition that does not hold, as a text for people; None if all hold."""
        for feature, values in self.when:
            if features[feature] not in values:
                wanted = " or ".join(sorted(values))
                return f"{feature} is {features[feature]}, not {wanted}"
        return None


class Tried(msgspec.Struct, frozen=True):
    """One rule that was tried: why it did not match, or None if it decided."""

    table: str
    rule: str
    because: str
    missed: str | None


class RuleSet(msgspec.Struct, frozen=True, dict=True):
    """The seven tables of one profile, with the user's rules in front."""

    profile: str
    knobs: dict[str, str]
    tables: dict[str, tuple[Rule, ...]]

    @cached_property
    def sha256(self) -> str:
        """The hash that a decision names: of the canonical JSON of every table and knob."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def plain(self) -> dict[str, Any]:
        """Every table and knob as plain JSON values."""
        return {
            "profile": self.profile,
            "knobs": self.knobs,
            "tables": {
                name: [
                    {
                        "id": rule.id,
                        "when": {feature: sorted(values) for feature, values in rule.when},
                        "then": rule.then,
                        "because": rule.because,
                        "builtin": rule.builtin,
                    }
                    for rule in rules
                ]
                for name, rules in self.tables.items()
            },
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON, readable by `from_bytes`."""
        return msgspec.json.encode(self.plain(), order="sorted")

    @classmethod
    def from_bytes(cls, data: bytes) -> RuleSet:
        """The rule set that `to_bytes` wrote."""
        plain = msgspec.json.decode(data)
        tables = {
            name: tuple(
                Rule(
                    rule["id"],
                    tuple((f, frozenset(v)) for f, v in sorted(rule["when"].items())),
                    rule["then"],
                    rule["because"],
                    rule["builtin"],
                )
                for rule in plain["tables"][name]
            )
            for name in get_args(TableName)
        }
        return cls(plain["profile"], plain["knobs"], tables)

    def first(self, table: TableName, features: Features) -> Rule:
        """The first rule of a table that matches; memoised on the features the table looks at."""
        looked_at, memo = self._memo[table]
        key = tuple([features[name] for name in looked_at])
        found = memo.get(key)
        if found is None:
            found = next(rule for rule in self.tables[table] if rule.misses(features) is None)
            memo[key] = found
        return found

    @cached_property
    def _memo(self) -> dict[str, tuple[tuple[str, ...], dict[tuple[str, ...], Rule]]]:
        """Table -> (the features it looks at, the rule found for each combination so far)."""
        return {table: (self.looked_at(table), {}) for table in self.tables}

    def looked_at(self, table: str) -> tuple[str, ...]:
        """The features the rules of a table look at."""
        return tuple(
            name
            for name in DOMAINS
            if any(name == feature for rule in self.tables[table] for feature, _ in rule.when)
        )

    def explain(self, table: TableName, features: Mapping[str, str]) -> Iterator[Tried]:
        """Every rule tried, down to the one that decided."""
        for rule in self.tables[table]:
            missed = rule.misses(dict(features))
            yield Tried(table, rule.id, rule.because, missed)
            if missed is None:
                return
