"""Why a host's amount is not the books': the first cause that fits, each found by computing it.

The mistakes that hosts make with tokens are computed too: if the host's amount is exactly what the
books' own rates give for that mistake, the mistake is the cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

from costspan.core.backfill.claim import Told
from costspan.core.prices import Match, Prices
from costspan.core.settle.entries import Settled

_NEAR = 10**8
"""A host computes in floats: off by less than this part, two amounts are the same one, rounded."""

CAUSES: Mapping[str, str] = {
    "same": "the same amount",
    "rounding": "the same amount but for the host's floats",
    "unmatched": "the row is in no event: several calls have its response id",
    "one_call_of_several_rows": "several rows are one call, which costs once",
    "no_price": "the books have no price for the usage",
    "failed_call": "a failed call: whether the provider billed it, nobody knows",
    "no_usage": "the row has no usage that can be priced",
    "no_spend": "the host recorded no amount that can be one",
    "host_has_no_price": "the host knew no price of the model, or had it for nothing",
    "zero_for_stream": "the host recorded zero for a stream",
    "zero_recorded": "the host recorded zero for a call that has a price",
    "cache_hit_charged": "the host charged an answer from its cache",
    "not_billed": "the host charged a call that the provider does not bill",
    "margin_or_discount": "the host's amount has its own margin or discount in it",
    "tools_charged": "the host's amount has tools in it that the row's usage has not",
    "custom_price": "the host's configuration has a price of its own for the deployment",
    "books_saw_more": "the books know the call's usage from a better witness",
    "cached_counted_twice": "the host counted cached tokens twice",
    "cached_at_full_price": "the host took cached tokens at the price of fresh ones",
    "cached_not_charged": "the host did not charge cached tokens",
    "cache_lifetime": "the host took cache writes of one lifetime at the price of the other",
    "audio_as_text": "the host took audio tokens at the price of text",
    "long_prompt_at_base_price": "the host took a long prompt at the price of a short one",
    "tier": "the host took the price of another service tier",
    "price": "another price of the same usage",
}
"""Cause -> what it means."""


def cause_of(told: Told, found: Settled, cost: int | None, prices: Prices | None) -> str:
    """Why the host's amount is not the books' (or that it is).

    Args:
        told: The row.
        found: The event that it is part of.
        cost: The event's cost in pico-USD; None if unknown.
        prices: The books in force when the event started.
    """
    theirs, facts, said = told.said.spend, found.event.facts, told.said
    if cost is None:
        if facts.usage:
            return "no_price"
        return "failed_call" if found.event.outcome == "failed" else "no_usage"
    if theirs is None:
        return "no_spend" if cost else "same"
    if theirs == cost:
        return "same"
    if _near(theirs, cost):
        return "rounding"
    if theirs == 0:
        if said.has_no_price:
            return "host_has_no_price"
        return "zero_for_stream" if said.is_streamed else "zero_recorded"
    if cost == 0:
        return "cache_hit_charged" if facts.cache else "not_billed"
    for cause, amount in said.without.items():
        if _near(amount, cost):
            return cause
    if said.has_own_price:
        return "custom_price"
    if facts.usage != told.usage:
        return "books_saw_more"
    return _mistake(found, facts.usage or {}, theirs, prices) or "price"


def _near(one: int, other: int) -> bool:
    return abs(one - other) <= max(1, max(abs(one), abs(other)) // _NEAR)


_READ, _WRITES = "cache_read", ("cache_write_5m", "cache_write_1h")
_CACHED = (_READ, *_WRITES)
_AUDIO = {"audio_input": "input", "audio_output": "output"}
_TIERS = (None, "priority", "flex", "batch")


def _mistake(
    found: Settled, usage: Mapping[str, int], theirs: int, prices: Prices | None
) -> str | None:
    facts = found.event.facts
    name = facts.executed_model or facts.requested_model
    if prices is None or name is None:
        return None

    def row(tier: str | None) -> Match | None:
        terms = (facts.provider, tier, facts.region, None, found.event.at_ns or 0)
        return prices.find(name, *terms, facts.price_book)

    own = row(facts.tier)
    if own is not None:
        for cause, told in _mistaken(usage):
            if _is_price(own.price(told), theirs):
                return cause
        if _is_price(_at_base_rates(own, usage), theirs):
            return "long_prompt_at_base_price"
    others = (row(tier) for tier in _TIERS if tier != facts.tier)
    if any(other is not None and _is_price(other.price(usage), theirs) for other in others):
        return "tier"
    return None


def _mistaken(usage: Mapping[str, int]) -> Iterator[tuple[str, Mapping[str, int]]]:
    """The usage as each mistake would have it."""
    cached = sum(usage.get(name, 0) for name in _CACHED)
    if cached:
        fresh = {name: count for name, count in usage.items() if name not in _CACHED}
        all_input = usage.get("input", 0) + cached
        yield "cached_counted_twice", {**usage, "input": all_input}
        yield "cached_at_full_price", {**fresh, "input": all_input}
        yield "cached_not_charged", fresh
        written = sum(usage.get(name, 0) for name in _WRITES)
        for lifetime in _WRITES if written else ():
            yield "cache_lifetime", {**usage, **dict.fromkeys(_WRITES, 0), lifetime: written}
    if any(usage.get(name) for name in _AUDIO):
        as_text = {name: count for name, count in usage.items() if name not in _AUDIO}
        for name, text in _AUDIO.items():
            as_text[text] = as_text.get(text, 0) + usage.get(name, 0)
        yield "audio_as_text", as_text


def _at_base_rates(row: Match, usage: Mapping[str, int]) -> Fraction | None:
    total = Fraction(0)
    for name, count in usage.items():
        rate = row.rate(name, {}) if count else Fraction(0)
        if rate is None:
            return None
        total += rate * count
    return total


def _is_price(exact: Fraction | None, theirs: int) -> bool:
    return exact is not None and abs(theirs - exact) * _NEAR <= max(Fraction(_NEAR), exact)
