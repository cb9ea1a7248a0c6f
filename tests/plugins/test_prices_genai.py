from __future__ import annotations

import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from genai_prices import Usage
from genai_prices.data import providers

from costspan.core.money import PICO
from costspan.core.prices import PriceBook, PriceRow, Prices
from costspan.plugins.prices import genai

_PROVIDERS = {provider.id: provider for provider in providers}
_NOW = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 10**9
_CONTEXT_KEYS = ("processing", "service_tier", "speed")


@pytest.fixture(scope="module")
def prices() -> Prices:
    return Prices([genai.book()])


def _theirs(row: PriceRow, usage: dict[str, int], at_ns: int) -> Fraction:
    """The package's own price, in pico-USD. Its token totals include what was cached."""
    provider = _PROVIDERS[row.provider or ""]
    model = next(model for model in provider.models if model.id == row.model)
    cached = sum(usage.get(name, 0) for name in ("cache_read", "cache_write_5m", "cache_write_1h"))
    written = usage.get("cache_write_5m", 0) + usage.get("cache_write_1h", 0)
    counts = Usage(
        input_tokens=usage["input"] + cached,
        output_tokens=usage["output"],
        cache_read_tokens=usage.get("cache_read"),
        cache_write_tokens=written or None,
        cache_write_1h_tokens=usage.get("cache_write_1h"),
    )
    when = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at_ns // 1000)
    context = None
    if row.tier:
        whens = (dict(variant.when) for variant in model.price_variants or ())
        context = next(when for when in whens if row.tier in when.values() and len(when) == 1)
    calculated = model.calc_price(
        counts, provider, genai_request_timestamp=when, price_context=context
    )
    return Fraction(calculated.total_price) * PICO


def test_every_row_agrees_with_the_package_itself(prices: Prices) -> None:
    checked = Counter[str]()
    for row in genai.book().rows:
        if not {"input", "output"} <= row.rates.keys():
            checked["not by tokens in and out"] += 1
            continue
        at_ns = row.effective_from or ns_before(row.effective_to)
        match = prices.find(row.model, row.provider, row.tier, at_ns=at_ns)
        assert match is not None
        assert match.row is row, (row, match.row)
        for size in (1_000, 300_000):
            usage = {"input": size, "output": 700}
            for component in ("cache_read", "cache_write_5m", "cache_write_1h"):
                if component in row.rates:
                    usage[component] = size // 10 + 7
            ours = match.price(usage | ({"requests": 1} if "requests" in row.rates else {}))
            # Their division keeps 28 digits; what is left of that is far below a pico.
            assert ours is not None
            assert abs(ours - _theirs(row, usage, at_ns)) < Fraction(1, 1000), row
            checked["tier" if row.tier else "standard"] += 1
    assert checked["standard"] > 1000
    assert checked["tier"] > 50


def ns_before(at_ns: int | None) -> int:
    return _NOW if at_ns is None else at_ns - 1


@pytest.mark.parametrize(
    ("model", "provider", "row_model", "row_provider"),
    [
        ("gpt-4o", None, "gpt-4o", "openai"),
        ("gpt-4o", "openai", "gpt-4o", "openai"),
        ("gpt-4o-2024-08-06", "openai", "gpt-4o", "openai"),
        ("openai/gpt-4o", None, "gpt-4o", "openai"),
        ("openai/gpt-4o", "openrouter", "openai/gpt-4o", "openrouter"),
        ("claude-sonnet-4-5-20250929", None, "claude-sonnet-4-5", "anthropic"),
        ("anthropic/claude-sonnet-4-5", None, "claude-sonnet-4-5", "anthropic"),
        ("claude-sonnet-4-5@20250929", "vertex_ai", "claude-sonnet-4-5", "google"),
        ("gemini-2.5-pro", "gcp.gemini", "gemini-2.5-pro", "google"),
    ],
)
def test_names_that_hosts_report_find_the_model(
    prices: Prices, model: str, provider: str | None, row_model: str, row_provider: str
) -> None:
    match = prices.find(model, provider, at_ns=_NOW - 60 * 86_400 * 10**9)
    assert match is not None
    assert (match.row.model, match.row.provider) == (row_model, row_provider)


@pytest.mark.parametrize(("model", "provider"), [("fast", None), ("gpt-4o", "groq"), ("gpt", None)])
def test_what_is_no_model_finds_nothing(prices: Prices, model: str, provider: str | None) -> None:
    assert prices.find(model, provider, at_ns=_NOW) is None


def test_history_is_kept(prices: Prices) -> None:
    cut = int(datetime(2025, 6, 10, tzinfo=UTC).timestamp()) * 10**9
    before, after = (prices.find("o3", "openai", at_ns=at) for at in (cut - 1, cut))
    assert before is not None
    assert after is not None
    assert (before.row.rates["input"], after.row.rates["input"]) == ("10", "2")


def test_a_name_without_a_provider_is_read_as_the_package_reads_it(prices: Prices) -> None:
    """Whatever is assumed when nobody names the provider is what the package assumes."""
    assumed = 0
    for row in genai.book().rows:
        match = prices.find(row.model, at_ns=_NOW)
        native = next(
            (p.id for p in providers if p.model_match and p.model_match.is_match(row.model)), None
        )
        if match is not None and native is not None and "stripped" not in match.why[0]:
            assert match.row.provider == native
            assumed += 1
    assert assumed > 100


def test_what_cannot_be_said_is_listed() -> None:
    left_out = genai.skipped()
    hourly = left_out["price depends on the time of day"]
    book = genai.book()
    priced = {f"{row.provider}/{row.model}" for row in book.rows}
    listed = {name for names in left_out.values() for name in names}
    assert hourly
    assert not priced & set(hourly)
    assert all(names == tuple(sorted(names)) and names for names in left_out.values())
    every = {f"{provider.id}/{model.id}" for provider in providers for model in provider.models}
    assert every == priced | listed


def test_the_hook_brings_one_book_that_survives_a_snapshot() -> None:
    (book,) = genai.prices()
    assert book is genai.book()
    assert book.id == "genai-prices"
    assert book.source_version
    assert PriceBook.from_bytes(book.to_bytes()).sha256 == book.sha256


def test_without_the_package_there_is_no_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    assert genai.prices() == []
