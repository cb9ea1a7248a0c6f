"""The loopback provider as the real OpenAI client sees it: replies, usage, tiers and models."""

from typing import Any

import openai
import pytest
from openai.types.responses import EasyInputMessageParam, ResponseFunctionToolCallParam
from openai.types.responses.response_input_param import FunctionCallOutput
from provider_calls import ask, only

from costspan.conformance.provider import LoopbackProvider


def test_plain_chat_tells_inclusive_usage_and_bills_disjoint_components(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    reply = ask(client, "hi [[in=1000 out=200 cached=400 reasoning=50 tenant=acme purpose=plan]]")
    assert reply.model == "gpt-4o-2024-08-06"
    assert reply.service_tier == "default"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1000, 200)
    assert reply.usage.prompt_tokens_details.cached_tokens == 400
    assert reply.usage.completion_tokens_details.reasoning_tokens == 50
    row = only(provider)
    assert (row.requested_model, row.executed_model) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert row.usage == {"input": 600, "cache_read": 400, "output": 200}
    assert row.reasoning == 50
    # 600 x 2.50 + 400 x 1.25 + 200 x 10.00 = 4000 USD per 1M = 0.004 USD.
    assert row.cost_pico == 4_000_000_000
    assert row.component_pico == {
        "input": 1_500_000_000,
        "cache_read": 500_000_000,
        "output": 2_000_000_000,
    }
    assert (row.tenant, row.purpose) == ("acme", "plan")
    assert (row.status, row.billed, row.reported, row.delivery) == (200, True, True, "complete")
    assert row.response_id == reply.id
    assert provider.totals(by="tenant") == {"acme": 4_000_000_000}


def test_without_a_script_usage_is_the_word_count(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    reply = ask(client, "one two three", user="acme")
    assert reply.usage.prompt_tokens == 3
    assert reply.usage.completion_tokens == len(reply.choices[0].message.content.split())
    assert only(provider).tenant == "acme"


def test_stream_tells_usage_only_when_asked(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    text = "[[in=100 out=20]]"
    silent = list(ask(client, text, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in silent)
    told = list(ask(client, text, stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage is not None for chunk in told] == [False] * (len(told) - 1) + [True]
    assert told[-1].choices == []
    assert told[-1].usage.total_tokens == 120
    spoken = "".join(chunk.choices[0].delta.content or "" for chunk in silent)
    assert spoken == ask(client, text).choices[0].message.content
    first, second, _ = provider.truth
    assert (first.reported, second.reported) == (False, True)
    assert first.cost_pico == second.cost_pico == 100 * 2_500_000 + 20 * 10_000_000


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(provider: LoopbackProvider, client: openai.OpenAI, stream: bool) -> None:
    text = """[[in=50 out=9 tool='search:{"q": "a b"}' tool=stop]] [[in=70 out=3]]"""
    reply = ask(client, text, stream=stream)
    calls = collect_calls(reply) if stream else reply.choices[0].message.tool_calls
    assert [(c.function.name, c.function.arguments) for c in calls] == [
        ("search", '{"q": "a b"}'),
        ("stop", "{}"),
    ]
    assert len({c.id for c in calls}) == 2
    said: list[Any] = [
        {"id": c.id, "type": "function", "function": {**c.function}} for c in map(flat, calls)
    ]
    second = client.chat.completions.create(
        model="gpt-4o",
        messages=[
            {"role": "user", "content": text},
            {"role": "assistant", "content": None, "tool_calls": said},
            {"role": "tool", "content": "found", "tool_call_id": calls[0].id},
            {"role": "tool", "content": "done", "tool_call_id": calls[1].id},
        ],
    )
    assert second.choices[0].finish_reason == "stop"
    assert [row.usage for row in provider.truth] == [
        {"input": 50, "output": 9},
        {"input": 70, "output": 3},
    ]


def flat(call: Any) -> Any:
    call.function = {"name": call.function.name, "arguments": call.function.arguments}
    return call


def collect_calls(stream: Any) -> list[Any]:
    calls: dict[int, Any] = {}
    for chunk in stream:
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.id:
                calls[part.index] = part
            else:
                calls[part.index].function.arguments += part.function.arguments
    return list(calls.values())


def test_n_replies_are_one_usage(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    reply = ask(client, "[[in=10 out=30]]", n=2)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.usage.completion_tokens == 30
    streamed = list(ask(client, "[[in=10 out=30]]", n=2, stream=True))
    assert {chunk.choices[0].index for chunk in streamed} == {0, 1}
    assert [row.usage["output"] for row in provider.truth] == [30, 30]


def test_embeddings(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    reply = client.embeddings.create(model="text-embedding-3-small", input=["a b", "c"])
    again = client.embeddings.create(
        model="text-embedding-3-small", input="c", encoding_format="float", dimensions=16
    )
    client.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4]])
    assert reply.usage.prompt_tokens == 3
    assert reply.data[1].embedding == pytest.approx(again.data[0].embedding, abs=1e-6)
    assert [row.usage for row in provider.truth] == [{"input": 3}, {"input": 1}, {"input": 4}]
    assert provider.truth[0].cost_pico == 3 * 20_000


def test_responses_plain_and_streamed(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    text = "[[in=100 out=20 cached=64 reasoning=5]]"
    plain = client.responses.create(model="gpt-4o-mini", input=text)
    assert plain.output_text
    assert plain.usage is not None
    assert plain.usage.input_tokens_details.cached_tokens == 64
    events = list(client.responses.create(model="gpt-4o-mini", input=text, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == plain.output_text
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage == plain.usage
    # 36 x 0.15 + 64 x 0.075 + 20 x 0.60 = 22.2 USD per 1M.
    assert [row.cost_pico for row in provider.truth] == [22_200_000, 22_200_000]


def test_responses_tool_calls_and_turns(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    ask_text: EasyInputMessageParam = {"role": "user", "content": "[[out=7 tool=go]] [[out=1]]"}
    first = client.responses.create(model="gpt-4o", input=[ask_text])
    [call] = first.output
    assert call.type == "function_call"
    assert call.name == "go"
    streamed = client.responses.create(model="gpt-4o", input=[ask_text], stream=True)
    done = [e for e in streamed if e.type == "response.function_call_arguments.done"]
    assert [e.arguments for e in done] == ["{}"]
    output: FunctionCallOutput = {
        "type": "function_call_output",
        "call_id": call.call_id,
        "output": "went",
    }
    given: ResponseFunctionToolCallParam = {
        "type": "function_call",
        "call_id": call.call_id,
        "name": "go",
        "arguments": "{}",
    }
    second = client.responses.create(model="gpt-4o", input=[ask_text, given, output])
    assert second.output_text
    assert second.usage is not None
    assert second.usage.output_tokens == 1


def test_tiers_names_and_ids_as_scripted(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    batch = ask(client, "[[in=10 out=5]]", service_tier="batch")
    assert batch.service_tier == "batch"
    assert ask(client, "x", service_tier="scale").service_tier == "default"
    other = ask(client, "[[model=gpt-4o-mini id=chatcmpl-same in=10 out=5]]")
    same = ask(client, "[[id=chatcmpl-same]]")
    assert other.model == "gpt-4o-mini"
    assert other.id == same.id == "chatcmpl-same"
    assert provider.truth[0].cost_pico == 10 * 1_250_000 + 5 * 5_000_000
    assert provider.truth[2].cost_pico == 10 * 150_000 + 5 * 600_000


def test_audio_tokens_are_components_of_their_own() -> None:
    prices = {"m": {"input": "1", "output": "1", "audio_input": "40", "audio_output": "80"}}
    with (
        LoopbackProvider(prices=prices) as provider,
        openai.OpenAI(base_url=provider.base_url, api_key="k") as client,
    ):
        reply = ask(client, "[[in=10 audio_in=4 out=8 audio_out=3]]", model="m")
        assert reply.usage.prompt_tokens_details.audio_tokens == 4
        row = only(provider)
    assert row.usage == {"input": 6, "audio_input": 4, "output": 5, "audio_output": 3}
    assert row.cost_pico == (6 + 4 * 40 + 5 + 3 * 80) * 10**6


def test_models(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"gpt-4o", "gpt-4o-2024-08-06"} <= set(names)
    assert not any("#" in name for name in names)
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    assert provider.truth == ()
