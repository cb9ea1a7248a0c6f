"""An allocation rule: which pools are shared out, by which method, to whom, and if it is charged.

It is data (TOML), checked as a whole before anything is read, and named by its hash in what it
posts. Where it says nothing, every pool of the platform goes by activity and is not charged; what
is nobody's (`@unattributed`) is only shared out if a rule says so.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, Literal, cast, get_args

import msgspec

from costspan.core.allocate.methods import METHODS, AllocationError, Method
from costspan.core.bounded import Invalid
from costspan.core.money import MoneyError, decimal_of, parse_usd
from costspan.core.names import tenant_id
from costspan.core.schema import Cause

Basis = Literal["cost", "tokens", "requests"]
OTHER = "other"
"""What a rule calls the amounts of the platform that are of no pool."""
UNATTRIBUTED_POOL = "unattributed"
POOLS: tuple[str, ...] = (
    *("faults", "prompt_cache", "idle", "invoice", OTHER, UNATTRIBUTED_POOL),
    *get_args(Cause),
)
"""Every pool that the books can have: the platform's own causes, and those of other origin."""
LONGEST_PREFIX = "longest_prefix"
_OF_METHOD: dict[str, tuple[str, ...]] = {
    "none": (),
    "even": ("tenants", "without"),
    "activity": ("by", "tenants", "without"),
    "weighted": ("weights",),
    "shapley": ("needs", "costs", "without"),
}


class PoolRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one pool is shared out.

    `by` is what counts as activity: the tenants' own direct and agent cost, tokens or requests of
    the period. `weights` are fixed (whole numbers, or decimals as texts). `needs` makes it an
    airport game: USD per tenant, or `longest_prefix` (the longest cached prompt prefix of each);
    `costs` gives a game by every set of tenants ("acme+globex" -> USD). `tenants` are those who
    take part (else every tenant with calls of its own in the period), `without` those who do not.
    `charged` None is as the rule says for all.
    """

    method: Literal["none", "even", "activity", "weighted", "shapley"] = "activity"
    by: Basis = "cost"
    weights: dict[str, int | str] = {}
    needs: dict[str, str] | Literal["longest_prefix"] | None = None
    costs: dict[str, str] = {}
    tenants: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    charged: bool | None = None

    def fixed_weights(self) -> dict[str, Fraction]:
        """The weights of the table, exactly."""
        return {owner: Fraction(decimal_of(weight)) for owner, weight in self.weights.items()}

    def fixed_needs(self) -> dict[str, int]:
        """The needs of the table, in pico-USD."""
        assert isinstance(self.needs, dict)
        return {owner: parse_usd(need) for owner, need in self.needs.items()}

    def fixed_costs(self) -> dict[frozenset[str], int]:
        """What each set of tenants would cost, in pico-USD."""
        return {
            frozenset(part.strip() for part in some.split("+")): parse_usd(cost)
            for some, cost in self.costs.items()
        }


class WholeInvoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An account whose calls nobody records: its whole invoice is brought into pool `invoice`.

    `known_as` are other names of the account: none of them may be on an event, either.
    """

    source: str
    account: str = ""
    known_as: tuple[str, ...] = ()


class AllocationRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole rule: `every` for the platform's pools, `pool` for those that differ from it."""

    name: str = "default"
    charged: bool = False
    every: PoolRule = PoolRule()
    pool: dict[str, PoolRule] = {}
    invoice: tuple[WholeInvoice, ...] = ()

    @property
    def sha256(self) -> str:
        """The hash of the rule, whatever the order and layout of its file."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()

    def of(self, pool: str) -> PoolRule:
        """How a pool is shared out."""
        if pool == UNATTRIBUTED_POOL:
            return self.pool.get(pool, _NEVER)
        return self.pool.get(pool, self.every)

    def is_charged(self, pool: str) -> bool:
        """Whether tenants pay for their shares of a pool."""
        charged = self.of(pool).charged
        return self.charged if charged is None else charged

    def with_method(self, method: Method) -> AllocationRule:
        """This rule with one method for every pool that it shares out.

        What a pool's table says for another method is left aside; one that is not shared out
        (`none`) stays so.
        """
        changed = {
            name: each if each.method in ("none", method) else _as(each, method)
            for name, each in self.pool.items()
        }
        every = self.every if self.every.method in ("none", method) else _as(self.every, method)
        return msgspec.structs.replace(self, every=every, pool=changed)

    def all_charged(self) -> AllocationRule:
        """This rule with every share charged."""
        pools = {
            name: msgspec.structs.replace(each, charged=None) for name, each in self.pool.items()
        }
        every = msgspec.structs.replace(self.every, charged=None)
        return msgspec.structs.replace(self, charged=True, every=every, pool=pools)

    def undone(self) -> AllocationRule:
        """A rule that shares out nothing: what was shared out or brought in is taken back."""
        return AllocationRule(name=f"{self.name} (undone)", every=_NEVER)


_NEVER = PoolRule(method="none")


def _as(rule: PoolRule, method: Method) -> PoolRule:
    who = {name: getattr(rule, name) for name in _OF_METHOD[method] if name in _OF_METHOD["even"]}
    return PoolRule(method=method, charged=rule.charged, **who)


def load_rule(text: str) -> AllocationRule:
    """An allocation rule from TOML.

    Raises:
        AllocationError: for anything a rule cannot say: a field or pool nobody knows, a method
            with another method's fields, weights that are negative or none.
    """
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AllocationError(f"the rule is not a TOML file: {error}") from error
    _refuse_unknown(plain, AllocationRule.__struct_fields__, "field in an allocation rule")
    tables = _table(plain.get("pool", {}), "pool")
    _refuse_unknown(tables, POOLS, "pool")
    for where, each in (("every", plain.get("every", {})), *_named(tables)):
        _check_fields(where, _table(each, where))
    try:
        rule = msgspec.convert(plain, AllocationRule)
    except msgspec.ValidationError as error:
        raise AllocationError(f"the rule cannot be used: {error}") from error
    for where, one in (("every", rule.every), *_named(rule.pool)):
        try:
            _check_values(where, one)
        except MoneyError as error:
            raise AllocationError(f"[{where}]: {error}") from error
    return rule


def _named(pools: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(f"pool.{name}", each) for name, each in pools.items()]


def _table(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise AllocationError(f"{where} is {value!r}; write a table: [{where}]")
    return cast("dict[str, Any]", value)


def _check_fields(where: str, plain: Mapping[str, Any]) -> None:
    _refuse_unknown(plain, PoolRule.__struct_fields__, f"field in [{where}]")
    method = plain.get("method", "activity")
    if method not in _OF_METHOD:
        known = ", ".join(("none", *METHODS))
        raise AllocationError(f"[{where}]: method is {method!r}; it can be {known}")
    for name in plain:
        if name not in ("method", "charged", *_OF_METHOD[method]):
            raise AllocationError(f"[{where}]: {name} says nothing to method {method!r}")


def _check_values(where: str, rule: PoolRule) -> None:
    needs = rule.needs if isinstance(rule.needs, dict) else {}
    sets = rule.fixed_costs()
    named = (*rule.weights, *needs, *(rule.tenants or ()), *rule.without)
    for owner in (*named, *(each for some in sets for each in some)):
        try:
            is_plain = tenant_id(owner) == owner
        except Invalid:
            is_plain = False
        if not is_plain:
            raise AllocationError(f"[{where}]: {owner!r} is no tenant")
    if rule.method == "weighted":
        weights = rule.fixed_weights()
        if not any(weight > 0 for weight in weights.values()):
            raise AllocationError(f"[{where}]: method weighted has no weights above zero")
        for owner, weight in weights.items():
            if weight < 0:
                raise AllocationError(f"[{where}]: the weight of {owner!r} is negative")
    if rule.needs is not None and rule.costs:
        raise AllocationError(f"[{where}]: needs and costs are two games; keep one")
    if isinstance(rule.needs, dict) and any(need < 0 for need in rule.fixed_needs().values()):
        raise AllocationError(f"[{where}]: a need is negative")


def _refuse_unknown(given: Iterable[str], known: Iterable[str], what: str) -> None:
    names = tuple(dict.fromkeys(known))
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(names)}"
            raise AllocationError(f"there is no {what} called {name!r}{meant}")
