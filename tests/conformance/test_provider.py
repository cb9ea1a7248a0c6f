"""The loopback provider over its wire: raw HTTP and the real OpenAI client."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from costspan.conformance.provider import LoopbackProvider, Row, Step


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as running:
        yield running
        assert running.wait_idle()
        assert running.bugs == ()


@pytest.fixture
def client(provider: LoopbackProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, text: str, **more: object):
    return client.chat.completions.create(
        **{"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}
    )


def only(provider: LoopbackProvider) -> Row:
    [row] = provider.truth
    return row


def test_plain_chat_tells_inclusive_usage_and_bills_disjoint_components(provider, client):
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


def test_without_a_script_usage_is_the_word_count(provider, client):
    reply = ask(client, "one two three", user="acme")
    assert reply.usage.prompt_tokens == 3
    assert reply.usage.completion_tokens == len(reply.choices[0].message.content.split())
    assert only(provider).tenant == "acme"


def test_stream_tells_usage_only_when_asked(provider, client):
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


def test_raw_stream_frames(provider):
    connection = http.client.HTTPConnection(*provider.url.removeprefix("http://").split(":"))
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    for _ in range(2):  # The connection is kept alive.
        connection.request("POST", "/v1/chat/completions", json.dumps(body))
        reply = connection.getresponse()
        assert reply.getheader("content-type", "").startswith("text/event-stream")
        events = reply.read().decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        first = json.loads(events[0].removeprefix("data: "))
        assert first["object"] == "chat.completion.chunk"
        assert "usage" not in first
    connection.close()
    assert len(provider.truth) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls(provider, client, stream):
    text = """[[in=50 out=9 tool='search:{"q": "a b"}' tool=stop]] [[in=70 out=3]]"""
    reply = ask(client, text, stream=stream)
    calls = collect_calls(reply) if stream else reply.choices[0].message.tool_calls
    assert [(c.function.name, c.function.arguments) for c in calls] == [
        ("search", '{"q": "a b"}'),
        ("stop", "{}"),
    ]
    assert len({c.id for c in calls}) == 2
    said = [{"id": c.id, "type": "function", "function": {**c.function}} for c in map(flat, calls)]
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


def flat(call):
    call.function = {"name": call.function.name, "arguments": call.function.arguments}
    return call


def collect_calls(stream):
    calls = {}
    for chunk in stream:
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.id:
                calls[part.index] = part
            else:
                calls[part.index].function.arguments += part.function.arguments
    return list(calls.values())


def test_n_replies_are_one_usage(provider, client):
    reply = ask(client, "[[in=10 out=30]]", n=2)
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert reply.usage.completion_tokens == 30
    streamed = list(ask(client, "[[in=10 out=30]]", n=2, stream=True))
    assert {chunk.choices[0].index for chunk in streamed} == {0, 1}
    assert [row.usage["output"] for row in provider.truth] == [30, 30]


def test_embeddings(provider, client):
    reply = client.embeddings.create(model="text-embedding-3-small", input=["a b", "c"])
    again = client.embeddings.create(
        model="text-embedding-3-small", input="c", encoding_format="float", dimensions=16
    )
    client.embeddings.create(model="text-embedding-3-small", input=[[1, 2, 3], [4]])
    assert reply.usage.prompt_tokens == 3
    assert reply.data[1].embedding == pytest.approx(again.data[0].embedding, abs=1e-6)
    assert [row.usage for row in provider.truth] == [{"input": 3}, {"input": 1}, {"input": 4}]
    assert provider.truth[0].cost_pico == 3 * 20_000


def test_responses_plain_and_streamed(provider, client):
    text = "[[in=100 out=20 cached=64 reasoning=5]]"
    plain = client.responses.create(model="gpt-4o-mini", input=text)
    assert plain.output_text
    assert plain.usage.input_tokens_details.cached_tokens == 64
    events = list(client.responses.create(model="gpt-4o-mini", input=text, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(deltas) == plain.output_text
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage == plain.usage
    # 36 x 0.15 + 64 x 0.075 + 20 x 0.60 = 22.2 USD per 1M.
    assert [row.cost_pico for row in provider.truth] == [22_200_000, 22_200_000]


def test_responses_tool_calls_and_turns(provider, client):
    ask_text = {"role": "user", "content": "[[out=7 tool=go]] [[out=1]]"}
    first = client.responses.create(model="gpt-4o", input=[ask_text])
    [call] = first.output
    assert (call.type, call.name) == ("function_call", "go")
    streamed = client.responses.create(model="gpt-4o", input=[ask_text], stream=True)
    assert [e.arguments for e in streamed if e.type.endswith("arguments.done")] == ["{}"]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "went"}
    given = {"type": "function_call", "call_id": call.call_id, "name": "go", "arguments": "{}"}
    second = client.responses.create(model="gpt-4o", input=[ask_text, given, output])
    assert second.output_text
    assert second.usage.output_tokens == 1


def test_client_retries_are_seen_one_by_one(provider, client):
    provider.script("flaky", Step(status=503, retry_after=0), "status=429 retry_after=0", "out=5")
    reply = ask(client.with_options(max_retries=2), "[[flaky tenant=acme in=10]]")
    assert reply.usage.completion_tokens == 5
    rows = provider.truth
    assert [(row.status, row.billed, row.retry_count) for row in rows] == [
        (503, False, 0),
        (429, False, 1),
        (200, True, 2),
    ]
    assert {row.tenant for row in rows} == {"acme"}
    assert sum(row.cost_pico for row in rows) == 10 * 2_500_000 + 5 * 10_000_000


def test_in_band_fault_passes_after_its_times(provider, client):
    text = "[[status=500 retry_after=0 times=2 in=10 out=5]]"
    assert ask(client.with_options(max_retries=2), text).usage.total_tokens == 15
    assert [row.status for row in provider.truth] == [500, 500, 200]


def test_a_model_fails_for_a_while_and_the_fallback_serves(provider, client):
    provider.fail_model("gpt-4o", times=2)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            ask(client, "[[in=1 out=1]]")
        ask(client, "[[in=1 out=1]]", model="gpt-4o-mini")
    ask(client, "[[in=1 out=1]]")
    assert [row.status for row in provider.truth] == [503, 200, 503, 200, 200]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
def test_errors_have_the_openai_body(provider, client, status, error):
    with pytest.raises(error) as caught:
        ask(client, f"[[status={status}]]")
    assert caught.value.body["message"]
    assert only(provider).status == status
    assert not only(provider).billed


def test_a_failure_may_cost_money(provider, client):
    with pytest.raises(openai.InternalServerError):
        ask(client, "[[status=500 billed=true in=10 out=5]]")
    row = only(provider)
    assert (row.status, row.billed, row.reported) == (500, True, False)
    assert row.cost_pico == 75_000_000


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_is_billed_though_nobody_reads_it(provider, client, stream):
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.2), "[[fault=timeout in=10 out=5]]", stream=stream)
    assert provider.wait_idle()
    row = only(provider)
    assert (row.billed, row.delivery, row.reported) == (True, "disconnected", False)
    assert row.cost_pico == 75_000_000


def test_a_patient_client_gets_the_late_reply(provider, client):
    assert ask(client, "[[fault=timeout delay=0.05 in=10 out=5]]").usage.total_tokens == 15
    assert only(provider).delivery == "complete"


def test_a_dying_stream_is_billed_for_what_was_sent(provider, client):
    chunks = []
    stream = ask(client, "[[fault=die after=3 in=10 out=90]]", stream=True)
    with pytest.raises(httpx.RemoteProtocolError):
        chunks.extend(stream)  # What came before the end stays in the list.
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 3
    row = only(provider)
    assert row.delivery == "aborted"
    assert row.usage == {"input": 10, "output": 30}  # 3 of 9 chunks.


@pytest.mark.parametrize("fault", ["die", "refuse"])
def test_a_broken_plain_reply(provider, client, fault):
    with pytest.raises(openai.APIConnectionError):
        ask(client, f"[[fault={fault} in=10 out=5]]")
    row = only(provider)
    assert row.delivery == "aborted"
    assert (row.status, row.billed) == ((200, True) if fault == "die" else (None, False))


@pytest.mark.parametrize(("gone", "output"), [("all", 90), ("sent", 20)])
def test_a_client_that_leaves_mid_stream(provider, client, gone, output):
    text = f"[[fault=timeout after=2 gone={gone} in=10 out=90]]"
    with ask(client, text, stream=True) as stream:
        spoken = (chunk.choices[0].delta.content for chunk in stream)
        assert [next(spoken), next(spoken), next(spoken)] == ["", "This", " is"]
    assert provider.wait_idle()
    row = only(provider)
    assert (row.delivery, row.usage["output"]) == ("disconnected", output)


def test_missing_usage_is_billed(provider, client):
    assert ask(client, "[[usage=none in=10 out=5]]").usage is None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(ask(client, "[[usage=none in=10 out=5]]", **options))
    assert all(chunk.choices for chunk in chunks)
    assert [(row.reported, row.cost_pico) for row in provider.truth] == [(False, 75_000_000)] * 2


def test_tiers_names_and_ids_as_scripted(provider, client):
    batch = ask(client, "[[in=10 out=5]]", service_tier="batch")
    assert batch.service_tier == "batch"
    assert ask(client, "x", service_tier="scale").service_tier == "default"
    other = ask(client, "[[model=gpt-4o-mini id=chatcmpl-same in=10 out=5]]")
    same = ask(client, "[[id=chatcmpl-same]]")
    assert other.model == "gpt-4o-mini"
    assert other.id == same.id == "chatcmpl-same"
    assert provider.truth[0].cost_pico == 10 * 1_250_000 + 5 * 5_000_000
    assert provider.truth[2].cost_pico == 10 * 150_000 + 5 * 600_000


def test_unknown_models_and_rates_cost_nothing(provider, client):
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "x", model="gpt-none")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="no rate for 'audio_input'"):
        ask(client, "[[in=10 audio_in=3]]")
    assert [(row.status, row.requested_model, row.billed) for row in provider.truth] == [
        (404, "gpt-none", False),
        (400, "gpt-4o", False),
    ]


def test_audio_tokens_are_components_of_their_own():
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


def test_models(provider, client):
    names = [model.id for model in client.models.list()]
    assert {"gpt-4o", "gpt-4o-2024-08-06"} <= set(names)
    assert not any("#" in name for name in names)
    assert client.models.retrieve("gpt-4o").id == "gpt-4o"
    assert provider.truth == ()


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b'{"model": 3, "messages": []}',
    b'{"model": "gpt-4o"}',
    b'{"model": "gpt-4o", "messages": [1]}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "n": 0}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "[[in=x]]"}]}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "[[nope=1]]"}]}',
    b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "[[in=1 cached=2]]"}]}',
    b"[" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_400_with_a_row(provider, body):
    reply = httpx.post(f"{provider.base_url}/chat/completions", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert (only(provider).status, only(provider).billed) == (400, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"BREW /v1/models HTTP/1.1\r\n\r\n",
        b"GET /v1/chat/completions HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_raw_garbage_gets_an_error_and_an_end(provider, raw):
    host, port = provider.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(raw)
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) in (400, 404, 405, 501)
    assert "error" in json.loads(body)
    assert httpx.get(f"{provider.base_url}/models").status_code == 200


def test_a_chunked_request_body_is_read(provider):
    parts = [
        b'{"model": "gpt-4o", "messages": [{"role": "user", ',
        b'"content": "[[in=4 out=2]]"}]}',
    ]
    reply = httpx.post(f"{provider.base_url}/chat/completions", content=iter(parts))
    assert reply.json()["usage"]["total_tokens"] == 6


def test_many_at_once_are_all_written_down(provider):
    def work(number: int) -> int:
        with openai.OpenAI(base_url=provider.base_url, api_key="k") as client:
            text = f"[[in={number} out=3 tenant=t{number % 4}]]"
            if number % 2:
                return sum(len(c.choices) for c in ask(client, text, stream=True))
            return ask(client, text).usage.total_tokens

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(1, 49)))
    rows = provider.truth
    assert [row.seq for row in rows] == list(range(1, 49))
    want = {
        f"t{t}": sum(n * 2_500_000 + 30_000_000 for n in range(1, 49) if n % 4 == t)
        for t in range(4)
    }
    assert provider.totals(by="tenant") == want


def test_closing_hangs_up_and_leaves_no_thread():
    before = set(threading.enumerate())
    provider = LoopbackProvider().start()
    with (
        httpx.Client() as client,
        ThreadPoolExecutor(1) as pool,
    ):
        client.get(f"{provider.base_url}/models")  # Idle, kept alive.
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[fault=timeout]]"}]}
        url = f"{provider.base_url}/chat/completions"
        held = pool.submit(httpx.post, url, json=body, timeout=30)
        assert provider.wait_received(1)
        provider.close()
        provider.close()
        assert isinstance(held.exception(), httpx.RemoteProtocolError)
    assert set(threading.enumerate()) <= before
    assert [(row.billed, row.delivery) for row in provider.truth] == [(True, "disconnected")]
    with pytest.raises(httpx.ConnectError):
        httpx.get(provider.url)
