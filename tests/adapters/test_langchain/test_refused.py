"""Answers for nothing: a graph's task fails after its model answered, and is run again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import RetryPolicy

ModelOf = Callable[..., ChatOpenAI]
AGAIN = RetryPolicy(initial_interval=0, jitter=False, max_attempts=2, retry_on=Exception)


def graph_of(node: Callable[[MessagesState], dict[str, Any]]) -> Any:
    graph: Any = StateGraph(MessagesState)
    graph.add_node("think", node, retry_policy=AGAIN)
    graph.add_edge(START, "think")
    return graph.compile()


def asked(words: str) -> dict[str, Any]:
    return {"messages": [("user", words)]}


def links(books: Any) -> list[tuple[Any, ...]]:
    return [(end.attempt, end.retry_of, end.retry_reason) for end in books.ends()]


def test_an_answer_that_the_node_refused_is_asked_again_by_the_agent(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    tries: list[int] = []

    def think(state: MessagesState) -> dict[str, Any]:
        reply = model_of().invoke(state["messages"])
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("no good")
        return {"messages": [reply]}

    graph_of(think).invoke(asked("hi"), config=seen)
    first, _ = books.ends()
    assert links(books) == [(None, None, None), (2, first.operation_ids[0], "agent")]


def test_an_answer_is_asked_again_because_of_the_provider_where_another_call_failed(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    def think(state: MessagesState) -> dict[str, Any]:
        plan = model_of().invoke("plan [[in=5 out=1]]")
        model_of().invoke("answer [[status=503 times=1 in=7 out=1]]")
        return {"messages": [plan]}

    graph_of(think).invoke(asked("hi"), config=seen)
    assert [(attempt, reason) for attempt, _, reason in links(books)] == [
        *((None, None), (None, None)),
        *((2, "provider"), (2, "provider")),
    ]


def test_the_same_question_in_the_next_task_is_another(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    def refuse(state: MessagesState) -> dict[str, Any]:
        model_of().invoke(state["messages"])
        raise ValueError("never good")

    graph = graph_of(refuse)
    for _ in range(2):
        with pytest.raises(ValueError, match="never good"):
            graph.invoke(asked("hi"), config=seen)
    assert [attempt for attempt, _, _ in links(books)] == [None, 2, None, 2]


def test_usage_that_counts_nothing_is_none(seen: RunnableConfig, books: Any) -> None:
    """ChatLiteLLM writes zeros where the reply said nothing."""
    told = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    reply = AIMessage("hi", usage_metadata=told)
    GenericFakeChatModel(messages=iter([reply])).invoke("hi", config=seen)
    end = books.end()
    assert (end.usage, end.usage_source) == (None, "missing")
