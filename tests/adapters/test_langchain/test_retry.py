"""Attempts of the same work: retries that LangChain marks, retries it does not, fallbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain_core.output_parsers import PydanticOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import RetryPolicy
from pydantic import BaseModel

import costspan
from costspan.conformance.provider import LoopbackProvider

ModelOf = Callable[..., ChatOpenAI]
ONCE_DOWN = "[[status=503 retry_after=0 times=1 in=10 out=1]]"


def links(books: Any) -> list[tuple[Any, ...]]:
    """Attempt number, whether it names the one before, why, result."""
    ends = books.ends()
    before = [None, *(end.operation_ids[0] for end in ends)]
    return [
        (end.attempt, end.retry_of == earlier, end.retry_reason, end.provider_result)
        for end, earlier in zip(ends, before, strict=False)
    ]


RETRIED = [(None, True, None, "failed"), (2, True, "provider", "ok")]


async def test_with_retry(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    retrying = model_of().with_retry(wait_exponential_jitter=False, stop_after_attempt=3)
    await retrying.ainvoke("[[status=503 retry_after=0 times=2]]", config=seen)
    assert links(books) == [
        (None, True, None, "failed"),
        (2, True, "provider", "failed"),
        (3, True, "provider", "ok"),
    ]


class Answer(BaseModel):
    x: int


def test_a_sequence_retried_because_its_parser_refused(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    provider.script("twice", "text=nonsense", """text='{"x": 1}'""")
    chain = model_of() | PydanticOutputParser(pydantic_object=Answer)
    retrying = chain.with_retry(wait_exponential_jitter=False)
    assert retrying.invoke("[[twice]]", config=seen) == Answer(x=1)
    first, second = books.ends()
    assert (first.attempt, first.provider_result) == (None, "ok")
    assert (second.attempt, second.retry_reason, second.retry_of) == (2, "agent", None)


def test_a_sequence_retried_because_the_model_failed(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "{words}")]) | model_of()
    chain.with_retry(wait_exponential_jitter=False).invoke({"words": ONCE_DOWN}, config=seen)
    assert links(books) == RETRIED


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream", "batch", "sequence"])
async def test_with_fallbacks(
    how: str, model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    provider.fail_model("gpt-4o")
    settings: dict[str, Any] = {"stream_usage": True}
    first, second = model_of(**settings), model_of("gpt-4o-mini", **settings)
    falling = first.with_fallbacks([second])
    if how == "invoke":
        falling.invoke("hi", config=seen)
    elif how == "ainvoke":
        await falling.ainvoke("hi", config=seen)
    elif how == "stream":
        assert list(falling.stream("hi", config=seen))
    elif how == "batch":
        falling.batch(["hi"], config=seen)
    else:
        (ChatPromptTemplate.from_messages([("user", "hi")]) | falling).invoke({}, config=seen)
    assert links(books) == RETRIED
    failed, ok = books.ends()
    assert (failed.requested_model, failed.route_reason) == ("gpt-4o", None)
    assert (ok.requested_model, ok.route_reason) == ("gpt-4o", "fallback")
    assert ok.executed_model == "gpt-4o-mini-2024-07-18"


def test_after_fallbacks_a_call_is_its_own(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    provider.fail_model("gpt-4o", times=2)
    falling = model_of().with_fallbacks([model_of("gpt-4o-mini")])
    falling.invoke("hi", config=seen)
    with pytest.raises(Exception, match="503"):
        model_of().invoke("hi", config=seen)
    falling.invoke("hi", config=seen)
    assert [end.attempt for end in books.ends()] == [None, 2, None, None]


def ask(words: str) -> Any:  # pairs are not in the types of agents
    return {"messages": [("user", words)]}


def test_retry_middleware(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    retrying = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False)
    agent = create_agent(model_of(), [], middleware=[retrying])
    agent.invoke(ask(ONCE_DOWN), config=seen)
    assert links(books) == RETRIED


def test_fallback_middleware(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    provider.fail_model("gpt-4o")
    falling = ModelFallbackMiddleware(model_of("gpt-4o-mini"))
    agent = create_agent(model_of(), [], middleware=[falling])
    agent.invoke(ask("hi"), config=seen)
    assert links(books) == RETRIED
    assert books.ends()[1].requested_model == "gpt-4o"
    assert books.ends()[1].route_reason == "fallback"


async def test_a_graphs_retry_policy(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    async def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model_of().ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    always = RetryPolicy(initial_interval=0, jitter=False, max_attempts=3, retry_on=Exception)
    graph.add_node("think", think, retry_policy=always)
    graph.add_edge(START, "think")
    graph.add_edge("think", END)
    await graph.compile().ainvoke(ask(ONCE_DOWN), config=seen)
    assert links(books) == RETRIED


def test_the_clients_own_retries_cannot_be_seen(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    model_of(max_retries=2).invoke(ONCE_DOWN, config=seen)
    end = books.end()
    assert (end.attempts_hidden, end.attempt, end.provider_result) == (None, None, "ok")


@pytest.mark.parametrize("is_async", [False, True])
async def test_by_hand_in_one_scope(
    is_async: bool, model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    async def ask() -> None:
        if is_async:
            await model_of().ainvoke(ONCE_DOWN, config=seen)
        else:
            model_of().invoke(ONCE_DOWN, config=seen)

    with costspan.attribute("acme"):
        with pytest.raises(Exception, match="503"):
            await ask()
        await ask()
        await ask()
    assert links(books)[:2] == RETRIED
    assert books.ends()[2].attempt is None, "the one after a success is new work"


def test_by_hand_another_model_is_a_fallback(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any, provider: LoopbackProvider
) -> None:
    provider.fail_model("gpt-4o")
    with costspan.attribute("acme"):
        try:
            model_of().invoke("[[tenant=acme in=1000 out=100]]", config=seen)
        except Exception:
            model_of("gpt-4o-mini").invoke("[[tenant=acme in=1000 out=100]]", config=seen)
    ledger.check()
    answered = next(event for event in ledger.events() if event["outcome"] == "ok")
    assert (answered["attempt"], answered["requested_model"]) == (2, "gpt-4o")
    assert (answered["cost"], answered["charge"]) == ("0.000210000000", "0.003500000000")


def test_the_same_words_elsewhere_are_no_retry(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    """Another scope, none at all, or other words of the same length in the same scope."""
    down = "[[status=503 retry_after=0]]"
    with costspan.attribute("acme"), pytest.raises(Exception, match="503"):
        model_of().invoke(down, config=seen)
    with costspan.attribute("acme"), pytest.raises(Exception, match="503"):
        model_of().invoke(down, config=seen)
    for _ in range(2):
        with pytest.raises(Exception, match="503"):
            model_of().invoke(down, config=seen)
    with costspan.attribute("acme"):
        with pytest.raises(Exception, match="503"):
            model_of().invoke(down, config=seen)
        model_of().invoke("x" * len(down), config=seen)
    assert [end.attempt for end in books.ends()] == [None] * 6


def test_other_words_of_the_same_length_in_a_graph_are_no_retry(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    def both(words: str) -> None:
        with pytest.raises(Exception, match="503"):
            model_of().invoke(words)
        model_of().invoke("x" * len(words))

    RunnableLambda(both).invoke("[[status=503 retry_after=0]]", config=seen)
    assert [end.attempt for end in books.ends()] == [None, None]


def test_an_earlier_refusal_says_nothing_of_a_later_break(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    """The second error was raised while the first was handled: its context, not its cause."""
    try:
        model_of().invoke("[[status=503 retry_after=0]]", config=seen)
    except Exception:
        with pytest.raises(Exception, match=r"."):
            model_of().invoke("[[fault=die]]", config=seen)
    assert [end.provider_billed for end in books.ends()] == [False, None]


async def test_a_client_that_retries_hides_its_attempts_and_nothing_else(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    words = "[[tenant=acme in=10 out=1 status=503 retry_after=0 times=2]]"
    with costspan.attribute("acme"):
        await model_of(max_retries=2).ainvoke(words, config=seen)
    ledger.check()
    assert [row.status for row in ledger.truth] == [503, 503, 200]
    assert "attempts_hidden" not in ledger.event()
