"""What a page tells of tokens and prices: who counted what, quantity x rate, what was charged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from costspan.core.prices import ChargeEntry
from costspan.core.prices.units import UNIT_COMPONENTS
from costspan.core.read import words
from costspan.core.read.explain import Explained
from costspan.core.read.priced import Part, Priced, RowInTime

_HISTORY_MAX = 6


def counted(node: Explained) -> Iterator[tuple[str, bool]]:
    """(what one source counted, whether it is what the event is priced by)."""
    many = len(node.counted) > 1
    for one in node.counted:
        if one.usage:
            use = "" if not many else (", used" if one.is_kept else ", not used")
            yield f"{_quantities(one.usage)} ({one.usage_source}, from {one.who}{use})", one.is_kept
        if one.delivered:
            yield f"{_quantities(one.delivered)} delivered ({one.who})", True


def _quantities(usage: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {many:,}" for name, many in sorted(usage.items()))


def price_facts(label: str, price: Priced) -> Iterator[tuple[str, str]]:
    """A price row: where from, what it makes of each component, its place in time."""
    name = f"{price.model}{f' tier {price.tier}' if price.tier else ''}"
    book = f"{price.book}{f' {price.version}' if price.version else ''}"
    dates = words.span(price.effective_from, price.effective_to)
    yield label, f"{name} in book {book}, valid {dates} (row {price.row})"
    for part in price.parts:
        yield f"  {part.component}", _multiplied(part)
    if price.why and price.why != "exact":
        yield "  found by", price.why
    for threshold, rates in price.above:
        yield "  longer", f"prompts above {threshold:,} tokens: {_rates(rates)}"
    yield from (("  history", text) for text in _history(price))
    yield from (("  other book", text) for text in price.others)
    for start, text in price.since:
        since = "the first books" if start <= 0 else f"the books since {words.day(start)}"
        yield "  elsewhere", f"{since} would say {text}"


def charged_by(entry: ChargeEntry) -> str:
    """What an entry of a charge book says: how much, to whom, of what, and when."""
    tenant = entry.tenant or "every tenant without an entry of its own"
    span = words.span(entry.effective_from, entry.effective_to)
    return f"{_terms(entry)} for {tenant}, {span} (charge book {entry.book}, entry {entry.id})"


def _terms(entry: ChargeEntry) -> str:
    model = f" of {entry.model}" if entry.model else ""
    if entry.factor is not None:
        return f"{entry.factor} x the charge by the rules{model}"
    if entry.fixed is not None:
        return f"{entry.fixed} USD for each request{model}"
    return f"prices of its own{model} ({_rates(entry.rates)})"


def _multiplied(part: Part) -> str:
    if part.rate is None or part.amount is None:
        return f"{part.quantity:,} x no rate: unknown, not free"
    per = "each" if part.is_each else "per 1M"
    return f"{part.quantity:,} x {part.rate} USD {per} = {words.trimmed(part.amount)} USD"


def _rates(rates: Mapping[str, str]) -> str:
    return ", ".join(
        f"{name} {rate}{' each' if name in UNIT_COMPONENTS else ''}"
        for name, rate in sorted(rates.items())
    )


def _history(price: Priced) -> Iterator[str]:
    """The rows before and after, nearest in time; nothing where the price never changed."""
    rows = price.history
    if len(rows) < 2:
        return
    at = next((at for at, row in enumerate(rows) if row.in_force), 0)
    first = max(0, min(at - _HISTORY_MAX // 2, len(rows) - _HISTORY_MAX))
    components = {part.component for part in price.parts}
    for row in rows[first : first + _HISTORY_MAX]:
        yield _in_time(row, components)


def _in_time(row: RowInTime, components: set[str]) -> str:
    rates = {name: rate for name, rate in row.rates.items() if name in components} or row.rates
    mark = "  <- in force then" if row.in_force else ""
    return f"{words.span(row.effective_from, row.effective_to)}: {_rates(rates)}{mark}"
