"""The ledger's side: what the events of a period add up to at the finest grain an invoice may have.

One pass over the events; what is kept grows with days, models and accounts, never with events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import NamedTuple

import msgspec

from costspan.core.money import split
from costspan.core.prices import Match
from costspan.core.prices.names import canonical_provider, canonical_tier
from costspan.core.prices.units import UNIT_COMPONENTS, is_prompt
from costspan.core.reconcile.naming import Models, Rows
from costspan.core.reconcile.variance import EVIDENCE_MAX, Amounts
from costspan.core.settle.entries import Settled
from costspan.core.settle.posting import day_of, effective_of

_NO_CALLS = frozenset({"request", "tool", "retrieval", "router", "cache", "guardrail"})
"""Kinds that a provider of models bills only if the event says that it is one of its models."""
_TELL_EVERY = 2000
_NOTHING = Amounts()


class Place(NamedTuple):
    """Where an event stands: provider "" if nobody said who, account as the ledger names it."""

    provider: str
    account: str
    day: str
    model: str


class Priced(NamedTuple):
    """What was priced alike: a tier, a price row, and how many of its context tiers."""

    tier: str
    row: str
    level: int


class Part(msgspec.Struct):
    """Quantities and pico-USD of one component at one tier; `unpriced` ones are in no money."""

    quantity: int = 0
    unpriced: int = 0
    money: int = 0


class Noted(msgspec.Struct):
    """Events of one kind: how many, a few of their ids, and what they stand for."""

    count: int = 0
    events: list[str] = []
    amounts: Amounts = Amounts()

    def add(self, event_id: str, amounts: Amounts = _NOTHING) -> None:
        """Note an event."""
        self.count += 1
        self.amounts = self.amounts.plus(amounts)
        if len(self.events) < EVIDENCE_MAX:
            self.events.append(event_id)

    def merge(self, other: Noted) -> None:
        """Note others too."""
        self.count += other.count
        self.amounts = self.amounts.plus(other.amounts)
        self.events = [*self.events, *other.events][:EVIDENCE_MAX]


class Recorded(msgspec.Struct):
    """What the events of one place add up to.

    `amounts.requests` are calls that the provider served for certain; what may or may not have
    been is in `noted`, by kind: open, swept, unknown_stream, missing_usage, unpriced, estimated,
    silent_retry (its requests are the hidden attempts that were told), blind (whose client may
    hide attempts), batch, some (of whatever cost), crossing (began on this day, ended on the next).
    """

    amounts: Amounts = Amounts()
    priced: dict[Priced, dict[str, int]] = {}
    costs: dict[Priced, int] = {}
    unpriced: dict[str, dict[str, int]] = {}
    noted: dict[str, Noted] = {}

    def note(self, kind: str, event_id: str, amounts: Amounts = _NOTHING) -> None:
        """Note an event of a kind."""
        self.noted.setdefault(kind, Noted()).add(event_id, amounts)

    def count(self, kind: str) -> int:
        """How many events of a kind."""
        found = self.noted.get(kind)
        return 0 if found is None else found.count

    def merge(self, other: Recorded) -> None:
        """Add another place to this one."""
        self.amounts = self.amounts.plus(other.amounts)
        for key, usage in other.priced.items():
            _add(self.priced.setdefault(key, {}), usage)
            self.costs[key] = self.costs.get(key, 0) + other.costs[key]
        for tier, usage in other.unpriced.items():
            _add(self.unpriced.setdefault(tier, {}), usage)
        for kind, noted in other.noted.items():
            self.noted.setdefault(kind, Noted()).merge(noted)

    def take(self, component: str, rows: Rows) -> Recorded:
        """Take one component out: what it comes to stands in the result alone, without requests."""
        taken = Recorded()
        for key, usage in self.priced.items():
            if component in usage:
                pico = _shares(key, usage, self.costs[key], rows).get(component, 0)
                taken.priced[key] = {component: usage.pop(component)}
                taken.costs[key] = pico
                self.costs[key] -= pico
                tokens = tokens_of(taken.priced[key])
                taken.amounts = taken.amounts.plus(Amounts(0, tokens, pico))
        for tier, usage in self.unpriced.items():
            if component in usage:
                taken.unpriced[tier] = {component: usage.pop(component)}
                tokens = tokens_of(taken.unpriced[tier])
                taken.amounts = taken.amounts.plus(Amounts(0, tokens))
        self.amounts = self.amounts.minus(taken.amounts)
        return taken

    def parts(self, rows: Rows) -> dict[tuple[str, str], Part]:
        """(tier, component) -> what it comes to; the money adds up to what the books have.

        The cost of an event is one amount: it is split over components by their rates, exactly.
        What no row priced (a flat cost) is of component "".
        """
        parts: dict[tuple[str, str], Part] = {}

        def part(tier: str, component: str) -> Part:
            return parts.setdefault((tier, component), Part())

        for key, usage in self.priced.items():
            for component, quantity in usage.items():
                part(key.tier, component).quantity += quantity
            for component, pico in _shares(key, usage, self.costs[key], rows).items():
                part(key.tier, component).money += pico
        for tier, usage in self.unpriced.items():
            for component, quantity in usage.items():
                part(tier, component).unpriced += quantity
                part(tier, component).quantity += quantity
        return parts


def _shares(key: Priced, usage: Mapping[str, int], cost: int, rows: Rows) -> dict[str, int]:
    """Component -> its pico-USD of a cost."""
    match = rows.match(key.row) if key.row else None
    rates = {} if match is None else _rates(match, key.level)
    weights = {name: rates.get(name, Fraction(0)) * many for name, many in usage.items()}
    if not any(weights.values()):
        return {"": cost} if cost else {}
    return split(cost, weights)


def _rates(match: Match, level: int) -> dict[str, Fraction]:
    """The relative rates of a row once so many of its context tiers hold."""
    rates = dict(match.row.rates)
    for tier in match.row.above[:level]:
        rates |= tier.rates
    return {
        name: Fraction(text) * (10**6 if name in UNIT_COMPONENTS else 1)
        for name, text in rates.items()
    }


def level_of(match: Match, usage: Mapping[str, int]) -> int:
    """How many context tiers of a row hold for a request of this usage."""
    if not match.row.above:
        return 0
    prompt = sum(many for name, many in usage.items() if is_prompt(name))
    return sum(prompt > tier.above_input_tokens for tier in match.row.above)


def tokens_of(usage: Mapping[str, int]) -> int:
    """The tokens of a usage; images, searches and the like are none."""
    return sum(many for name, many in usage.items() if name not in UNIT_COMPONENTS)


class Biller(NamedTuple):
    """Who bills an event to which account: provider canonical, "" if nobody said who."""

    provider: str
    account: str


def biller_of(each: Settled, rows: Rows) -> Biller | None:
    """Who bills an event, as it says itself or by the row that priced it; None if nobody does."""
    facts, decision = each.event.facts, each.decision
    if facts.provider_billed is False or facts.cache == "exact":
        return None
    if decision is not None and not decision.is_money:
        return None
    name = facts.executed_model or facts.requested_model
    if facts.kind in _NO_CALLS and not name and not facts.provider:
        return None
    provider = canonical_provider(facts.provider) or ""
    if not provider and decision is not None and decision.price_row:
        match = rows.match(decision.price_row)
        provider = canonical_provider(match.row.provider if match else None) or ""
    return Biller(provider, facts.provider_account or "")


class Telemetry:
    """Reads the events of a period, and says of each where it stands."""

    def __init__(self, period: str, models: Models, rows: Rows) -> None:
        self._period = period
        self._models = models
        self._rows = rows

    def place_of(self, each: Settled) -> Place | None:
        """Where an event stands; None if it is of another period, or no provider bills it."""
        period, day = effective_of(each.event, each.decision)
        if period != self._period:
            return None
        biller = biller_of(each, self._rows)
        if biller is None:
            return None
        facts = each.event.facts
        name = facts.executed_model or facts.requested_model
        return Place(*biller, day, self._models.named(name, biller.provider))

    def read(self, events: Iterable[Settled], tell: Callable[[int], None]) -> dict[Place, Recorded]:
        """What the events of the period add up to; `tell` how many were looked at so far."""
        found: dict[Place, Recorded] = {}
        for number, each in enumerate(events, 1):
            if number % _TELL_EVERY == 0:
                tell(number)
            place = self.place_of(each)
            if place is not None:
                self._add(found.setdefault(place, Recorded()), each, place.day)
        return found

    def _add(self, to: Recorded, each: Settled, day: str) -> None:
        facts, decision, id = each.event.facts, each.decision, each.event.id
        usage = {name: many for name, many in (facts.usage or {}).items() if many}
        if each.event.is_open:
            to.note("open", id)
            return
        if each.event.is_swept:
            to.note("swept", id)
            return
        if not usage and facts.flat_cost is None:
            served = facts.provider_result == "ok" and facts.delivery in (None, "delivered")
            to.note("missing_usage" if served else "unknown_stream", id)
            if served:
                to.amounts = to.amounts.plus(Amounts(1))
            return
        cost = None if decision is None else decision.cost
        amounts = Amounts(usage.get("requests") or 1, tokens_of(usage), cost or 0)
        to.amounts = to.amounts.plus(amounts)
        to.note("some", id)
        if decision is not None and decision.cause == "batch":
            to.note("batch", id)
        tier = canonical_tier(facts.tier) or ""
        if cost is None:
            _add(to.unpriced.setdefault(tier, {}), usage)
            to.note("unpriced", id, amounts)
        else:
            key = self._priced(decision.price_row if decision else None, tier, usage)
            _add(to.priced.setdefault(key, {}), usage)
            to.costs[key] = to.costs.get(key, 0) + cost
        if facts.usage_source == "estimated":
            to.note("estimated", id, amounts)
        if facts.attempts_hidden is None:
            to.note("blind", id)
        elif facts.attempts_hidden:
            to.note("silent_retry", id, Amounts(facts.attempts_hidden))
        if day and facts.ended_at is not None and day_of(facts.ended_at) > day:
            to.note("crossing", id, amounts)

    def _priced(self, row: str | None, tier: str, usage: Mapping[str, int]) -> Priced:
        match = self._rows.match(row) if row else None
        return Priced(tier, row or "", level_of(match, usage) if match else 0)


def merged(found: Iterable[Recorded]) -> Recorded:
    """All of them together."""
    total = Recorded()
    for each in found:
        total.merge(each)
    return total


def _add(to: dict[str, int], usage: Mapping[str, int]) -> None:
    for name, many in usage.items():
        to[name] = to.get(name, 0) + many
