"""Our price of a usage beside what genai-prices and LiteLLM themselves make of it.

Both libraries are asked, through their own calculations. Every difference to the pico has a row in
a table here that names the reason, and the reason is checked too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from genai_prices import Usage, calc_price

from costspan.core.money import PICO
from costspan.core.prices import Match, Prices
from costspan.plugins.prices import genai, litellm_map

MODELS = [
    *(("gpt-4o", "openai"), ("gpt-4o-mini", "openai"), ("gpt-4.1", "openai"), ("gpt-5", "openai")),
    *(("o3", "openai"), ("o4-mini", "openai"), ("claude-sonnet-4-5", "anthropic")),
    *(("claude-haiku-4-5", "anthropic"), ("claude-opus-4-1", "anthropic")),
    *(("gemini-2.5-pro", "gemini"), ("gemini-2.5-flash", "gemini")),
    *(("mistral-large-latest", "mistral"), ("deepseek-chat", "deepseek")),
    ("llama-3.3-70b-versatile", "groq"),
]
USAGES = {
    "plain": {"input": 1200, "output": 350},
    "cached": {"input": 1000, "output": 100, "cache_read": 400},
    "written": {"input": 700, "output": 100, "cache_read": 300, "cache_write_5m": 200},
    "reasoning": {"input": 500, "output": 900},
    "long": {"input": 250_001, "output": 100},
}
DATES = ("2025-06-01", "2025-06-20", "2026-11-01")

# Rows and tiers of the map alone: (model, provider as LiteLLM names it, service tier).
OF_THE_MAP = [
    ("gpt-4o-2024-08-06", "openai", None),
    ("gpt-4o", "openai", "priority"),
    ("gpt-5", "openai", "flex"),
    ("gpt-4.1", "openai", None),
    ("o3", "openai", None),
    ("claude-sonnet-4-5-20250929", "anthropic", None),
    ("gemini-2.5-pro", "gemini", None),
    ("gemini-2.5-pro", "vertex_ai", None),
    ("claude-sonnet-4-5", "vertex_ai", None),
    ("gpt-4o", "azure", None),
    ("qwen-flash", "dashscope", None),
]
OF_THE_MAP_USAGES = [*USAGES.values(), {"input": 150_000, "output": 9, "cache_read": 60_000}]

# LiteLLM itself is asked in a process of its own: its import is slow and touches global state.
_ASK = """
import json, sys
import litellm
from litellm.types.utils import CacheCreationTokenDetails, PromptTokensDetailsWrapper, Usage
from litellm.types.utils import ModelResponse
costs = []
for model, provider, tier, usage in json.load(sys.stdin):
    cached, written = usage.get("cache_read", 0), usage.get("cache_write_5m", 0)
    prompt = usage["input"] + cached + written
    counts = Usage(prompt_tokens=prompt, completion_tokens=usage["output"],
        total_tokens=prompt + usage["output"],
        prompt_tokens_details=PromptTokensDetailsWrapper(cached_tokens=cached,
            cache_creation_tokens=written,
            cache_creation_token_details=CacheCreationTokenDetails(
                ephemeral_5m_input_tokens=written, ephemeral_1h_input_tokens=0)))
    try:
        costs.append(repr(litellm.completion_cost(ModelResponse(model=model, usage=counts),
            model=model, custom_llm_provider=provider, service_tier=tier)))
    except Exception:
        costs.append(None)
print("COSTS " + json.dumps(costs))
"""


class Asked(NamedTuple):
    """A question to both libraries."""

    model: str
    provider: str
    usage: str
    date: str


QUESTIONS = [
    Asked(model, provider, usage, date)
    for model, provider in MODELS
    for usage in USAGES
    for date in DATES
]


@pytest.fixture(scope="module")
def books() -> Prices:
    """The public lists in their order: what prices an event that no contract does."""
    return Prices([genai.book(), litellm_map.book()])


@pytest.fixture(scope="module")
def litellms() -> Callable[..., Fraction | None]:
    """What LiteLLM's `completion_cost` says, in pico-USD; None if it cannot. It knows no dates."""
    asked: list[list[Any]] = [
        [model, provider, None, usage] for model, provider in MODELS for usage in USAGES.values()
    ]
    asked += [[*terms, usage] for terms in OF_THE_MAP for usage in OF_THE_MAP_USAGES]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _ASK],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    (answer,) = [line for line in ran.stdout.splitlines() if line.startswith("COSTS ")]
    costs = dict(zip(map(json.dumps, asked), json.loads(answer[6:]), strict=True))

    def cost(model: str, provider: str, tier: str | None, usage: dict[str, int]) -> Fraction | None:
        said = costs[json.dumps([model, provider, tier, usage])]
        return None if said is None else Fraction(Decimal(said)) * PICO

    return cost


def at(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 10**9


def found(books: Prices, asked: Asked, book: str | None = None) -> Match | None:
    return books.find(asked.model, asked.provider, at_ns=at(asked.date), book_id=book)


def genais(asked: Asked) -> Fraction | None:
    """What genai-prices says, in pico-USD. Its input includes what was cached."""
    usage = USAGES[asked.usage]
    read, written = usage.get("cache_read"), usage.get("cache_write_5m")
    counts = Usage(
        input_tokens=usage["input"] + (read or 0) + (written or 0),
        output_tokens=usage["output"],
        cache_read_tokens=read,
        cache_write_tokens=written,
    )
    provider = {"gemini": "google"}.get(asked.provider, asked.provider)
    when = datetime.fromisoformat(asked.date).replace(tzinfo=UTC)
    price = calc_price(
        counts, asked.model, provider_id=provider, genai_request_timestamp=when
    ).total_price
    return Fraction(price) * PICO


def agree(ours: Fraction | None, theirs: Fraction | None) -> bool:
    """Theirs may be a float: right to about 1e-15 of the amount, far below a pico here."""
    return ours is not None and theirs is not None and abs(ours - theirs) < Fraction(1, 100)


# Why ours is not theirs: list, model, usage, date ("*" is any) -> the reason, checked below.
EXPLAINED = {
    # Without a rate for what was used, the cost is unknown. Both libraries take the input rate.
    ("*", "*", "written", "*"): "no rate",
    ("*", "mistral-large-latest", "cached", "*"): "no rate",
    ("*", "llama-3.3-70b-versatile", "cached", "*"): "no rate",
    # OpenAI cut the price of o3 to a fifth on 2025-06-10. LiteLLM's map has no history.
    ("litellm", "o3", "*", "2025-06-01"): "history",
    # Longer prompts than 200,000 tokens: the row of genai-prices has a tier, LiteLLM's has none.
    ("litellm", "claude-sonnet-4-5", "long", "*"): "context tier",
    # "latest" is another Mistral Large in LiteLLM's map.
    ("litellm", "mistral-large-latest", "*", "*"): "other rates",
    # Its price depends on the hour: a row cannot say so, so LiteLLM's answers.
    ("genai", "deepseek-chat", "*", "*"): "left out",
    # LiteLLM's map does not have these. It raises, or says that it costs nothing.
    ("litellm", "claude-opus-4-1", "*", "*"): "not in the map",
    ("litellm", "llama-3.3-70b-versatile", "*", "*"): "not in the map",
}


def reasons_for(which: str, asked: Asked) -> list[str]:
    return [
        reason
        for (of, *terms), reason in EXPLAINED.items()
        if of in ("*", which)
        and all(
            term in ("*", said) for term, said in zip(terms, asked[:1] + asked[2:], strict=True)
        )
    ]


def holds(reason: str, books: Prices, asked: Asked, theirs: Fraction | None) -> bool:
    """Whether the reason is one: what it says of the rows is so."""
    usage = USAGES[asked.usage]
    ours, in_map = found(books, asked), found(books, asked, litellm_map.BOOK_ID)
    if reason == "not in the map":
        return in_map is None and not theirs
    if ours is None:
        return False
    row = ours.row
    if reason == "no rate":
        return ours.price(usage) is None and bool(ours.missing(usage))
    if reason == "left out":
        names = [name for some in genai.skipped().values() for name in some]
        return row.book == litellm_map.BOOK_ID and any(asked.model in name for name in names)
    if in_map is None or not agree(in_map.price(usage), theirs):
        return False
    if reason == "history":
        now = found(books, asked._replace(date=DATES[-1]))
        return row.effective_to is not None and now is not None and agree(now.price(usage), theirs)
    if reason == "context tier":
        return usage["input"] > row.above[0].above_input_tokens and not in_map.row.above
    return reason == "other rates" and row.rates != in_map.row.rates


def test_every_difference_to_the_lists_has_a_reason(
    books: Prices, litellms: Callable[..., Fraction | None]
) -> None:
    assert (len(MODELS), len(USAGES), len(DATES)) == (14, 5, 3)
    equal = explained = 0
    for asked in QUESTIONS:
        match, usage = found(books, asked), USAGES[asked.usage]
        ours = None if match is None else match.price(usage)
        for which, theirs in (
            ("genai", genais(asked)),
            ("litellm", litellms(asked.model, asked.provider, None, usage)),
        ):
            if agree(ours, theirs):
                equal += 1
                continue
            reasons = reasons_for(which, asked)
            assert any(holds(reason, books, asked, theirs) for reason in reasons), (
                f"{which} says {theirs} of {asked}, we say {ours} by {match}; reasons: {reasons}"
            )
            explained += 1
    assert equal + explained == 2 * 14 * 5 * 3
    assert equal > 250


def test_a_reason_that_does_not_hold_is_none(books: Prices) -> None:
    """The table cannot explain away a price that is wrong."""
    wrong = Fraction(1)
    for asked in QUESTIONS:
        assert not holds("history", books, asked, wrong)
        assert not holds("context tier", books, asked, wrong)
        assert not holds("other rates", books, asked, wrong)
        assert not holds("not in the map", books, asked, wrong)


def test_o3_before_and_after_its_price_changed(books: Prices) -> None:
    costs = {}
    for date in ("2025-06-09", "2025-06-10"):
        asked = Asked("o3", "openai", "plain", date)
        match = found(books, asked)
        assert match is not None
        costs[date] = match.price({"input": 10**6, "output": 10**6})
        assert agree(match.price(USAGES["plain"]), genais(asked))
    assert costs == {"2025-06-09": 50 * PICO, "2025-06-10": 10 * PICO}


@pytest.mark.parametrize(
    ("more", "rate"), [(-1, "1.25"), (0, "1.25"), (1, "2.5")], ids=["below", "at", "above"]
)
def test_at_the_edge_of_a_context_tier(
    books: Prices, more: int, rate: str, litellms: Callable[..., Fraction | None]
) -> None:
    match = books.find("gemini-2.5-pro", "gemini", at_ns=at("2026-11-01"))
    assert match is not None
    prompt = 200_000 + more
    cost = match.price({"input": prompt - 60_000, "cache_read": 60_000})
    cached = Fraction(rate) / 10
    exact = (prompt - 60_000) * Fraction(rate) * 10**6 + 60_000 * cached * 10**6
    assert cost == exact
    counts = Usage(input_tokens=prompt, output_tokens=0, cache_read_tokens=60_000)
    theirs = calc_price(counts, "gemini-2.5-pro", provider_id="google").total_price
    assert agree(cost, Fraction(theirs) * PICO)


def test_an_alias_and_a_dated_name_have_the_price_of_the_model(books: Prices) -> None:
    asked = Asked("gpt-4o", "openai", "cached", "2026-11-01")
    plain = found(books, asked)
    for name in ("gpt-4o-2024-08-06", "openai/gpt-4o", "gpt-4o-2024-11-20"):
        other = found(books, asked._replace(model=name))
        assert plain is not None
        assert other is not None
        assert other.price(USAGES["cached"]) == plain.price(USAGES["cached"])
        assert agree(other.price(USAGES["cached"]), genais(asked))


def test_a_component_without_a_price_is_unknown_never_nothing(books: Prices) -> None:
    match = books.find("gpt-4o", "openai", at_ns=at("2026-11-01"))
    assert match is not None
    usage = {"input": 10, "audio_output": 3}
    assert (match.price(usage), match.missing(usage)) == (None, ("audio_output",))
    assert match.price({"input": 10, "audio_output": 0}) == 25 * 10**6


def test_what_the_map_alone_prices_agrees_with_litellm_itself(
    litellms: Callable[..., Fraction | None],
) -> None:
    prices = Prices([litellm_map.book()])
    compared = 0
    for model, provider, tier in OF_THE_MAP:
        match = prices.find(model, provider, tier)
        assert match is not None, (model, provider, tier)
        for usage in OF_THE_MAP_USAGES:
            cost = match.price(usage)
            if cost is not None:
                theirs = litellms(model, provider, tier, usage)
                assert agree(cost, theirs), (model, provider, tier, usage, theirs)
                compared += 1
    assert compared > 40
