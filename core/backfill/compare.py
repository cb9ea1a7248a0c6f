"""What a host says its calls cost, beside what the books say: every difference has a cause.

A row is compared with the event that it became, or that it met: what the books hold then is what
they knew better. The first cause that fits is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import msgspec

from costspan.core.backfill.claim import Claim
from costspan.core.prices import Match, Prices
from costspan.core.settle.entries import Settled

_NEAR = 10**8
"""A host computes in floats: off by less than this part, two amounts are the same one, rounded."""

CAUSES: Mapping[str, str] = {
    "same": "the same amount",
    "rounding": "the same amount but for the host's floats",
    "no_price": "the books have no price for the usage",
    "no_usage": "the row has no usage that can be priced",
    "no_spend": "the host recorded no amount at all",
    "zero_for_stream": "the host recorded zero for a stream",
    "zero_recorded": "the host recorded zero for a call that has a price",
    "one_call_of_several_rows": "several rows are one call, which costs once",
    "cache_hit_charged": "the host charged an answer from its cache",
    "not_billed": "the host charged a call that the provider does not bill",
    "margin_or_discount": "the host's amount has its own margin or discount in it",
    "books_saw_more": "the books know the call's usage from a better witness",
    "cached_counted_twice": "the host counted cached tokens twice",
    "cached_at_full_price": "the host took cached tokens at the price of fresh ones",
    "price": "another price of the same usage",
}
"""Cause -> what it means."""


class Line(msgspec.Struct):
    """Rows of one cause and model: what the host says they cost and what the books say."""

    rows: int = 0
    theirs: int = 0
    ours: int = 0

    def add(self, theirs: int, ours: int) -> None:
        """Count one row."""
        self.rows += 1
        self.theirs += theirs
        self.ours += ours


class Comparison:
    """Sums of what was compared."""

    def __init__(self) -> None:
        self.differences: dict[tuple[str, str], Line] = {}
        self.unattributed: dict[str, Line] = {}
        self.all = Line()
        self.met = 0
        self.unmatched: list[str] = []

    def add(self, claim: Claim, found: Settled | None, prices: Prices | None, rows: int) -> None:
        """Compare one row with the event it is part of.

        Args:
            claim: The row.
            found: The event; None if the row is in no event.
            prices: The books in force when the event started.
            rows: How many rows of this host the event has; the event's cost is this row's once.
        """
        theirs = claim.spend or 0
        if found is None:
            self.unmatched.append(claim.seen.oid or "")
            self.all.add(theirs, 0)
            return
        self.met += len(found.event.oid_names) > rows
        decision = found.decision
        # Only the row that the event has its usage from answers for its cost.
        answers = rows == 1 or _is_first(claim, found)
        cost = None if decision is None else decision.cost
        ours = (cost or 0) if answers else 0
        self.all.add(theirs, ours)
        if decision is not None and decision.owner == "@unattributed":
            reason = claim.no_tenant or "the books did not believe the row's tenant"
            self.unattributed.setdefault(reason, Line()).add(theirs, ours)
        cause = "one_call_of_several_rows" if not answers else cause_of(claim, found, cost, prices)
        facts = found.event.facts
        model = facts.executed_model or facts.requested_model or ""
        self.differences.setdefault((cause, model), Line()).add(theirs, ours)


def _is_first(claim: Claim, found: Settled) -> bool:
    oid = claim.seen.oid or ""
    source = oid.rpartition(":")[0].split(":")[:2]
    return oid == min(n for n in found.event.oid_names if n.split(":")[:2] == source)


def cause_of(claim: Claim, found: Settled, cost: int | None, prices: Prices | None) -> str:
    """Why the host's amount is not the books' (or that it is)."""
    theirs, facts = claim.spend, found.event.facts
    if cost is None:
        return "no_price" if facts.usage else "no_usage"
    if theirs is None:
        return "no_spend" if cost else "same"
    if theirs == cost:
        return "same"
    if _near(theirs, cost):
        return "rounding"
    if theirs == 0:
        return "zero_for_stream" if claim.is_streamed else "zero_recorded"
    if cost == 0:
        return "cache_hit_charged" if facts.cache else "not_billed"
    if claim.before_margin is not None and _near(claim.before_margin, cost):
        return "margin_or_discount"
    if facts.usage != claim.seen.usage:
        return "books_saw_more"
    return _of_cached(facts.usage or {}, theirs, _row_of(found, prices)) or "price"


def _near(one: int, other: int) -> bool:
    return abs(one - other) <= max(1, max(abs(one), abs(other)) // _NEAR)


def _row_of(found: Settled, prices: Prices | None) -> Match | None:
    facts = found.event.facts
    name = facts.executed_model or facts.requested_model
    if prices is None or name is None:
        return None
    terms = (facts.provider, facts.tier, facts.region, None, found.event.at_ns or 0)
    return prices.find(name, *terms, facts.price_book)


_CACHED = ("cache_read", "cache_write_5m", "cache_write_1h")


def _of_cached(usage: Mapping[str, int], theirs: int, row: Match | None) -> str | None:
    """Whether the amount is that of cached tokens taken for fresh ones, or counted as both."""
    cached = sum(usage.get(name, 0) for name in _CACHED)
    if row is None or not cached:
        return None
    whole = {**usage, "input": usage.get("input", 0) + cached}
    plain = {name: count for name, count in whole.items() if name not in _CACHED}
    for told, cause in ((whole, "cached_counted_twice"), (plain, "cached_at_full_price")):
        exact = row.price(told)
        if exact is not None and abs(Fraction(theirs) - exact) * _NEAR <= exact + _NEAR:
            return cause
    return None
