"""The operator's own prices: a TOML file, first in precedence.

    [book]
    id = "contract"          # the name reports use; "contract" if left out
    currency = "USD"

    [aliases]                # another name = the model it prices as; "provider:name" limits it
    "gpt-4o-2024-08-06" = "gpt-4o"

    [[price]]
    model = "gpt-4o"         # required
    provider = "openai"      # left out: whoever bills
    tier = "batch"           # left out: the standard tier; region and endpoint likewise
    effective_from = 2026-01-01   # UTC, first moment in force; left out: always
    effective_to = 2027-01-01     # UTC, first moment no longer in force
    input = "2.50"           # USD per 1M tokens ...
    web_searches = "0.01"    # ... and per one of everything else: a request, a search, an image,
    duration_ms = "0.0000001"  # a character, a page, a millisecond (this is 0.0001 per second)
    output = "10.00"

    [[price.above]]          # the whole request, once its prompt has more tokens than this
    tokens = 200000
    input = "5.00"

Amounts are strings or whole numbers. A TOML float is refused: 0.1 in a file is not 0.1 in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from costspan.core.prices.book import ContextTier, PriceBook, PriceRow
from costspan.core.prices.names import canonical_provider
from costspan.core.prices.tables import (
    ContractError,
    at,
    closest,
    document_of,
    is_tables,
    moment_of,
    only,
    rates_of,
    refuse_overlaps,
    table_of,
    text_of,
)

__all__ = ["ContractError", "load"]

_PRICE_KEYS = (
    *("model", "provider", "tier", "region", "endpoint"),
    *("effective_from", "effective_to", "above"),
)


def load(path: Path) -> PriceBook:
    """The price book written in the TOML file at `path`.

    Raises:
        ContractError: if the file cannot be read, or anything in it is not understood.
    """
    document = document_of(path)
    only(document, ("book", "aliases", "price"), str(path))
    head = table_of(document, "book", str(path))
    only(head, ("id", "currency"), f"{path}: [book]")
    id = text_of(head, "id", f"{path}: [book]") or "contract"
    currency = text_of(head, "currency", f"{path}: [book]") or "USD"
    if currency != "USD":
        raise ContractError(
            f"{path}: [book] currency {currency!r}: only USD can be priced; sums never cross"
            " currencies, and no rate of exchange is guessed: write the prices in USD"
        )
    listed = document.get("price")
    if not is_tables(listed):
        raise ContractError(f"{path}: no prices: write each one under [[price]]")
    rows = [
        _row(id, price, f"{path}: [[price]] {number} ({price.get('model', 'no model')})")
        for number, price in enumerate(listed, 1)
    ]
    refuse_overlaps(rows, _terms, _named, str(path))
    aliases = table_of(document, "aliases", str(path))
    return PriceBook(
        id=id, source=path.name, rows=tuple(rows), aliases=_aliases(aliases, rows, str(path))
    )


def _row(book: str, price: Mapping[str, Any], where: str) -> PriceRow:
    model = text_of(price, "model", where)
    if not model:
        raise ContractError(f'{where}: says no model: add model = "..."')
    above = price.get("above", [])
    if above != [] and not is_tables(above):
        raise ContractError(f"{where}: above: write each context tier under [[price.above]]")
    with at(where):
        return PriceRow(
            book=book,
            model=model,
            provider=text_of(price, "provider", where),
            tier=text_of(price, "tier", where),
            region=text_of(price, "region", where),
            endpoint=text_of(price, "endpoint", where),
            effective_from=moment_of(price, "effective_from", where),
            effective_to=moment_of(price, "effective_to", where),
            rates=rates_of(price, _PRICE_KEYS, where),
            above=tuple(_context_tier(tier, f"{where}: [[price.above]]") for tier in above),
        )


def _context_tier(tier: Mapping[str, Any], where: str) -> ContextTier:
    tokens = tier.get("tokens")
    if type(tokens) is not int or tokens < 0:
        raise ContractError(f"{where}: tokens must be a whole number, such as tokens = 200000")
    return ContextTier(tokens, rates_of(tier, ("tokens",), where))


def _terms(row: PriceRow) -> tuple[str | None, ...]:
    return canonical_provider(row.provider), row.model, row.endpoint, row.region, row.tier


def _named(row: PriceRow) -> str:
    return f"prices for {row.model}" + (f" tier {row.tier}" if row.tier else "")


def _aliases(aliases: Mapping[str, Any], rows: Iterable[PriceRow], where: str) -> dict[str, str]:
    models = {row.model for row in rows}
    read: dict[str, str] = {}
    for alias in aliases:
        model = text_of(aliases, alias, f"{where}: [aliases]") or ""
        if model not in models:
            hint = closest(model, models)
            raise ContractError(
                f"{where}: [aliases] {alias!r} points to {model!r}, which has no [[price]] here"
                f"{hint}: add its price, or remove the alias"
            )
        read[alias] = model
    return read
