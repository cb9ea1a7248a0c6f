"""What a model cost over time: its rows, book by book, and what moved from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from costspan.core.prices.book import PriceBook, PriceRow
from costspan.core.prices.lookup import Prices
from costspan.core.prices.names import canonical_tier


class Step(msgspec.Struct, frozen=True):
    """A row in its place in time.

    Attributes:
        book: id of the book.
        source_version: version of the book's source.
        row: the row.
        moved: component -> (rate before, rate now) against the row of the same terms that holds
            before it; empty for the first one, None where there was no rate.
    """

    book: str
    source_version: str | None
    row: PriceRow
    moved: dict[str, tuple[str | None, str | None]]


def history(
    books: Sequence[PriceBook], model: str, provider: str | None = None, tier: str | None = None
) -> list[Step]:
    """Every row that a name leads to at any time: books in their order, then terms, then time.

    Args:
        books: Where to look, in order of precedence.
        model: The model's name, as the provider or the caller writes it.
        provider: Who bills, if known.
        tier: Of this tier alone ("standard" is the base row); None for all.
    """
    steps: list[Step] = []
    for book in books:
        before: PriceRow | None = None
        for row in sorted(_rows(book, model, provider, tier), key=_order):
            follows = before is not None and _terms(before) == _terms(row)
            moved = _moved(before, row) if before is not None and follows else {}
            steps.append(Step(book.id, book.source_version, row, moved))
            before = row
    return steps


def _rows(book: PriceBook, model: str, provider: str | None, tier: str | None) -> set[PriceRow]:
    prices = Prices([book])
    found: set[PriceRow] = set()
    for terms in {(row.tier, row.region, row.endpoint) for row in book.rows}:
        if tier is not None and canonical_tier(tier) != terms[0]:
            continue
        for verdict in prices.explain(model, provider, *terms):
            found.update(verdict.others)
            found.update(() if verdict.row is None else (verdict.row,))
    return found


def _terms(row: PriceRow) -> tuple[str, ...]:
    terms = (row.provider, row.model, row.tier, row.region, row.endpoint)
    return tuple(term or "" for term in terms)


def _order(row: PriceRow) -> tuple[tuple[str, ...], int, str]:
    start = row.effective_from
    return (_terms(row), -(2**63) if start is None else start, row.id)


def _moved(before: PriceRow, row: PriceRow) -> dict[str, tuple[str | None, str | None]]:
    names = sorted(before.rates.keys() | row.rates.keys())
    pairs = {name: (before.rates.get(name), row.rates.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
