from __future__ import annotations

import json
import random
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costspan.core.money import PICO
from costspan.core.prices import (
    ContextTier,
    PriceBook,
    PriceError,
    PriceRow,
    Prices,
    diff,
    is_prompt,
)

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


# Names


@pytest.mark.parametrize(
    ("model", "provider", "why"),
    [
        ("gpt-4o", None, "exact"),
        ("gpt-4o", "openai", "exact"),
        ("gpt-4o", "litellm_proxy", "exact"),
        ("gpt-4o-2024-08-06", "openai", "alias gpt-4o-2024-08-06 -> gpt-4o"),
        ("openai/gpt-4o", None, "provider prefix openai/ stripped"),
        ("azure/gpt-4o", "openai", "provider prefix azure/ stripped"),
        ("models/gpt-4o", "gemini", "provider prefix models/ stripped"),
        (
            "openai/gpt-4o-2024-08-06",
            "openai",
            "provider prefix openai/ stripped, alias gpt-4o-2024-08-06 -> gpt-4o",
        ),
        ("gpt-4o-2024-11-20", None, "date suffix -2024-11-20 stripped"),
        ("gpt-4o-20241120", None, "date suffix -20241120 stripped"),
        ("gpt-4o@20241120", None, "date suffix @20241120 stripped"),
        ("gpt-4o-1120", None, "date suffix -1120 stripped"),
        (
            "openai/gpt-4o-2024-11-20",
            None,
            "provider prefix openai/ stripped, date suffix -2024-11-20 stripped",
        ),
    ],
)
def test_a_name_is_read_as(model: str, provider: str | None, why: str) -> None:
    match = Prices([V1]).find(model, provider)
    assert match is not None
    assert match.row.model == "gpt-4o"
    assert match.why == (f"v1: {why}",)


@pytest.mark.parametrize(
    "model",
    [
        *("fast", "", "gpt-4", "gpt-4o-mini", "gpt-4o-latest", "GPT-4O", "gpt-4o#batch", "/gpt-4o"),
        *("gpt-4o-2024-13-01", "gpt-4o-19991231", "gpt-4o-9999", "gpt-4o-2407", "openai/", "4o"),
        *("gpt-4o ", "-2024-11-20", "gpt-4o-2024-11-20-2024-11-20", "a/b/gpt-4o"),
    ],
)
def test_nothing_is_matched_by_likeness(model: str) -> None:
    assert Prices([V1]).find(model) is None


def test_an_exact_row_goes_before_the_stripped_name() -> None:
    dated = row("m-2024-05-13", rates={"input": "5"})
    assert rate_of(Prices([book(row(), dated)]), "m-2024-05-13") == "5"


def test_the_provider_decides_between_rows() -> None:
    prices = Prices(
        [book(row(provider="openai"), row(provider="azure.ai.openai", rates={"input": "2"}))]
    )
    assert rate_of(prices, "m", "openai") == "1"
    assert rate_of(prices, "m", "azure") == "2"
    assert rate_of(prices, "azure/m") == "2"
    assert rate_of(prices, "m", "groq") is None
    assert rate_of(prices, "m") is None
    (verdict,) = prices.explain("m")
    assert verdict.why == "azure, openai all have m: the provider decides"


def test_the_only_or_the_named_provider_is_assumed() -> None:
    only = row(provider="openai")
    resold = row(provider="openrouter", rates={"input": "2"})
    assert rate_of(Prices([book(only)]), "m") == "1"
    both = book(only, resold, defaults={"m": "openai"})
    assert rate_of(Prices([both]), "m") == "1"
    resold_only = book(resold, defaults={"m": "openai"})
    assert rate_of(Prices([resold_only]), "m") is None


def test_a_prefix_that_names_a_provider_of_the_book_is_that_provider() -> None:
    resold = row("openai/m", provider="openrouter", rates={"input": "2"})
    prices = Prices([book(row(provider="openai"), resold)])
    assert rate_of(prices, "openai/m") == "1"
    assert rate_of(prices, "openai/m", "openrouter") == "2"
    assert rate_of(prices, "openrouter/openai/m") == "2"
    assert rate_of(prices, "openai/m", "openai") == "1"


def test_two_providers_named_are_not_reconciled() -> None:
    prices = Prices([book(row(provider="openai"), row(provider="azure"))])
    assert prices.find("azure/m", "openai") is None


def test_a_row_of_the_provider_goes_before_one_for_any() -> None:
    prices = Prices([book(row(), row(provider="azure", rates={"input": "2"}))])
    assert rate_of(prices, "m", "azure") == "2"
    assert rate_of(prices, "m", "openai") == "1"
    assert rate_of(prices, "m") == "1"


def test_aliases_may_be_limited_to_a_provider() -> None:
    aliases = {"azure:prod": "m", "any": "m", "odd:1": "m"}
    prices = Prices([book(row(provider="azure"), row(provider="openai"), aliases=aliases)])
    assert rate_of(prices, "prod", "azure") == "1"
    assert rate_of(prices, "prod") == "1"
    assert rate_of(prices, "prod", "openai") is None
    assert rate_of(prices, "any", "openai") == "1"
    assert rate_of(prices, "odd:1", "openai") == "1"


def test_a_book_may_lump_providers_together() -> None:
    lumped = book(row(provider="google"), providers={"vertex_ai": "google", "gemini": "google"})
    prices = Prices([lumped])
    assert rate_of(prices, "m", "gcp.vertex_ai") == "1"
    assert rate_of(prices, "gemini/m") == "1"
    assert rate_of(prices, "m", "bedrock") is None


# Tiers, regions, endpoints


@pytest.mark.parametrize("tier", [None, "", "default", "standard", "auto", "Standard", " auto "])
def test_the_base_row_has_many_names(tier: str | None) -> None:
    assert rate_of(Prices([V1]), "gpt-4o", tier=tier) == "2.5"


def test_another_tier_needs_its_own_row() -> None:
    prices = Prices([V1])
    assert rate_of(prices, "gpt-4o", tier="batch") == "1.25"
    assert rate_of(prices, "gpt-4o-2024-08-06", tier="BATCH") == "1.25"
    assert prices.find("gpt-4o", tier="flex") is None
    (verdict,) = prices.explain("gpt-4o", tier="flex")
    assert verdict.why == "has gpt-4o, but no row for tier flex"


def test_a_book_without_the_tier_leaves_it_to_the_next() -> None:
    flex = PriceBook.from_table("v2", {"gpt-4o#flex": {"input": "1"}})
    match = Prices([V1, flex]).find("gpt-4o", tier="flex")
    assert match is not None
    assert match.book is flex
    assert match.why == ("v1: has gpt-4o, but no row for tier flex", "v2: exact")
    assert Prices([flex, V1]).find("gpt-4o", tier="priority") is None
    assert rate_of(Prices([flex, V1]), "gpt-4o") == "2.5"


def test_region_and_endpoint_rows_go_before_rows_for_any() -> None:
    prices = Prices(
        [
            book(
                row(),
                row(region="eu", rates={"input": "2"}),
                row(region="eu", endpoint="e", rates={"input": "3"}),
                row("only", region="eu"),
            )
        ]
    )
    assert rate_of(prices, "m") == "1"
    assert rate_of(prices, "m", region="us") == "1"
    assert rate_of(prices, "m", region="eu") == "2"
    assert rate_of(prices, "m", region="eu", endpoint="e") == "3"
    assert prices.find("only", region="us") is None


# Books and time


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


# Pricing


def price(usage: dict[str, int], model: str = "gpt-4o") -> Fraction | None:
    match = Prices([V1]).find(model)
    assert match is not None
    return match.price(usage)


def test_usage_is_priced_exactly() -> None:
    assert price({"input": 1200, "output": 350}) == 6_500_000_000
    assert price({"input": 1, "cache_read": 1, "output": 0}) == 3_750_000
    assert price({"input": 0}) == 0
    assert price({"input": 10**15, "output": 1}) == 10**15 * 2_500_000 + 10_000_000


def test_what_has_no_rate_makes_the_price_unknown() -> None:
    match = Prices([V1]).find("gpt-4o")
    assert match is not None
    assert match.price({"input": 5, "audio_input": 1}) is None
    assert match.missing({"input": 5, "audio_input": 1, "web_searches": 2, "images": 0}) == (
        "audio_input",
        "web_searches",
    )
    assert match.price({"input": 5, "audio_input": 0}) == 12_500_000
    assert match.missing({"input": 5}) == ()


def test_an_empty_usage_is_missing_and_a_negative_one_is_refused() -> None:
    assert price({}) is None
    assert price({"input": -1}) is None


def test_rates_finer_than_a_pico_stay_exact() -> None:
    match = Prices([book(row(rates={"input": "0.0000003"}))]).find("m")
    assert match is not None
    assert match.price({"input": 7}) == Fraction(21, 10)
    assert [match.cost({"input": quantity}) for quantity in (1, 5, 7, 15)] == [0, 2, 2, 4]


def test_units_are_priced_each_and_only_when_named() -> None:
    rates = {"input": "1", "requests": "0.005", "web_searches": "0.01", "custom_tokens": "2"}
    match = Prices([book(row(rates=rates))]).find("m")
    assert match is not None
    assert match.price({"input": 1}) == 10**6
    assert match.price({"requests": 1, "web_searches": 3}) == 35 * PICO // 1000
    assert match.price({"custom_tokens": 5}) == 10**7


def test_the_context_tier_is_chosen_by_the_whole_prompt() -> None:
    tiers = (ContextTier(200, {"input": "3"}), ContextTier(100, {"input": "2", "output": "9"}))
    rates = {"input": "1", "output": "4", "cache_read": "0.5", "audio_input": "8"}
    match = Prices([book(row(rates=rates, above=tiers))]).find("m")
    assert match is not None

    def costs(**usage: int) -> Fraction | None:
        cost = match.price(usage)
        assert match.cost(usage) == cost
        return None if cost is None else Fraction(cost, 10**6)

    assert costs(input=100, output=1000) == 100 + 4000
    assert costs(input=101, output=1) == 202 + 9
    assert costs(input=1, cache_read=100) == 2 + 50
    assert costs(input=1, audio_input=100) == 2 + 800
    assert costs(input=201, output=1) == 603 + 9
    assert match.rate("output", {"input": 100}) == 4 * 10**6
    assert match.rate("output", {"input": 101}) == 9 * 10**6
    assert match.rate("images", {"input": 101}) is None


def test_what_counts_as_prompt() -> None:
    prompt = ["input", "cache_read", "cache_write_5m", "cache_write_1h", "image_input"]
    assert all(map(is_prompt, prompt))
    assert not any(map(is_prompt, ["output", "audio_output", "requests", "duration_ms"]))


components = st.sampled_from(["input", "output", "cache_read", "cache_write_5m", "images"])
decimals = st.decimals(0, 1000, allow_nan=False, allow_infinity=False, places=7).map(str)


@given(
    st.dictionaries(components, decimals, min_size=1),
    st.dictionaries(components, st.integers(0, 10**7), min_size=1),
)
def test_a_price_is_the_sum_of_its_components(rates: dict[str, str], usage: dict[str, int]) -> None:
    match = Prices([book(row(rates=rates))]).find("m")
    assert match is not None
    cost = match.price(usage)
    assert match.cost(usage) == (None if cost is None else round(cost))
    named = {name for name, quantity in usage.items() if quantity}
    assert set(match.missing(usage)) == named - rates.keys()
    if named <= rates.keys():
        per = {name: 1 if name == "images" else 10**6 for name in named}
        assert cost == sum(
            Fraction(Decimal(rates[name])) * usage[name] * PICO / Fraction(per[name])
            for name in named
        )
    else:
        assert cost is None


# Data


def test_content_decides_ids_and_hashes_not_order_or_spelling() -> None:
    rows = [
        row("a", rates={"input": "2.50", "output": "1e1"}),
        row("b", tier="default", above=(ContextTier(2, {"input": "1"}), ContextTier(1, {}))),
    ]
    same = [
        row("b", above=(ContextTier(1, {}), ContextTier(2, {"input": "1.0"}))),
        row("a", rates={"output": "10", "input": "2.5"}),
    ]
    assert {one.id for one in rows} == {one.id for one in same}
    assert book(*rows).sha256 == book(*same).sha256
    random.shuffle(same)
    assert book(*same).sha256 == book(*rows).sha256
    assert row("a").id != row("a", book="c").id != row("a", tier="batch", book="c").id
    assert book(row("a")).sha256 != book(row("a"), aliases={"x": "a"}).sha256
    assert len(row().id) == 16


def test_ids_are_the_same_in_every_process() -> None:
    code = (
        "from costspan.core.prices import PriceBook\n"
        "print(PriceBook.from_table('v1', {'m': {'input': '1.50', 'output': '2'}}).sha256)"
    )
    here = PriceBook.from_table("v1", {"m": {"output": "2.0", "input": "1.5"}}).sha256
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_a_snapshot_reads_back_and_prices_the_same() -> None:
    original = book(
        row(provider="openai", effective_from=5, above=(ContextTier(10, {"input": "2"}),)),
        aliases={"x": "m"},
        defaults={"m": "openai"},
        providers={"p": "openai"},
        source="s",
        source_version="1",
    )
    data = original.to_bytes()
    again = PriceBook.from_bytes(data)
    assert again.sha256 == original.sha256
    assert again.to_bytes() == data
    assert again.rows == original.rows
    assert again == original


def test_a_damaged_snapshot_is_refused() -> None:
    content = json.loads(zlib.decompress(V1.to_bytes()))
    content["rows"][0]["rates"]["input"] = "0.01"
    changed = zlib.compress(json.dumps(content).encode())
    other_schema = zlib.compress(json.dumps({**content, "schema": "x"}).encode())
    for data in (b"", b"x", V1.to_bytes()[:-9], zlib.compress(b"[]"), zlib.compress(b"{}")):
        with pytest.raises(PriceError, match="not a price book snapshot"):
            PriceBook.from_bytes(data)
    with pytest.raises(PriceError, match="was changed"):
        PriceBook.from_bytes(changed)
    with pytest.raises(PriceError, match="schema 'x'"):
        PriceBook.from_bytes(other_schema)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rates": {}}, "no rates"),
        ({"rates": {"input": "free"}}, "m: input: not an amount"),
        ({"rates": {"input": 0.1}}, "not float"),
        ({"rates": {"input": "-1"}}, "cannot be negative"),
        ({"rates": {"input": "NaN"}}, "not an amount"),
        ({"currency": "EUR"}, "only USD"),
        ({"model": ""}, "without a model"),
        ({"effective_from": 5, "effective_to": 5}, "must be before"),
        ({"above": (ContextTier(1, {}), ContextTier(1, {}))}, "distinct thresholds"),
        ({"above": (ContextTier(1, {"input": "x"}),)}, "not an amount"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PriceError, match=message):
        row(**fields)


def test_diff_names_what_moved() -> None:
    before = book(row("same"), row("gone"), row("moved", rates={"input": "1", "output": "2"}))
    after = book(
        row("same", book="n"), row("new"), row("moved", rates={"input": "1", "output": "3"}), id="n"
    )
    changes = diff(before, after)
    assert [(change.kind, change.components) for change in changes] == [
        ("removed", ("input",)),
        ("changed", ("output",)),
        ("added", ("input",)),
    ]
    assert changes[1].before is not None
    assert changes[1].before.model == "moved"
    assert diff(before, before) == []


def test_the_lookup_is_kept_and_bounded() -> None:
    prices = Prices([V1])
    assert prices.find("gpt-4o") is prices.find("gpt-4o", at_ns=5)
    for number in range(5000):
        assert prices.find(f"unknown-{number}") is None
        assert prices.rows(f"unknown-{number}", None, None, None, None, 0, None).executed is None
    for kept in (prices._windows, prices._rows_windows):
        assert kept.cache_info().currsize <= 4096
