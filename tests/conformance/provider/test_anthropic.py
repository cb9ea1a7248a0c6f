"""The loopback provider's Messages API over raw HTTP: usage, order, errors, and the invoice."""

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from anthropic_calls import CACHED, CACHED_PARTS, CACHED_PICO, TOOLS, body, events, post, report
from provider_calls import only

from costspan.adapter import usage
from costspan.conformance.provider import DEFAULT_PRICES, LoopbackProvider


def test_usage_tells_the_cache_apart(provider: LoopbackProvider) -> None:
    reply = post(provider, CACHED)
    assert reply.headers["request-id"].startswith("req_")
    message = reply.json()
    assert message["usage"] == {
        "input_tokens": 450,
        "cache_creation_input_tokens": 150,
        "cache_read_input_tokens": 400,
        "output_tokens": 200,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 50},
        "service_tier": "standard",
    }
    assert (message["type"], message["role"], message["stop_reason"]) == (
        *("message", "assistant", "end_turn"),
    )
    assert message["content"][0]["type"] == "text"
    row = only(provider)
    assert (row.usage, row.cost_pico) == (CACHED_PARTS, CACHED_PICO)
    assert (row.endpoint, row.response_id) == ("/v1/messages", message["id"])
    assert (row.tenant, row.tier, row.reported, row.stream) == ("acme", "default", True, False)
    assert row.api_key_id is not None
    assert usage.from_anthropic(message["usage"]) == CACHED_PARTS


def test_a_stream_in_anthropics_order(provider: LoopbackProvider) -> None:
    found = events(post(provider, CACHED, stream=True))
    found_types = [event["type"] for event in found]
    assert found_types[:3] == ["message_start", "content_block_start", "ping"]
    assert found_types[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    start, delta = found[0]["message"], found[-2]
    assert (start["content"], start["stop_reason"]) == ([], None)
    assert start["usage"]["output_tokens"] == 1
    assert start["usage"]["cache_creation"]["ephemeral_1h_input_tokens"] == 50
    assert delta["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert delta["usage"] == {
        "input_tokens": 450,
        "cache_creation_input_tokens": 150,
        "cache_read_input_tokens": 400,
        "output_tokens": 200,
    }
    assert usage.from_anthropic(start["usage"] | delta["usage"]) == CACHED_PARTS
    spoken = "".join(e["delta"]["text"] for e in found if e["type"] == "content_block_delta")
    assert spoken == post(provider, CACHED).json()["content"][0]["text"]
    assert [(row.cost_pico, row.reported) for row in provider.truth] == [(CACHED_PICO, True)] * 2


def test_tool_use_blocks_plain_and_streamed(provider: LoopbackProvider) -> None:
    plain = post(provider, TOOLS).json()
    assert plain["stop_reason"] == "tool_use"
    text, search, stop = plain["content"]
    assert text == {"type": "text", "text": "let me see"}
    assert (search["name"], search["input"]) == ("search", {"q": "a b"})
    assert (stop["name"], stop["input"]) == ("stop", {})
    assert search["id"].startswith("toolu_")
    assert search["id"] != stop["id"]
    found = events(post(provider, TOOLS, stream=True))
    starts = [e["content_block"] for e in found if e["type"] == "content_block_start"]
    assert [(b["type"], b.get("name"), b.get("input")) for b in starts] == [
        ("text", None, None),
        ("tool_use", "search", {}),
        ("tool_use", "stop", {}),
    ]
    written = {1: "", 2: ""}
    for event in found:
        if event["type"] == "content_block_delta" and event["index"] > 0:
            assert event["delta"]["type"] == "input_json_delta"
            written[event["index"]] += event["delta"]["partial_json"]
    assert written == {1: '{"q": "a b"}', 2: "{}"}
    assert [row.usage for row in provider.truth] == [{"input": 50, "output": 9}] * 2


def test_directives_are_read_in_system_blocks_and_tool_results(provider: LoopbackProvider) -> None:
    asked = {"role": "user", "content": [{"type": "text", "text": "[[tool=go out=7]] [[out=2]]"}]}
    system = [{"type": "text", "text": "you plan [[tenant=acme purpose=plan]]"}]
    [call] = post(provider, "", messages=[asked], system=system).json()["content"]
    result = {"type": "tool_result", "tool_use_id": call["id"]}
    turns = [asked, {"role": "assistant", "content": [call]}]
    for content in ("went [[case=a]]", [{"type": "text", "text": "went [[case=b in=9]]"}]):
        answered = {"role": "user", "content": [result | {"content": content}]}
        reply = post(provider, "", messages=[*turns, answered], system="[[tenant=acme]]")
        assert reply.json()["stop_reason"] == "end_turn"
    seen = [(row.tenant, row.purpose, row.case, row.usage["output"]) for row in provider.truth]
    assert seen[0] == ("acme", "plan", None, 7)
    assert [row[:3] for row in seen[1:]] == [("acme", None, "a"), ("acme", None, "b")]
    assert provider.truth[2].usage["input"] == 9


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_body(provider: LoopbackProvider, status: int, kind: str) -> None:
    reply = post(provider, f"[[status={status} retry_after=2]]", stream=True)
    assert reply.status_code == status
    assert reply.headers["retry-after"] == "2"
    told = reply.json()
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert told["error"]["message"]
    assert told["request_id"] == reply.headers["request-id"]
    assert (only(provider).status, only(provider).billed) == (status, False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": None},
        {"max_tokens": 0},
        {"messages": []},
        {"metadata": "u"},
        {"messages": [{"role": "user", "content": "[[in=1 cached=1 cache_write_1h=1]]"}]},
        {"messages": [{"role": "user", "content": "[[tool=go:{]]"}]},
        {"messages": [{"role": "user", "content": "[[nope=1]]"}]},
    ],
    ids=str,
)
def test_garbage_is_a_400_with_a_row(provider: LoopbackProvider, wrong: dict[str, Any]) -> None:
    reply = post(provider, "x", **wrong)
    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert (only(provider).status, only(provider).billed) == (400, False)


def test_tool_arguments_must_be_an_object(provider: LoopbackProvider) -> None:
    provider.script("array", {"tool": "go:[1]"})
    reply = post(provider, "[[array]]")
    assert reply.status_code == 400
    assert "not a JSON object" in reply.json()["error"]["message"]


def test_unknown_model(provider: LoopbackProvider) -> None:
    reply = post(provider, "x", model="claude-none")
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found_error")


def test_faults_and_times(provider: LoopbackProvider) -> None:
    text = "[[status=529 times=2 in=10 out=5]]"
    assert [post(provider, text).status_code for _ in range(3)] == [529, 529, 200]
    for text in ("[[fault=die in=10 out=5]]", "[[fault=refuse]]"):
        with pytest.raises(httpx.RemoteProtocolError):
            post(provider, text)
    with pytest.raises(httpx.RemoteProtocolError):
        post(provider, "[[fault=die after=3 in=10 out=90]]", stream=True)
    *_, died, refused, cut = provider.truth
    assert (died.billed, refused.billed, refused.status) == (True, False, None)
    assert (cut.delivery, cut.usage) == ("aborted", {"input": 10, "output": 30})  # 3 of 9 chunks


def test_a_late_reply_and_a_client_that_leaves(provider: LoopbackProvider) -> None:
    assert post(provider, "[[fault=timeout delay=0.05 in=10 out=5]]").status_code == 200
    url, asked = f"{provider.url}/v1/messages", "[[fault=timeout after=2 gone=sent in=10 out=90]]"
    with httpx.stream("POST", url, json=body(asked, stream=True)) as reply:
        lines = (line for line in reply.iter_lines() if "text_delta" in line)
        assert [json.loads(next(lines)[6:])["delta"]["text"] for _ in range(2)] == ["This", " is"]
    assert provider.wait_idle()
    row = provider.truth[-1]
    assert (row.delivery, row.usage["output"], row.reported) == ("disconnected", 20, False)


def test_missing_usage_is_billed(provider: LoopbackProvider) -> None:
    assert "usage" not in post(provider, "[[usage=none in=10 out=5]]").json()
    found = events(post(provider, "[[usage=none in=10 out=5]]", stream=True))
    assert not any("usage" in event or "usage" in event.get("message", {}) for event in found)
    cost = 10 * 3_000_000 + 5 * 15_000_000
    assert [(row.reported, row.cost_pico) for row in provider.truth] == [(False, cost)] * 2


def test_names_tiers_thinking_and_users(provider: LoopbackProvider) -> None:
    text = "[[in=5 out=20 reasoning=12 finish=length id=msg_same model=claude-haiku-4-5]]"
    more = {"metadata": {"user_id": "u1"}, "service_tier": "standard_only"}
    message = post(provider, text, **more).json()
    assert (message["id"], message["model"]) == ("msg_same", "claude-haiku-4-5")
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens_details"] == {"thinking_tokens": 12}
    row = only(provider)
    assert (row.user, row.tenant, row.reasoning, row.tier) == ("u1", "u1", 12, "default")
    assert row.cost_pico == 5 * 1_000_000 + 20 * 5_000_000


def test_searches_are_priced_if_the_book_prices_them() -> None:
    prices = {"claude-sonnet-4-5": {**DEFAULT_PRICES["claude-sonnet-4-5"], "web_searches": "0.01"}}
    with LoopbackProvider(prices=prices) as provider:
        told = post(provider, "[[in=10 out=5 web_searches=3]]").json()["usage"]
        row, bill = only(provider), provider.invoice()
        costs = report(provider, "cost_report", row, **{"group_by[]": "description"})
    assert told["server_tool_use"] == {"web_search_requests": 3}
    assert usage.from_anthropic(told) == row.usage == {"input": 10, "output": 5, "web_searches": 3}
    assert row.component_pico["web_searches"] == 3 * 10**10  # $10 per 1000
    assert sum(line.amount_pico for line in bill) == row.cost_pico
    assert {r["cost_type"]: r["amount"] for r in costs if r["cost_type"] != "tokens"} == {
        "web_search": "3.0000000000"  # cents
    }


@pytest.mark.parametrize("word", ["cache_write_1h=1", "web_searches=1"])
def test_openais_wire_does_not_swallow_what_it_cannot_tell(
    provider: LoopbackProvider, word: str
) -> None:
    asked = {**body(f"[[in=5 out=5 {word}]]"), "model": "claude-sonnet-4-5"}
    reply = httpx.post(f"{provider.base_url}/chat/completions", json=asked)
    assert reply.status_code == 400
    assert only(provider).cost_pico == 0


def test_the_invoice_is_the_truth(provider: LoopbackProvider) -> None:
    for number in range(1, 6):
        words = f"cached={number} cache_write={number // 2} cache_write_1h=1 out={number}"
        post(provider, f"[[in={number * 4} {words}]]", stream=bool(number % 2))
    bill = provider.invoice()
    assert sum(line.amount_pico for line in bill) == sum(row.cost_pico for row in provider.truth)
    assert {line.line_item: line.quantity for line in bill} == {
        "claude-sonnet-4-5, input": 60 - 15 - 6 - 5,
        "claude-sonnet-4-5, cached input": 15,
        "claude-sonnet-4-5, cache write input": 6,
        "claude-sonnet-4-5, cache write 1h input": 5,
        "claude-sonnet-4-5, output": 15,
    }
    [used] = report(provider, "usage_report/messages", provider.truth[0])
    assert used["uncached_input_tokens"] == 60 - 15 - 6 - 5
    assert used["cache_creation"] == {
        "ephemeral_5m_input_tokens": 6,
        "ephemeral_1h_input_tokens": 5,
    }
    cents = report(provider, "cost_report", provider.truth[0])
    assert [Decimal(each["amount"]) * 10**10 for each in cents] == [
        sum(line.amount_pico for line in bill)
    ]
