"""What a tenant's charge book makes of a charge: after every choice that the rules make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from costspan.core.decide.amounts import EVENT_PICO_MAX, Base
from costspan.core.money import round_half_even
from costspan.core.prices import undated
from costspan.core.prices.charges import ChargeBook, Terms
from costspan.core.schema import Observation


class OwnCharges(NamedTuple):
    """What the whole event would be charged to each tenant with an entry; flags say which."""

    bases: dict[str, int]
    flags: list[str]


def own_charges(
    book: ChargeBook,
    tenants: Iterable[str],
    base: Base,
    facts: Observation,
    at_ns: int,
    cost: int,
    knobs: Mapping[str, str],
) -> OwnCharges:
    """The charge of the whole event, in pico-USD, for every tenant the book has an entry of.

    The others' charge is the base. A base that the rules say is zero stays zero for all.
    """
    found = OwnCharges({}, [])
    if base.is_zero_by_rule:
        return found
    models = _models(base, facts)
    for tenant in sorted(tenants):
        if tenant.startswith("@"):
            continue
        terms = book.find(tenant, models, at_ns)
        if terms is None:
            continue
        own = _applied(terms, base, bool(models))
        if own is None:
            found.flags.append("charge_book_not_applied")
            continue
        if own > EVENT_PICO_MAX:
            found.flags.append("charge_overflow")
            continue
        if own > cost and knobs["charge_above_cost"] == "capped":
            found.flags.append("charge_book_capped")
            own = cost
        found.bases[tenant] = own
        found.flags.append(f"CB:{terms.entry.id}")
    return found


def _applied(terms: Terms, base: Base, has_model: bool) -> int | None:
    """None where the entry cannot say: prices without usage, or an amount without a request."""
    if terms.factor is not None:
        return round_half_even(base.amount * terms.factor)
    if terms.fixed is not None:
        return round_half_even(terms.fixed) if has_model else None
    if terms.match is None or base.usage is None:
        return None
    return terms.match.cost(base.usage)


def _models(base: Base, facts: Observation) -> frozenset[str]:
    """The names of the model that the base is a price of, or that was called."""
    if base.match is not None:
        asked = facts.requested_model if base.is_requested else facts.executed_model
        names = {base.match.row.model, asked or facts.requested_model}
    else:
        names = {facts.executed_model or facts.requested_model}
    known = {name for name in names if name is not None}
    return frozenset(known | {undated(name) for name in known})
