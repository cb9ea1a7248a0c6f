"""What a usage costs by a row, exactly; what cannot be priced."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st
from price_rows import V1, book, row

from costspan.core.money import PICO
from costspan.core.prices import ContextTier, Prices, is_prompt


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
