"""The provider's prices and its bill: exact, and the sum of the truth."""

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from provider_calls import START, Clock

from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.provider.prices import DEFAULT_ALIASES, DEFAULT_PRICES, PriceList

DAY_NS = 86_400 * 10**9

# Rates with seven decimals: a token costs less than a pico-dollar, so rounding shows.
PRICES = {
    **DEFAULT_PRICES,
    "tiny": {"input": "0.0000004", "output": "0.0000003", "cache_read": "0.0000003"},
}


@pytest.fixture
def provider(clock: Clock) -> Iterator[LoopbackProvider]:
    with LoopbackProvider(prices=PRICES, clock=clock) as running:
        yield running
        assert running.bugs == ()


def chat(provider: LoopbackProvider, text: str, model: str = "gpt-4o", **headers: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    url = f"{provider.base_url}/chat/completions"
    httpx.post(url, json=body, headers=headers).raise_for_status()


def costs(provider: LoopbackProvider, **query: Any) -> tuple[httpx.Response, Any]:
    reply = httpx.get(
        f"{provider.base_url}/organization/costs",
        params={"start_time": START, **query},
        headers={"Authorization": "Bearer admin"},
    )
    return reply.raise_for_status(), json.loads(reply.text, parse_float=Decimal)


def amounts(page: Any) -> list[Decimal]:
    return [result["amount"]["value"] for bucket in page["data"] for result in bucket["results"]]


@pytest.mark.parametrize(
    ("components", "pico", "split"),
    [
        ({"input": 1}, 0, {"input": 0}),  # 0.4
        ({"input": 1, "output": 1}, 1, {"input": 1, "output": 0}),  # 0.4 + 0.3 = 0.7
        ({"input": 5, "output": 5}, 4, {"input": 2, "output": 2}),  # 2 + 1.5 = 3.5: half to even
        ({"output": 5}, 2, {"output": 2}),  # 1.5: half to even
        ({"cache_read": 1, "output": 1}, 1, {"cache_read": 1, "output": 0}),  # 0.6: tie by name
        ({}, 0, {}),
    ],
)
def test_prices_round_half_even_once_and_split_exactly(
    components: dict[str, int], pico: int, split: dict[str, int]
) -> None:
    cost = PriceList(PRICES, {}).cost("tiny", "default", components)
    assert (cost.pico, cost.by_component) == (pico, split)


@pytest.mark.parametrize("rate", [0.1, 1, None, "x", "NaN", "-1", "Infinity"])
def test_a_rate_is_a_decimal_string(rate: Any) -> None:
    with pytest.raises(ValueError, match="a rate is"):
        PriceList({"m": {"input": rate}}, {})


def test_names() -> None:
    prices = PriceList(
        {"m": {"input": "1"}, "m#flex": {"input": "2"}, "old": {}},
        {"m-2025-01-01": "m", "m-2024-01-01": "m", "ghost-1": "ghost"},
    )
    assert prices.served_name("m") == "m-2025-01-01"
    assert prices.served_name("m-2024-01-01") == "m-2024-01-01"
    assert prices.served_name("old") == "old"
    assert prices.served_name("m#flex") is None
    assert prices.served_name("ghost-1") is None
    assert prices.served_tier("flex", "m-2024-01-01") == "flex"
    assert prices.served_tier("priority", "m") == "default"
    assert prices.cost("m-2025-01-01", "flex", {"input": 3}).pico == 6 * 10**6


def test_the_invoice_is_the_truth_to_the_pico(provider: LoopbackProvider) -> None:
    for number in range(1, 8):
        chat(provider, f"[[in={number} cached={number // 2} out={number} project=p{number % 2}]]")
        chat(provider, f"[[in={number} cached=1 out={number}]]", model="tiny")
    chat(provider, "[[status=200 in=9 out=9 billed=false]]")
    truth = sum(row.cost_pico for row in provider.truth)
    assert truth == sum(provider.totals(by="model").values())
    assert sum(line.amount_pico for line in provider.invoice()) == truth
    for group in ([], ["line_item"], ["project_id"], ["line_item", "project_id", "api_key_id"]):
        _, page = costs(provider, **{"group_by[]": group})
        assert int(sum(amounts(page), Decimal()).scaleb(12)) == truth


def test_costs_page_in_openais_shape(provider: LoopbackProvider) -> None:
    chat(provider, "[[in=1000 cached=400 out=200]]", **{"OpenAI-Project": "proj_a"})
    chat(provider, "[[in=10 out=1 tier=batch]]", Authorization="Bearer k")
    reply, page = costs(provider, group_by="line_item,project_id")
    assert '"value":0.000500000000,' in reply.text
    assert (page["object"], page["has_more"], page["next_page"]) == ("page", False, None)
    [bucket] = page["data"]
    assert (bucket["object"], bucket["start_time"]) == ("bucket", START)
    assert bucket["end_time"] == START + 86_400
    got = {(r["line_item"], r["project_id"]): r["amount"]["value"] for r in bucket["results"]}
    assert got == {
        ("gpt-4o-2024-08-06, input", "proj_a"): Decimal("0.0015"),
        ("gpt-4o-2024-08-06, cached input", "proj_a"): Decimal("0.0005"),
        ("gpt-4o-2024-08-06, output", "proj_a"): Decimal("0.002"),
        ("gpt-4o-2024-08-06, batch input", None): Decimal("0.0000125"),
        ("gpt-4o-2024-08-06, batch output", None): Decimal("0.000005"),
    }
    assert {r["amount"]["currency"] for r in bucket["results"]} == {"usd"}
    assert {r["object"] for r in bucket["results"]} == {"organization.costs.result"}
    assert {r["quantity"] for r in bucket["results"]} == {600, 400, 200, 10, 1}


def test_days_and_pages(provider: LoopbackProvider, clock: Clock) -> None:
    for day in (0, 0, 2, 9):
        clock.now = START * 10**9 + day * DAY_NS + 5
        chat(provider, "[[in=1 out=0]]")
    seen, page, query = [], {"next_page": "page_0"}, {"limit": 4}
    while page["next_page"]:
        _, page = costs(provider, page=page["next_page"], **query)
        assert len(page["data"]) <= 4
        seen += page["data"]
    assert [bucket["start_time"] for bucket in seen] == [START + d * 86_400 for d in range(10)]
    paid = [sum(r["amount"]["value"] for r in bucket["results"]) for bucket in seen]
    assert [amount / Decimal("0.0000025") for amount in paid] == [2, 0, 1, 0, 0, 0, 0, 0, 0, 1]
    _, short = costs(provider, end_time=START + 86_400)
    assert len(short["data"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        {"start_time": ""},
        {"limit": 181},
        {"limit": 0},
        {"bucket_width": "1h"},
        {"group_by": "tenant"},
        {"page": "second"},
    ],
)
def test_a_bad_query_is_a_400(provider: LoopbackProvider, query: dict[str, Any]) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        costs(provider, **query)


def test_the_bill_needs_a_key(provider: LoopbackProvider) -> None:
    for path in ("costs", "usage/completions"):
        reply = httpx.get(f"{provider.base_url}/organization/{path}?start_time=1")
        assert reply.status_code == 401


def test_the_real_client_reads_costs_and_usage(provider: LoopbackProvider) -> None:
    with openai.OpenAI(base_url=provider.base_url, api_key="k", admin_api_key="a") as client:
        provider.fail_model("gpt-4o", status=429)  # Its retry is the client's own matter.
        for text in ("[[in=1000 cached=400 out=200]]", "[[in=1 out=2]]"):
            messages: list[Any] = [{"role": "user", "content": text}]
            client.chat.completions.create(model="gpt-4o", messages=messages, user="u1")
        client.embeddings.create(model="text-embedding-3-small", input="a b c")
        usage = client.admin.organization.usage
        paid = usage.costs(start_time=START, group_by=["line_item"])
        assert len(paid.data[0].results) == 4
        [used] = usage.completions(start_time=START, group_by=["model", "user_id"]).data[0].results
        [embedded] = usage.embeddings(start_time=START, bucket_width="1h").data[0].results
    assert used.object == "organization.usage.completions.result"
    assert embedded.object == "organization.usage.embeddings.result"
    assert (used.model, used.user_id) == ("gpt-4o-2024-08-06", "u1")
    assert (used.input_tokens, used.input_cached_tokens, used.output_tokens) == (1001, 400, 202)
    assert used.input_uncached_tokens == 601
    assert used.num_model_requests == 2
    assert (embedded.input_tokens, embedded.num_model_requests) == (3, 1)


def test_default_prices_hold_those_of_the_golden_book() -> None:
    """The golden scenarios and the loopback provider speak of the same money."""
    golden = Path(__file__).parents[2] / "golden" / "merge.json"
    if not golden.exists():
        pytest.skip("the golden scenarios are not in this checkout")
    book = json.loads(golden.read_text())
    assert book["price_books"]["v1"].items() <= DEFAULT_PRICES.items()
    assert book["aliases"] == DEFAULT_ALIASES
