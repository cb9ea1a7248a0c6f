"""Embeddings, which emit no callbacks: the wrapper records them against the provider's truth."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import AzureOpenAIEmbeddings, OpenAIEmbeddings

import costspan
from costspan.adapters.langchain import TrackedEmbeddings, track
from costspan.conformance.provider import LoopbackProvider
from costspan.core.schema import Observation

EmbeddingsOf = Callable[..., OpenAIEmbeddings]
Recorded = Callable[[], list[Observation]]
SEVEN = "[[in=7 tenant=acme]] find this"


def attempts(recorded: Recorded) -> list[Observation]:
    """The END of each embedding, whose START was written before."""
    found = [o for o in recorded() if o.kind == "embedding"]
    starts, ends = ([o for o in found if o.phase == phase] for phase in ("start", "end"))
    assert [o.attempt_id or o.operation_ids for o in starts] == [
        o.attempt_id or o.operation_ids for o in ends
    ]
    return ends


@pytest.mark.parametrize("how", ["query", "documents", "aquery", "adocuments"])
async def test_every_way_of_calling_is_one_attempt(
    how: str, embeddings_of: EmbeddingsOf, ledger: Any
) -> None:
    plain = embeddings_of()
    vectors = track(plain)
    assert isinstance(vectors, OpenAIEmbeddings)
    with costspan.attribute("acme"):
        if how == "query":
            assert vectors.embed_query(SEVEN) == plain.embed_query(SEVEN)
        elif how == "documents":
            assert vectors.embed_documents([SEVEN]) == plain.embed_documents([SEVEN])
        elif how == "aquery":
            assert await vectors.aembed_query(SEVEN) == await plain.aembed_query(SEVEN)
        else:
            assert await vectors.aembed_documents([SEVEN]) == await plain.aembed_documents([SEVEN])
    event = ledger.event()
    assert (event["owner"], event["bucket"], event["cost"]) == ("acme", "direct", "0.000000140000")
    assert [row.cost_pico for row in ledger.truth] == [140_000] * 2, "the plain one is not seen"


def test_what_an_attempt_says(
    embeddings_of: EmbeddingsOf, recorded: Recorded, provider: LoopbackProvider
) -> None:
    track(embeddings_of()).embed_query(SEVEN)
    (end,) = attempts(recorded)
    assert (end.layer, end.source, end.kind) == ("sdk", "langchain", "embedding")
    assert end.attempt_id is not None
    assert (end.provider, end.attempts_hidden, end.name) == ("openai", 0, "OpenAIEmbeddings")
    assert (end.requested_model, end.executed_model) == ("text-embedding-3-small",) * 2
    assert end.usage == {"input": 7, "output": 0}
    assert end.attributes == {"base_url": provider.base_url}
    assert (end.cause, end.provider_result) == (None, "ok")


def test_each_request_is_an_attempt(embeddings_of: EmbeddingsOf, recorded: Recorded) -> None:
    vectors = track(embeddings_of(chunk_size=2))
    vectors.embed_documents([f"[[in={n}]]" for n in (5, 6, 7)])
    assert [end.usage for end in attempts(recorded)] == [
        {"input": 6, "output": 0},  # a later directive replaces the one before
        {"input": 7, "output": 0},
    ]


def test_the_clients_own_retries_are_not_known(
    embeddings_of: EmbeddingsOf, recorded: Recorded
) -> None:
    track(embeddings_of(max_retries=2)).embed_query("[[status=503 times=1 retry_after=0 in=7]]")
    (end,) = attempts(recorded)
    assert (end.attempts_hidden, end.provider_result) == (None, "ok")


@pytest.mark.parametrize("is_async", [False, True])
async def test_the_clients_exceptions_pass_unchanged(
    is_async: bool, embeddings_of: EmbeddingsOf, ledger: Any
) -> None:
    plain = embeddings_of()
    vectors = track(plain)
    raised: list[BaseException] = []

    async def ask(each: OpenAIEmbeddings) -> None:
        if is_async:
            await each.aembed_query("[[status=503 retry_after=0]]")
        else:
            each.embed_query("[[status=503 retry_after=0]]")

    for each in (plain, vectors):
        with costspan.attribute("acme"), pytest.raises(Exception, match="503") as error:
            await ask(each)
        raised.append(error.value)
    assert type(raised[0]) is type(raised[1])
    event = ledger.event()
    assert (event["outcome"], event["fault"], event["owner"]) == ("failed", "provider", "@platform")
    assert event["cost"] == "0.000000000000"


async def test_a_cancelled_call_is_not_lost(embeddings_of: EmbeddingsOf, ledger: Any) -> None:
    with costspan.attribute("acme"):
        task = asyncio.create_task(track(embeddings_of()).aembed_query("[[fault=timeout]]"))
        await ledger.arrived()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    event = ledger.event()
    assert (event["outcome"], event["cost"]) == ("cancelled_by_user", None)
    assert event["flags"] == ["unmeasured"]


async def test_two_tenants_interleaved(embeddings_of: EmbeddingsOf, ledger: Any) -> None:
    vectors = track(embeddings_of())

    async def ask(tenant: str, tokens: int) -> None:
        with costspan.attribute(tenant):
            await vectors.aembed_query(f"[[in={tokens} tenant={tenant} delay=0.01]]")

    def ask_in_a_thread(tenant: str, tokens: int) -> None:
        with costspan.attribute(tenant):
            vectors.embed_documents([f"[[in={tokens} tenant={tenant}]]"] * 2)

    calls = [(("acme", "globex")[n % 2], 10 + n) for n in range(8)]
    await asyncio.gather(*(ask(*call) for call in calls))
    threads = [threading.Thread(target=ask_in_a_thread, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.events()) == 16
    ledger.check()


def test_without_usage_it_is_unmeasured_never_free(
    embeddings_of: EmbeddingsOf, ledger: Any
) -> None:
    with costspan.attribute("acme"):
        track(embeddings_of()).embed_query("[[in=7 usage=none]]")
    assert (ledger.event()["cost"], ledger.event()["flags"]) == (None, ["unmeasured"])


def words(texts: Sequence[str]) -> int:
    return sum(len(text.split()) for text in texts)


def test_an_estimate_is_called_one(embeddings_of: EmbeddingsOf, recorded: Recorded) -> None:
    vectors = track(embeddings_of(), estimate=words)
    vectors.embed_query("[[in=9 usage=none]]")
    vectors.embed_query("[[in=9]]")
    guessed, told = attempts(recorded)
    assert (guessed.usage, guessed.usage_source) == ({"input": 2, "output": 0}, "estimated")
    assert guessed.raw_usage == {"estimator": "words"}
    assert (told.usage, told.usage_source) == ({"input": 9, "output": 0}, None)


def test_an_estimate_that_fails_is_counted(
    embeddings_of: EmbeddingsOf, recorded: Recorded, counted: Callable[[str], int]
) -> None:
    def broken(texts: Sequence[str]) -> int:
        raise LookupError

    assert track(embeddings_of(), estimate=broken).embed_query("[[usage=none]]")
    (end,) = attempts(recorded)
    assert (end.usage, end.usage_source) == (None, "missing")
    assert counted("langchain_estimate:LookupError") == 1


def test_twice_is_once(embeddings_of: EmbeddingsOf, recorded: Recorded) -> None:
    track(track(embeddings_of())).embed_query(SEVEN)
    fake = track(DeterministicFakeEmbedding(size=3))
    assert track(fake) is fake
    assert len(attempts(recorded)) == 1


def test_a_copy_is_tracked_too(embeddings_of: EmbeddingsOf, recorded: Recorded) -> None:
    vectors = track(embeddings_of())
    assert str(vectors.client._client.base_url).startswith("http://127.0.0.1")
    copy.copy(vectors).embed_query(SEVEN)
    copy.copy(vectors.client).create(input=SEVEN, model="text-embedding-3-small")
    copy.copy(track(Slow(size=3))).embed_query("hi")
    assert len(attempts(recorded)) == 3


def test_azures_are_azures(recorded: Recorded, provider: LoopbackProvider) -> None:
    plain = AzureOpenAIEmbeddings(
        model="text-embedding-3-small",
        azure_endpoint=provider.url,
        api_version="2024-06-01",
        api_key="any",  # type: ignore[arg-type]  # accepts a plain string too
        max_retries=0,
        check_embedding_ctx_length=False,
    )
    with pytest.raises(Exception, match="404"):  # the loopback provider has no such path
        track(plain).embed_query(SEVEN)
    plain.client._client.close()
    (end,) = attempts(recorded)
    assert (end.provider, end.provider_result, end.fault) == ("azure", "failed", "agent")


class Slow(DeterministicFakeEmbedding):
    """Embeddings of no known client."""

    model_name: str = "homemade"
    note: str = "kept"


@pytest.mark.parametrize("is_async", [False, True])
async def test_any_other_embeddings_are_operations(is_async: bool, recorded: Recorded) -> None:
    vectors = track(Slow(size=3))
    assert isinstance(vectors, Embeddings)
    assert vectors.note == "kept"
    with costspan.attribute("acme"):
        if is_async:
            assert await vectors.aembed_query("hi") == Slow(size=3).embed_query("hi")
            assert len(await vectors.aembed_documents(["a", "b"])) == 2
        else:
            assert vectors.embed_query("hi") == Slow(size=3).embed_query("hi")
            assert len(vectors.embed_documents(["a", "b"])) == 2
    for end in attempts(recorded):
        assert (end.layer, end.attempt_id, end.tenant) == ("framework", None, "acme")
        assert (end.requested_model, end.usage_source) == ("homemade", "missing")


class Broken(Embeddings):
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise ZeroDivisionError

    def embed_query(self, text: str) -> list[float]:
        raise ZeroDivisionError


async def test_their_exceptions_pass_unchanged(recorded: Recorded) -> None:
    vectors = track(Broken())
    assert isinstance(vectors, TrackedEmbeddings)
    with pytest.raises(ZeroDivisionError):
        vectors.embed_query("hi")
    with pytest.raises(ZeroDivisionError):
        await vectors.aembed_documents(["hi"])
    assert [end.error_type for end in attempts(recorded)] == ["ZeroDivisionError"] * 2


@pytest.mark.parametrize("is_async", [False, True])
async def test_inside_a_retriever_it_is_the_retrievers(
    is_async: bool, embeddings_of: EmbeddingsOf, seen: RunnableConfig, recorded: Recorded
) -> None:
    store = InMemoryVectorStore(track(embeddings_of()))
    store.add_documents([Document("one"), Document("two")])
    retriever: BaseRetriever = store.as_retriever(search_kwargs={"k": 1})
    with costspan.attribute("acme"):
        if is_async:
            await retriever.ainvoke(SEVEN, config=seen)
        else:
            retriever.invoke(SEVEN, config=seen)
    index, query = attempts(recorded)
    (step,) = [o for o in recorded() if o.kind == "retrieval" and o.phase == "end"]
    assert (index.cause, index.parent) == (None, None)
    assert (query.cause, query.cause_source, query.initiator) == ("retrieval", "structure", "agent")
    assert (query.parent, query.tenant) == (step.operation_ids[0], "acme")


def test_inside_a_tool_it_is_the_tools(
    embeddings_of: EmbeddingsOf, seen: RunnableConfig, recorded: Recorded
) -> None:
    vectors = track(embeddings_of())

    @tool
    def look(q: str) -> str:
        """Look it up."""
        return str(len(vectors.embed_query(q)))

    with costspan.attribute("acme"):
        look.invoke({"q": SEVEN}, config=seen)
    (end,) = attempts(recorded)
    assert (end.cause, end.initiator, end.tenant) == ("tool", "agent", "acme")


def test_named_work_is_explicit(embeddings_of: EmbeddingsOf, ledger: Any) -> None:
    with costspan.attribute("acme"):
        with costspan.work("memory"):
            track(embeddings_of()).embed_query("[[in=7 tenant=acme]]")
        with costspan.work("index"):
            track(embeddings_of()).embed_query("[[in=8 tenant=acme]]")
    assert ledger.rows() == {("acme", "agent"): 140_000, ("@platform", "platform"): 160_000}
    ledger.check()


@pytest.mark.parametrize("said", ["argument", "environment"])
def test_at_a_gateway_the_client_is_evidence(
    said: str,
    embeddings_of: EmbeddingsOf,
    ledger: Any,
    provider: LoopbackProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.configure(gateways=[provider.base_url])
    settings: dict[str, Any] = {}
    if said == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        settings["base_url"] = None
    with costspan.attribute("acme"):
        track(embeddings_of(**settings)).embed_query(SEVEN)
    assert ledger.events() == []
    assert ledger.totals()["unmatched"] == 2, "START and END wait for what the gateway says"
