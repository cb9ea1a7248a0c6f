"""The same tokens at another price: which component, at which unit price, and whose price it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

from costspan.core.money import format_usd, round_half_even
from costspan.core.prices import Match, PriceBook, PriceRow
from costspan.core.prices.names import canonical_provider, undated
from costspan.core.prices.units import TOKENS_PER_RATE, UNIT_COMPONENTS
from costspan.core.reconcile.naming import Models
from costspan.core.reconcile.recorded import Part
from costspan.core.settle.posting import day_of

Key = tuple[str, str]
Parts = Mapping[Key, Part]
_ABOUT = Fraction(1, 1000)
"""A provider that rounds its amounts comes this close to the price that it means."""

_ROUNDED = 10**9
"""A price off by less than this part of it was rounded, not changed."""


class Effect(NamedTuple):
    """What another price makes of a component: pico-USD that the invoice has more (signed)."""

    kind: str
    money: int
    text: str
    rows: tuple[str, ...]


def met(ours: Parts, theirs: Parts) -> tuple[dict[Key, Part], dict[Key, Part]]:
    """Both sides by what both can tell: tier and component, component alone, or nothing.

    A component whose tiers are not the same on both sides is taken over all its tiers. The part
    ("", "") has the tokens of everything.
    """
    if not any(component for _, component in theirs):
        return _over(ours, lambda _: ("", "")), _over(theirs, lambda _: ("", ""))

    def tiers(parts: Parts, component: str) -> set[str]:
        return {tier for (tier, name), part in parts.items() if name == component and part.quantity}

    names = {name for _, name in (*ours, *theirs)}
    same = {name for name in names if tiers(ours, name) == tiers(theirs, name)}

    def key(at: Key) -> Key:
        return at if at[1] in same else ("", at[1])

    return _over(ours, key), _over(theirs, key)


def _over(parts: Parts, key: Callable[[Key], Key]) -> dict[Key, Part]:
    found: dict[Key, Part] = {}
    for at, part in parts.items():
        to = key(at)
        if to == ("", "") and at[1] in UNIT_COMPONENTS:
            part = Part(0, 0, part.money)  # searches and tokens are not added up
        total = found.setdefault(to, Part())
        total.quantity += part.quantity
        total.unpriced += part.unpriced
        total.money += part.money
    return found


class Of(NamedTuple):
    """What is billed: a model of a provider, at a time (ns UTC) that chooses among our prices."""

    model: str
    provider: str
    at_ns: int
    models: Models

    def price(self, tier: str, component: str) -> Fraction | None:
        """Our unit price, where no event says it."""
        row = self.models.prices.find(
            self.model, self.provider or None, tier or None, at_ns=self.at_ns
        )
        return row.rate(component, {}) if row else None

    def named(self, component: str, paid: Fraction) -> list[PriceRow]:
        """The rows of the model, of any date, tier and context, of a unit price; nearest first."""
        near: list[tuple[Fraction, str, PriceRow]] = []
        for book in self.models.prices.books:
            for row in book.rows:
                theirs = canonical_provider(row.provider)
                if undated(row.model) == self.model and theirs in (None, self.provider):
                    off = min(
                        (abs(rate - paid) for rate in _rates(row, book, component)), default=None
                    )
                    if off is not None and off <= _ABOUT * paid:
                        near.append((off, row.id, row))
        return [row for _, _, row in sorted(near, key=lambda each: each[:2])]


def _rates(row: PriceRow, book: PriceBook, component: str) -> Iterator[Fraction]:
    """The unit prices of a component, in every context tier of a row."""
    match = Match(row, book, ())
    for prompt in (0, *(tier.above_input_tokens + 1 for tier in row.above)):
        rate = match.rate(component, {"input": prompt})
        if rate is not None:
            yield rate


def effects(ours: Parts, theirs: Parts, of: Of) -> Iterator[Effect]:
    """What prices explain, component by component: the rest is of quantities.

    The price effect is (the invoice's unit price - ours) x the invoice's quantity; what is left is
    (its quantity - ours) x our price.
    """
    ours, theirs = met(ours, theirs)
    for (tier, component), billed in sorted(theirs.items()):
        part = ours.get((tier, component), Part())
        if not billed.quantity:
            if effect := _cents(billed.money, part.money):
                yield effect
            continue
        known = part.quantity - part.unpriced
        price = Fraction(part.money, known) if known else None
        if price is None and component:
            price = of.price(tier, component)
        paid = Fraction(billed.money, billed.quantity)
        if price is not None and paid != price:
            effect = _otherwise(tier, component, billed, part, price, of)
            if effect is not None:
                yield effect
        if part.unpriced and billed.money:
            money = round_half_even((paid if price is None else price) * part.unpriced)
            text = f"{part.unpriced:,} {component or 'tokens'} that the books have no price for"
            yield Effect("unpriced", money, text, ())


def _otherwise(
    tier: str, component: str, billed: Part, part: Part, price: Fraction, of: Of
) -> Effect | None:
    """What another unit price than ours makes; None where quantities alone may be behind it."""
    paid = Fraction(billed.money, billed.quantity)
    money = billed.money - round_half_even(price * billed.quantity)
    name = f"{component or 'all tokens'}{f' ({tier})' if tier else ''}"
    if effect := _cents(billed.money, billed.money - money):
        return effect._replace(text=f"{name}: {effect.text}")
    is_same = billed.quantity == part.quantity
    if abs(money) <= 1 or abs(paid - price) * _ROUNDED <= price:
        return Effect("rounding", money, f"{name}: rounded by the provider", ())
    found = of.named(component, paid) if component else []
    if not found and not is_same and (not component or not part.quantity):
        return None  # a mix of components, or of nothing, has no price of its own
    is_unit = component in UNIT_COMPONENTS
    scale, unit = (1, "each") if is_unit else (TOKENS_PER_RATE, "per 1M")
    text = f"{name}: {_usd(price * scale)} {unit} in the books, {_usd(paid * scale)} billed"
    whose = f"; that is the price of {said(found[0])}" if found else "; no price kept here says so"
    return Effect("price", money, text + whose, tuple(row.id for row in found[:3]))


def said(row: PriceRow) -> str:
    """A price row in words."""
    since = "" if row.effective_from is None else f" from {day_of(row.effective_from)}"
    until = "" if row.effective_to is None else f" until {day_of(row.effective_to)}"
    tier = f" tier {row.tier}" if row.tier else " standard tier"
    return f"{row.model}{tier}{since}{until} ({row.book}, row {row.id})"


def _cents(billed: int, meant: int) -> Effect | None:
    """An amount a hundred times, or a hundredth, of what it should be."""
    if not meant or billed not in (100 * meant, Fraction(meant, 100)):
        return None
    times = "a hundred times" if billed == 100 * meant else "a hundredth of"
    text = f"billed is exactly {times} what it should be: cents and dollars are mixed up"
    return Effect("cents_for_dollars", billed - meant, text, ())


def _usd(pico: Fraction) -> str:
    """A price in USD, without digits that say nothing."""
    whole, _, places = format_usd(round_half_even(pico)).partition(".")
    return f"{whole}.{places.rstrip('0').ljust(2, '0')}"
