from __future__ import annotations

import subprocess
import sys

import pytest

from costspan.core.prices import PriceBook, Prices
from costspan.plugins.prices import litellm_map


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices([litellm_map.book()])


def test_the_map_is_read_without_importing_litellm() -> None:
    code = (
        "import sys\n"
        "from costspan.plugins.prices import litellm_map\n"
        "(book,) = litellm_map.prices()\n"
        "assert 'litellm' not in sys.modules\n"
        "print(len(book.rows))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 3000


@pytest.mark.parametrize(
    ("model", "provider", "rates"),
    [
        ("gpt-4o", "openai", {"input": "2.5", "output": "10", "cache_read": "1.25"}),
        (
            "claude-sonnet-4-5-20250929",
            "anthropic",
            {"cache_write_5m": "3.75", "cache_write_1h": "6", "web_searches": "0.01"},
        ),
        ("whisper-1", "openai", {"duration_ms": "0.0000001"}),
        ("tts-1", "openai", {"characters": "0.000015"}),
        ("text-embedding-3-small", "openai", {"input": "0.02", "output": "0"}),
    ],
)
def test_rates_are_read_exactly(
    prices: Prices, model: str, provider: str, rates: dict[str, str]
) -> None:
    match = prices.find(model, provider)
    assert match is not None
    assert match.row.rates | rates == match.row.rates


def test_tiers_have_rows_of_their_own(prices: Prices) -> None:
    batch = prices.find("gpt-4o", "openai", "batch")
    assert batch is not None
    assert batch.row.rates["input"] == "1.25"
    assert batch.price({"input": 1, "cache_read": 1}) is None
    assert prices.find("gpt-4o", "openai", "flex") is None


def test_context_tiers_are_read_from_suffixes_and_from_lists(prices: Prices) -> None:
    for model, provider, threshold in (
        ("gemini-2.5-pro", "gemini", 200_000),
        ("qwen-flash", "dashscope", 256_000),
    ):
        match = prices.find(model, provider)
        assert match is not None
        assert [tier.above_input_tokens for tier in match.row.above] == [threshold]


def test_xai_bills_the_higher_tier_from_the_threshold_on() -> None:
    thresholds = {
        tier.above_input_tokens % 1000
        for row in litellm_map.book().rows
        if row.provider == "xai"
        for tier in row.above
    }
    assert thresholds == {999}


def test_a_dated_name_shares_the_row_of_the_model_it_is(prices: Prices) -> None:
    dated, plain = (prices.find(name, "openai") for name in ("gpt-4o-2024-08-06", "gpt-4o"))
    assert dated is not None
    assert plain is not None
    assert dated.row is plain.row
    older = prices.find("gpt-4o-2024-05-13", "openai")
    assert older is not None
    assert older.row.rates["input"] == "5"


@pytest.mark.parametrize("model", ["sample_spec", "fast", "openai/fast"])
def test_what_is_no_model_finds_nothing(prices: Prices, model: str) -> None:
    assert prices.find(model) is None


def test_what_cannot_be_said_is_listed() -> None:
    left_out = litellm_map.skipped()
    assert left_out["no provider"]
    assert left_out["price depends on the time of day"]
    assert all(names == tuple(sorted(names)) and names for names in left_out.values())


def test_the_book_survives_a_snapshot() -> None:
    book = litellm_map.book()
    assert book.source_version
    assert PriceBook.from_bytes(book.to_bytes()).sha256 == book.sha256


def test_without_litellm_there_is_no_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "litellm", raising=False)
    assert litellm_map.prices() == []
