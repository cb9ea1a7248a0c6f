"""What a name is read as, and which of a model's rows answers."""

from __future__ import annotations

import pytest
from price_rows import V1, book, rate_of, row

from costspan.core.prices import PriceBook, Prices


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
