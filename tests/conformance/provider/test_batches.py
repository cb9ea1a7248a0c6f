"""The loopback provider's files and batches: the real OpenAI client and LiteLLM."""

import json
import os
import warnings
from collections.abc import Iterator
from typing import Any, Final

import httpx
import openai
import pytest
from provider_calls import START, Clock

from costspan.conformance.provider import LoopbackProvider

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: no look-up in the network
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # LiteLLM's own deprecations at import
    import litellm

CHAT: Final = "/v1/chat/completions"
DAY_SECONDS = 86_400


@pytest.fixture
def provider(clock: Clock) -> Iterator[LoopbackProvider]:
    with LoopbackProvider(clock=clock) as running:
        yield running
        assert running.bugs == ()


def jsonl(*requests: tuple[str, str], url: str = CHAT) -> bytes:
    """A line for each (model, text)."""
    lines = (
        {"custom_id": f"c{number}", "method": "POST", "url": url, "body": request(url, *asked)}
        for number, asked in enumerate(requests)
    )
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def request(url: str, model: str, text: str) -> dict[str, Any]:
    if url == CHAT:
        return {"model": model, "messages": [{"role": "user", "content": text}]}
    return {"model": model, "input": text}


def submit(client: openai.OpenAI, content: bytes, url: Any = CHAT, **more: Any) -> Any:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    assert client.files.content(file.id).content == content
    assert client.files.retrieve(file.id).bytes == len(content)
    return client.batches.create(
        completion_window="24h", endpoint=url, input_file_id=file.id, **more
    )


def answers(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id is not None
    lines = client.files.content(file_id).text.splitlines()
    return {line["custom_id"]: line["response"] for line in map(json.loads, lines)}


def test_a_batch_is_polled_completes_and_is_billed_once(
    provider: LoopbackProvider, client: openai.OpenAI, clock: Clock
) -> None:
    content = jsonl(
        ("gpt-4o", "[[in=100 out=20 tenant=acme polls=2]]"),
        ("gpt-4o", "ünïcode [[in=10 out=2 reasoning=1 tenant=globex]]"),
        ("gpt-4o-mini", "[[in=10 cached=4 out=1 tenant=acme]]"),  # no batch row in the book
        ("gpt-4o", "[[status=429 tenant=acme]]"),
    )
    batch = submit(client, content, metadata={"job": "nightly"})
    assert (batch.status, batch.metadata) == ("in_progress", {"job": "nightly"})
    for _ in range(2):
        batch = client.batches.retrieve(batch.id)
        assert (batch.status, batch.output_file_id, batch.usage) == ("in_progress", None, None)
    assert list(provider.truth) == []
    clock.now += DAY_SECONDS * 10**9
    for _ in range(3):
        batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
    assert (batch.created_at, batch.completed_at) == (START, START + DAY_SECONDS)
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (4, 3, 1)
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (120, 23)
    assert batch.usage.input_tokens_details.cached_tokens == 4

    told = answers(client, batch.output_file_id)
    assert [reply["body"]["usage"]["total_tokens"] for reply in told.values()] == [120, 12, 11]
    assert told["c0"]["body"]["service_tier"] == "batch"
    [refused] = answers(client, batch.error_file_id).values()
    assert (refused["status_code"], refused["body"]["error"]["code"]) == (
        *(429, "rate_limit_exceeded"),
    )

    rows = provider.truth
    assert [(row.tenant, row.tier, row.status) for row in rows] == [
        ("acme", "batch", 200),
        ("globex", "batch", 200),
        ("acme", "default", 200),
        ("acme", None, 429),
    ]
    assert {row.batch_id for row in rows} == {batch.id}
    assert {row.endpoint for row in rows} == {CHAT}
    assert [row.response_id for row in rows[:3]] == [r["body"]["id"] for r in told.values()]
    # At the batch rates of gpt-4o: 1.25 in, 5.00 out; gpt-4o-mini at its own.
    assert [row.cost_pico for row in rows] == [
        100 * 1_250_000 + 20 * 5_000_000,
        10 * 1_250_000 + 2 * 5_000_000,
        6 * 150_000 + 4 * 75_000 + 1 * 600_000,
        0,
    ]
    bill = provider.invoice()
    assert sum(line.amount_pico for line in bill) == sum(row.cost_pico for row in rows)
    assert {line.day for line in bill} == {START + DAY_SECONDS}
    assert "gpt-4o-2024-08-06, batch input" in {line.line_item for line in bill}


@pytest.mark.parametrize(
    ("url", "model"), [("/v1/embeddings", "text-embedding-3-small"), ("/v1/responses", "gpt-4o")]
)
def test_batches_of_other_endpoints(
    provider: LoopbackProvider, client: openai.OpenAI, url: str, model: str
) -> None:
    batch = submit(client, jsonl((model, "[[in=7 out=3 polls=0]]"), url=url), url)
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    assert batch.usage is not None
    assert batch.usage.input_tokens == 7
    [row] = provider.truth
    assert (row.endpoint, row.usage["input"], row.batch_id) == (url, 7, batch.id)


def test_scripts_and_missing_usage_in_a_batch(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    provider.script("two", "in=1 out=1 usage=none", "in=2 out=2 usage=none polls=0")
    batch = submit(client, jsonl(("gpt-4o", "[[two]]"), ("gpt-4o", "[[two]]")))
    batch = client.batches.retrieve(batch.id)
    assert (batch.status, batch.usage) == ("completed", None)
    assert [(row.usage["input"], row.reported) for row in provider.truth] == [
        (1, False),
        (2, False),
    ]


def test_a_line_that_cannot_be_served_fails_alone(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    content = jsonl(
        ("gpt-4o", "[[in=1 out=1 polls=0]]"),
        ("gpt-4o", "[[fault=die]]"),
        ("gpt-none", "x"),
        ("gpt-4o", "[[in=2 cached=1]]"),  # the batch row has no such rate
    )
    batch = client.batches.retrieve(submit(client, content).id)
    assert {k: v["status_code"] for k, v in answers(client, batch.error_file_id).items()} == {
        "c1": 400,
        "c2": 404,
        "c3": 400,
    }
    assert [row.billed for row in provider.truth] == [True, False, False, False]


def test_what_is_not_there_and_what_is_not_right(
    provider: LoopbackProvider, client: openai.OpenAI
) -> None:
    for look in (client.batches.retrieve, client.files.retrieve, client.files.content):
        with pytest.raises(openai.NotFoundError):
            look("batch_none")
    with pytest.raises(openai.NotFoundError):
        client.batches.create(completion_window="24h", endpoint=CHAT, input_file_id="file-none")
    for content in (b"", b"\n", b"{", b"[]\n", jsonl(("gpt-4o", "x"), url="/v1/responses")):
        with pytest.raises(openai.BadRequestError):
            submit(client, content)
    for raw in (b"", b"x"):
        assert httpx.post(f"{provider.base_url}/files", content=raw).status_code == 400
        assert httpx.post(f"{provider.base_url}/batches", content=raw).status_code == 400
    assert provider.truth == ()


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:.* using the `ReadOnly` qualifier:UserWarning")
@pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning")
def test_litellm_polls_a_batch(provider: LoopbackProvider) -> None:
    to = {"custom_llm_provider": "openai", "api_base": provider.base_url, "api_key": "k"}
    content = jsonl(("gpt-4o", "[[in=100 out=20 tenant=acme]]"))
    file = litellm.create_file(file=("in.jsonl", content), purpose="batch", **to)
    made = litellm.create_batch(
        completion_window="24h", endpoint=CHAT, input_file_id=file.id, metadata={"k": "v"}, **to
    )
    polls = [litellm.retrieve_batch(made.id, **to) for _ in range(3)]
    assert [poll.status for poll in polls] == ["in_progress", "completed", "completed"]
    [line] = litellm.file_content(polls[-1].output_file_id, **to).text.splitlines()
    assert json.loads(line)["response"]["body"]["usage"]["total_tokens"] == 120
    [row] = provider.truth
    assert (row.tenant, row.cost_pico) == ("acme", 100 * 1_250_000 + 20 * 5_000_000)
    litellm.in_memory_llm_clients_cache.flush_cache()  # type: ignore[no-untyped-call]  # theirs
