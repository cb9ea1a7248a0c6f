"""Books in order of precedence, and rows over time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from price_rows import V1, book, ns, rate_of, row

from costspan.core.prices import PriceBook, PriceError, Prices


def test_books_answer_in_order_and_one_can_be_asked_alone() -> None:
    v2 = PriceBook.from_table("v2", {"gpt-4o": {"input": "2"}, "new": {"input": "9"}})
    prices = Prices([V1, v2])
    assert rate_of(prices, "gpt-4o") == "2.5"
    assert rate_of(prices, "gpt-4o", book_id="v2") == "2"
    assert rate_of(prices, "new") == "9"
    assert prices.find("new", book_id="v1") is None
    assert prices.find("gpt-4o", book_id="none") is None
    assert prices.book("v2") is v2
    assert prices.book("none") is None
    assert Prices([]).find("gpt-4o") is None
    with pytest.raises(PriceError, match="two price books are called 'v1'"):
        Prices([V1, V1])


def test_windows_are_half_open_and_the_next_book_fills_the_gap() -> None:
    cut, end = ns(2025, 6, 10), ns(2026, 1, 1)
    first = book(
        row(effective_to=cut, rates={"input": "10"}),
        row(effective_from=cut, effective_to=end, rates={"input": "2"}),
    )
    prices = Prices([first, book(row(book="z", rates={"input": "7"}), id="z")])
    assert rate_of(prices, "m", at_ns=cut - 1) == "10"
    assert rate_of(prices, "m", at_ns=cut) == "2"
    assert rate_of(prices, "m", at_ns=end - 1) == "2"
    match = prices.find("m", at_ns=end)
    assert match is not None
    assert match.row.rates == {"input": "7"}
    assert match.why == (
        "b: exact, but no row in force at 2026-01-01T00:00Z "
        "(has ..2025-06-10T00:00Z; 2025-06-10T00:00Z..2026-01-01T00:00Z)",
        "z: exact",
    )
    assert Prices([first]).find("m", at_ns=end) is None
    assert Prices([first]).find("m", at_ns=2**62) is None


def test_of_two_rows_in_force_the_later_start_wins() -> None:
    rows = (row(), row(effective_from=5, rates={"input": "2"}))
    for order in (rows, rows[::-1]):
        prices = Prices([book(*order)])
        assert rate_of(prices, "m", at_ns=4) == "1"
        assert rate_of(prices, "m", at_ns=5) == "2"


spans = st.tuples(st.integers(0, 9) | st.none(), st.integers(10, 19) | st.none())


@given(st.lists(st.lists(spans, max_size=4), max_size=3), st.integers(-1, 20))
def test_the_resolved_windows_agree_with_explain(
    books: list[list[tuple[int | None, int | None]]], at_ns: int
) -> None:
    prices = Prices(
        [
            book(
                *(
                    row(
                        book=str(n), effective_from=start, effective_to=end, rates={"input": str(i)}
                    )
                    for i, (start, end) in enumerate(spans)
                ),
                id=str(n),
            )
            for n, spans in enumerate(books)
        ]
    )
    match = prices.find("m", at_ns=at_ns)
    chosen = [said for said in prices.explain("m", at_ns=at_ns) if said.outcome == "chosen"]
    assert [said.row for said in chosen] == ([] if match is None else [match.row])


terms = st.tuples(
    st.sampled_from(["big", "small"]),
    st.sampled_from([None, "openai", "anthropic"]),
    st.sampled_from([None, "batch"]),
    spans,
)
names = st.sampled_from([None, "big", "big-2024-08-06", "alias", "small", "unknown"])


@given(
    st.lists(terms, max_size=5, unique=True),
    st.tuples(names, names),
    st.sampled_from([None, "openai"]),
    st.sampled_from([None, "batch"]),
    st.integers(-1, 20),
)
def test_the_rows_of_two_names_are_those_that_each_finds(
    rows: list[tuple[str, str | None, str | None, tuple[int | None, int | None]]],
    named: tuple[str | None, str | None],
    provider: str | None,
    tier: str | None,
    at_ns: int,
) -> None:
    """Kept by their names, over all the moments at which anything that they ask may change."""
    own = book(
        *(
            row(model, provider=by, tier=of, effective_from=start, effective_to=end)
            for model, by, of, (start, end) in rows
        ),
        aliases={"alias": "small"},
    )
    prices = Prices([own])
    executed, requested = named

    def find(model: str, tier: str | None) -> Any:
        of_provider = prices.find(model, provider, tier, at_ns=at_ns)
        return of_provider or (
            prices.find(model, None, tier, at_ns=at_ns) if model == requested else None
        )

    found = prices.rows(executed, requested, provider, tier, None, at_ns, None)
    name = executed or requested
    if name is None:
        assert found == (None, None, False)
        return
    assert found.executed is prices.find(name, provider, tier, at_ns=at_ns)
    plain = prices.find(name, provider, at_ns=at_ns)
    asked = None if requested in (None, name) else find(requested, None)
    assert found.substituted == bool(plain and asked and plain.row.id != asked.row.id)
    expected = find(requested, tier) if found.substituted and requested else found.executed
    assert found.requested is expected


def test_explain_says_what_every_book_says() -> None:
    v2 = PriceBook.from_table("v2", {"gpt-4o": {"input": "2"}})
    v3 = PriceBook.from_table("v3", {"x": {"input": "2"}})
    verdicts = Prices([v3, V1, v2]).explain("gpt-4o")
    assert [verdict.outcome for verdict in verdicts] == ["missed", "chosen", "shadowed"]
    assert str(verdicts[0]) == "v3: missed: no row for gpt-4o"
    assert verdicts[1].row is not None
    assert str(verdicts[1]) == (
        "v1: chosen: exact  [any date] cache_read=1.25 input=2.5 output=10 "
        f"(row {verdicts[1].row.id})"
    )


def test_the_lookup_is_kept_and_bounded() -> None:
    prices = Prices([V1])
    assert prices.find("gpt-4o") is prices.find("gpt-4o", at_ns=5)
    for number in range(5000):
        assert prices.find(f"unknown-{number}") is None
        assert prices.rows(f"unknown-{number}", None, None, None, None, 0, None).executed is None
    for kept in (prices._windows, prices._rows_windows):
        assert kept.cache_info().currsize <= 4096
