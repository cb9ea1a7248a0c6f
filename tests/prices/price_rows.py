"""Rows and books that the tests of prices share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from costspan.core.prices import PriceBook, PriceRow, Prices

TABLE = {
    "gpt-4o": {"input": "2.50", "output": "10.00", "cache_read": "1.25"},
    "gpt-4o#batch": {"input": "1.25", "output": "5.00"},
    "claude-sonnet-4-5": {
        **{"input": "3.00", "output": "15.00", "cache_read": "0.30"},
        **{"cache_write_5m": "3.75", "cache_write_1h": "6.00"},
    },
}
ALIASES = {"gpt-4o-2024-08-06": "gpt-4o"}
V1 = PriceBook.from_table("v1", TABLE, ALIASES)


def ns(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp()) * 10**9  # type: ignore[arg-type,misc]


def row(model: str = "m", **fields: Any) -> PriceRow:
    return PriceRow(**{"book": "b", "model": model, "rates": {"input": "1"}, **fields})


def book(*rows: PriceRow, id: str = "b", **fields: Any) -> PriceBook:
    return PriceBook(id=id, rows=rows, **fields)


def rate_of(prices: Prices, *query: Any, **more: Any) -> str | None:
    match = prices.find(*query, **more)
    return None if match is None else match.row.rates["input"]
