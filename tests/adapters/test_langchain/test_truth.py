"""The books beside the provider's own: owner and bucket right, nothing leaked, lost or doubled."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import costspan
from costspan.adapters.langchain import track, with_usage
from costspan.conformance.provider import LoopbackProvider

ModelOf = Callable[..., ChatOpenAI]
Ask = Callable[[str, dict[str, Any]], Any]

INPUT, OUTPUT = 2_500_000, 10_000_000  # pico-USD per token of gpt-4o


class Answer(BaseModel):
    x: int


@tool
def look(q: str) -> str:
    """Look it up."""
    return f"found {q}"


def thread_of(tenant: str) -> dict[str, Any]:
    return {"messages": [("user", f"[[tenant={tenant}]] hi")]}


@pytest.fixture(params=["sync", "async"])
def play(request: pytest.FixtureRequest) -> Callable[..., Awaitable[None]]:
    """Ask for two tenants at once, three times each: in threads, or in tasks of one loop."""
    tenants = ("acme", "globex") * 3

    async def in_tasks(runnable: Any, words: str, config: dict[str, Any]) -> None:
        async def ask(tenant: str) -> None:
            with costspan.attribute(tenant):
                await runnable.ainvoke(words.replace("TENANT", tenant), config=config)

        await asyncio.gather(*map(ask, tenants))

    async def in_threads(runnable: Any, words: str, config: dict[str, Any]) -> None:
        def ask(tenant: str) -> None:
            with costspan.attribute(tenant):
                runnable.invoke(words.replace("TENANT", tenant), config=config)

        threads = [threading.Thread(target=ask, args=(tenant,)) for tenant in tenants]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return in_tasks if request.param == "async" else in_threads


def per_tenant(**pico: int) -> dict[tuple[str, str], int]:
    """The same cost for each tenant, three times."""
    return {
        (tenant, bucket): 3 * cost for tenant in ("acme", "globex") for bucket, cost in pico.items()
    }


def as_messages(words: str) -> Any:  # pairs are not in the types of agents
    return {"messages": [("user", words)]}


async def test_an_agent_with_tools(
    play: Any, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    agent = RunnableLambda(as_messages) | create_agent(model_of(), [look])
    words = """[[tenant=TENANT tool='look:{"q": "x"}' in=30 out=3]] [[tool='look:{"q": "y"}' in=40
        out=4 cached=20]] [[in=50 out=5]]"""
    await play(agent, words, seen)
    ledger.check()
    steps = 30 * INPUT + 3 * OUTPUT + 20 * INPUT + 20 * INPUT // 2 + 4 * OUTPUT
    assert ledger.rows() == per_tenant(agent=steps, direct=50 * INPUT + 5 * OUTPUT)


async def test_structured_output_is_direct(
    play: Any, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    model = model_of().with_structured_output(Answer, method="function_calling")
    await play(model, """[[tenant=TENANT tool='Answer:{"x": 1}' in=30 out=3]]""", seen)
    ledger.check()
    assert ledger.rows() == per_tenant(direct=30 * INPUT + 3 * OUTPUT)


async def test_parallel_branches_and_a_sub_agent(
    play: Any, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    @tool
    def research(q: str) -> str:
        """Ask a model."""
        return str(model_of().invoke(q).content)

    @tool
    async def aresearch(q: str) -> str:
        """Ask a model."""
        return str((await model_of().ainvoke(q)).content)

    def under_a_tool(words: str) -> Any:
        return research.invoke({"q": words.replace("in=10", "in=60")})

    async def under_an_async_tool(words: str) -> Any:
        return await aresearch.ainvoke({"q": words.replace("in=10", "in=60")})

    both: Any = RunnableParallel(
        one=model_of(), two=RunnableLambda(under_a_tool, under_an_async_tool)
    )
    await play(both, "[[tenant=TENANT in=10 out=1]]", seen)
    ledger.check()
    assert ledger.rows() == per_tenant(direct=10 * INPUT + OUTPUT, agent=60 * INPUT + OUTPUT)


async def test_retrieval_with_tracked_embeddings(
    play: Any, model_of: ModelOf, embeddings_of: Any, seen: RunnableConfig, ledger: Any
) -> None:
    store = InMemoryVectorStore(track(embeddings_of()))
    with costspan.work("index"):
        store.add_texts(["[[in=1000]] shelf"])
    words = "[[tenant=TENANT in=10 out=1]]"
    chain: Any = RunnableParallel(found=store.as_retriever(), asked=RunnableLambda(str)) | (
        RunnableLambda(lambda both: both["asked"]) | model_of()
    )
    await play(chain, words, seen)
    expected = per_tenant(direct=10 * INPUT + OUTPUT, agent=10 * 20_000)
    assert ledger.rows() == {**expected, ("@platform", "platform"): 1000 * 20_000}
    assert sum(ledger.rows().values()) == sum(row.cost_pico for row in ledger.truth)


async def test_a_summary(play: Any, model_of: ModelOf, seen: RunnableConfig, ledger: Any) -> None:
    middle = SummarizationMiddleware(model_of(), trigger=("messages", 2), keep=("messages", 1))

    def turns(words: str) -> Any:
        return {"messages": [("user", words), ("assistant", "two"), ("user", f"three {words}")]}

    agent = RunnableLambda(turns) | create_agent(model_of(), [], middleware=[middle])
    await play(agent, "[[tenant=TENANT in=10 out=1]]", seen)
    ledger.check()
    cost = 10 * INPUT + OUTPUT
    assert ledger.rows() == per_tenant(direct=cost, agent=cost)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"n": 3}, "in=100 out=60 cached=40"),
        ({"service_tier": "priority"}, "in=100 out=60 cached=40 reasoning=10"),
        ({"service_tier": "flex"}, "in=100 out=60 cached=40 cache_write=30"),
        ({"service_tier": "auto"}, "in=100 out=60 reasoning=50"),
        ({}, "in=100 out=60 audio_in=30 audio_out=20 cached=10"),
        ({}, "in=100 out=60 cache_write=30"),
        ({"use_responses_api": True}, "in=100 out=60 cached=40 reasoning=10"),
        ({"use_responses_api": True, "service_tier": "flex"}, "in=100 out=60 cached=40"),
    ],
)
async def test_every_shape_of_usage(
    settings: dict[str, Any], words: str, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    """Whole and streamed, each component priced at its own rate, once."""
    model = with_usage(model_of(**settings))
    words = f"[[tenant=acme {words}]]"
    with costspan.attribute("acme"):
        model.invoke(words, config=seen)
        await model.ainvoke(words, config=seen)
        if model.n is None:
            assert list(model.stream(words, config=seen))
            assert [chunk async for chunk in model.astream(words, config=seen)]
    ledger.check()
    costs = Counter(row.cost_pico for row in ledger.truth)
    assert len(costs) == 1, "all ways of asking cost the same"


def test_with_usage_is_a_copy_and_only_where_it_is_known(model_of: ModelOf) -> None:
    from langchain_core.language_models import FakeListChatModel

    plain = model_of()
    assert with_usage(plain).stream_usage is True
    assert not plain.stream_usage
    fake = FakeListChatModel(responses=["x"])
    assert with_usage(fake) is fake


def test_a_stream_without_usage_is_visible_never_free(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    """A handler cannot ask for it: what it is shown of the request is a copy."""
    with costspan.attribute("acme"):
        list(model_of().stream("[[in=10 out=1]]", config=seen))
    (row,) = ledger.truth
    assert (row.reported, row.cost_pico > 0) == (False, True)
    event = ledger.event()
    assert (event["outcome"], event["cost"], event["flags"]) == ("ok", None, ["unmeasured"])
    assert ledger.totals()["unpriced_events"] == 1


def test_the_responses_api_names_its_streamed_responses(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    assert list(model_of(use_responses_api=True).stream("[[in=10 out=1]]", config=seen))
    assert books.end().response_id == f"openai//{provider.truth[-1].response_id}"


def test_a_dearer_fallback_is_charged_as_asked(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any, provider: LoopbackProvider
) -> None:
    """Three models: the last one answers, and the first one's price is charged."""
    provider.fail_model("gpt-4o-mini", times=1)
    provider.fail_model("claude-haiku-4-5", times=1)
    falling = model_of("gpt-4o-mini").with_fallbacks([model_of("claude-haiku-4-5"), model_of()])
    with costspan.attribute("acme"):
        falling.invoke("[[tenant=acme in=1000 out=100]]", config=seen)
    ledger.check()
    *failed, answered = sorted(ledger.events(), key=lambda event: event.get("attempt") or 1)
    assert [event["cost"] for event in failed] == ["0.000000000000"] * 2
    assert (answered["attempt"], answered["requested_model"]) == (3, "gpt-4o-mini")
    assert (answered["cost"], answered["charge"]) == ("0.003500000000", "0.000210000000")
