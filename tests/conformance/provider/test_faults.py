"""What the loopback provider bills when calls fail, die, hang or are retried."""

from typing import Any

import httpx
import openai
import pytest
from provider_calls import ask, only

from costspan.conformance.provider import LoopbackProvider, Step


def test_client_retries_are_seen_one_by_one(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
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


def test_in_band_fault_passes_after_its_times(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    text = "[[status=500 retry_after=0 times=2 in=10 out=5]]"
    assert ask(client.with_options(max_retries=2), text).usage.total_tokens == 15
    assert [row.status for row in provider.truth] == [500, 500, 200]


def test_a_model_fails_for_a_while_and_the_fallback_serves(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
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
def test_errors_have_the_openai_body(
    provider: LoopbackProvider,
    client: openai.OpenAI,
    status: int,
    error: type[openai.APIStatusError],
) -> None:
    with pytest.raises(error) as caught:
        ask(client, f"[[status={status}]]")
    told: Any = caught.value.body
    assert told["message"]
    assert only(provider).status == status
    assert not only(provider).billed


def test_a_failure_may_cost_money(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        ask(client, "[[status=500 billed=true in=10 out=5]]")
    row = only(provider)
    assert (row.status, row.billed, row.reported) == (500, True, False)
    assert row.cost_pico == 75_000_000


@pytest.mark.parametrize("stream", [False, True])
def test_a_timeout_is_billed_though_nobody_reads_it(
    provider: LoopbackProvider, client: openai.OpenAI, stream: bool
) -> None:
    with pytest.raises(openai.APITimeoutError):
        ask(client.with_options(timeout=0.2), "[[fault=timeout in=10 out=5]]", stream=stream)
    assert provider.wait_idle()
    row = only(provider)
    assert (row.billed, row.delivery, row.reported) == (True, "disconnected", False)
    assert row.cost_pico == 75_000_000


def test_a_patient_client_gets_the_late_reply(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    assert ask(client, "[[fault=timeout delay=0.05 in=10 out=5]]").usage.total_tokens == 15
    assert only(provider).delivery == "complete"


def test_a_dying_stream_is_billed_for_what_was_sent(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    chunks = []
    stream = ask(client, "[[fault=die after=3 in=10 out=90]]", stream=True)
    with pytest.raises(httpx.RemoteProtocolError):
        chunks.extend(stream)  # What came before the end stays in the list.
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 3
    row = only(provider)
    assert row.delivery == "aborted"
    assert row.usage == {"input": 10, "output": 30}  # 3 of 9 chunks.


@pytest.mark.parametrize("fault", ["die", "refuse"])
def test_a_broken_plain_reply(
    provider: LoopbackProvider, client: openai.OpenAI, fault: str
) -> None:
    with pytest.raises(openai.APIConnectionError):
        ask(client, f"[[fault={fault} in=10 out=5]]")
    row = only(provider)
    assert row.delivery == "aborted"
    assert (row.status, row.billed) == ((200, True) if fault == "die" else (None, False))


@pytest.mark.parametrize(("gone", "output"), [("all", 90), ("sent", 20)])
def test_a_client_that_leaves_mid_stream(
    provider: LoopbackProvider, client: openai.OpenAI, gone: str, output: int
) -> None:
    text = f"[[fault=timeout after=2 gone={gone} in=10 out=90]]"
    with ask(client, text, stream=True) as stream:
        spoken = (chunk.choices[0].delta.content for chunk in stream)
        assert [next(spoken), next(spoken), next(spoken)] == ["", "This", " is"]
    assert provider.wait_idle()
    row = only(provider)
    assert (row.delivery, row.usage["output"]) == ("disconnected", output)


def test_missing_usage_is_billed(provider: LoopbackProvider, client: openai.OpenAI) -> None:
    assert ask(client, "[[usage=none in=10 out=5]]").usage is None
    options = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(ask(client, "[[usage=none in=10 out=5]]", **options))
    assert all(chunk.choices for chunk in chunks)
    assert [(row.reported, row.cost_pico) for row in provider.truth] == [(False, 75_000_000)] * 2


def test_unknown_models_and_rates_cost_nothing(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ask(client, "x", model="gpt-none")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="no rate for 'audio_input'"):
        ask(client, "[[in=10 audio_in=3]]")
    assert [(row.status, row.requested_model, row.billed) for row in provider.truth] == [
        (404, "gpt-none", False),
        (400, "gpt-4o", False),
    ]
