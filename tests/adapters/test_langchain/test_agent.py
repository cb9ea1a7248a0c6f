"""Agents: steps, tools, sub-agents, retrievers, and what runs under what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import SummarizationMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig, RunnableLambda, RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

import costspan
from costspan.adapter import Attempt, current, enclosing_operation, enclosing_step

ModelOf = Callable[..., ChatOpenAI]


class Answer(BaseModel):
    x: int


@tool
def look(q: str) -> str:
    """Look it up."""
    return f"found {q}"


USE_LOOK = """[[tool='look:{"q": "x"}' in=30 out=3]]"""


def ask(words: str) -> Any:  # pairs are not in the types of agents
    return {"messages": [("user", words)]}


def thread(seen: RunnableConfig, **metadata: Any) -> RunnableConfig:
    return {**seen, "metadata": metadata, "configurable": {"thread_id": "t1"}}


async def test_an_agent_with_a_tool(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    agent = create_agent(model_of(), [look], name="helper")
    with costspan.attribute("acme"):
        await agent.ainvoke(ask(f"hi {USE_LOOK} [[in=40 out=4]]"), config=thread(seen))
    step, answer = books.ends()
    ran = books.end("tool")
    assert (step.cause, step.cause_source, step.initiator) == ("step", "inferred", "agent")
    assert (answer.cause, answer.initiator) == (None, None)
    assert (ran.cause, ran.cause_source, ran.name) == ("tool", "structure", "look")
    assert ran.tool_call_id is not None
    assert {(o.tenant, o.session, o.agent) for o in (step, answer, ran)} == {
        ("acme", "t1", "helper")
    }
    assert (step.name, answer.name) == ("model", "model")
    assert (step.parent, answer.parent, ran.parent) == (None, None, None)


def test_a_sub_agent_belongs_to_the_tool_that_runs_it(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    sub = create_agent(model_of("gpt-4o-mini"), [look], name="sub")

    @tool
    def research(q: str) -> str:
        """Ask the sub-agent."""
        return str(sub.invoke(ask(f"{q} {USE_LOOK} [[in=60 out=6]]"))["messages"][-1].content)

    top = create_agent(model_of(), [research], name="top")
    words = """hi [[tool='research:{"q": "x"}' in=10 out=1]] [[in=20 out=2]]"""
    top.invoke(ask(words), config=thread(seen, tenant="acme"))
    by_input = {end.usage["input"]: end for end in books.ends()}
    tools = {end.name: end for end in books.ends("tool")}
    assert by_input[10].cause == "step"
    assert by_input[20].cause is None
    for inner in (by_input[30], by_input[60]):
        assert (inner.cause, inner.cause_source, inner.initiator) == (
            "subagent",
            "structure",
            "agent",
        )
        assert (inner.parent, inner.parent_origin) == (tools["research"].operation_ids[0], "ours")
        assert (inner.agent, inner.requested_model) == ("sub", "gpt-4o-mini")
    assert tools["look"].parent == tools["research"].operation_ids[0]
    assert {end.tenant for end in books.all()} == {"acme"}


def test_structured_output_is_the_answer(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    structured = model_of().with_structured_output(Answer, method="function_calling")
    assert structured.invoke("""[[tool='Answer:{"x": 1}']]""", config=seen) == Answer(x=1)
    assert books.end().cause is None


def test_the_response_format_of_an_agent_is_the_answer(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    agent = create_agent(model_of(), [look], response_format=ToolStrategy(Answer))
    words = f"""{USE_LOOK} [[tool='Answer:{{"x": 1}}' in=40]]"""
    assert agent.invoke(ask(words), config=seen)["structured_response"] == Answer(x=1)
    assert [(end.usage["input"], end.cause) for end in books.ends()] == [(30, "step"), (40, None)]


def test_a_summary_is_summarization(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    summary = SummarizationMiddleware(
        model=model_of("gpt-4o-mini"), trigger=("messages", 2), keep=("messages", 1)
    )
    agent = create_agent(model_of(), [], middleware=[summary])
    turns: Any = [("user", "one"), ("assistant", "two"), ("user", "three")]
    agent.invoke({"messages": turns}, config=seen)
    first, answer = books.ends()
    assert (first.cause, first.cause_source, first.initiator) == (
        "summarization",
        "structure",
        "agent",
    )
    assert answer.cause is None


class Shelf(BaseRetriever):
    model: ChatOpenAI

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        self.model.invoke("[[in=5 out=1]]", config={"callbacks": run_manager.get_child()})
        return [Document(query)]


def test_a_retriever_and_the_model_inside_it(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    Shelf(model=model_of()).invoke("q", config=seen)
    shelf, inner = books.end("retrieval"), books.end()
    assert (shelf.cause, shelf.cause_source, shelf.name) == ("retrieval", "structure", "Shelf")
    assert (inner.parent, inner.cause) == (shelf.operation_ids[0], "retrieval")


def test_what_a_tool_calls_itself_has_the_tool_as_parent(
    seen: RunnableConfig, books: Any, recorded: Any
) -> None:
    """Directly, in a `costspan.tool`, and through a call that was cut off from the callbacks."""

    @tool
    def busy(q: str) -> str:
        """Call things that LangChain does not know of."""
        assert enclosing_operation() is None
        with costspan.attribute("globex"):
            Attempt.start(layer="sdk", provider="openai").end(usage={"input": 1})
        with costspan.tool("paid", cost="0.01"):
            look.invoke({"q": q}, config={"callbacks": []})
            Attempt.start(layer="sdk", provider="openai").end(usage={"input": 2})
        return q

    before = current()
    with costspan.attribute("acme"):
        busy.invoke({"q": "x"}, config=seen)
    assert current() == before
    assert enclosing_step() is None
    ends = [o for o in recorded() if o.phase == "end"]
    first, paid, second = [o for o in ends if o.attempt_id is not None and o.kind is not None][:3]
    first, second, paid = sorted(
        (first, paid, second), key=lambda o: (o.usage or {"input": 9})["input"]
    )
    busy_id = books.end("tool").operation_ids[0]
    assert (first.parent, first.tenant) == (busy_id, "globex")
    assert (paid.parent, paid.name) == (busy_id, "paid")
    assert second.parent == paid.attempt_id


async def test_after_a_tool_nothing_is_enclosed(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    await look.ainvoke({"q": "x"}, config=seen)
    assert (enclosing_step(), current().parent) == (None, None)
    await model_of().ainvoke("hi", config=seen)
    assert books.end().parent is None
    assert enclosing_operation() is None


async def test_between_the_chunks_of_a_stream_is_the_readers_work(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    with costspan.attribute("acme"):
        async for _ in model_of(stream_usage=True).astream("[[in=10 out=1]]", config=seen):
            assert enclosing_operation() is None
    assert books.end().usage == {"input": 10, "output": 1}


def test_parallel_branches_do_not_mix(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    @tool
    def left(q: str) -> str:
        """Ask."""
        return str(model_of().invoke("[[in=10 out=1]]").content)

    both = RunnableParallel(
        left=RunnableLambda(lambda _: left.invoke({"q": "x"})),
        right=RunnableLambda(lambda _: model_of().invoke("[[in=20 out=1]]")),
    )
    both.invoke("x", config=seen)
    by_input = {end.usage["input"]: end for end in books.ends()}
    assert (by_input[10].parent, by_input[10].cause) == (
        books.end("tool").operation_ids[0],
        "subagent",
    )
    assert (by_input[20].parent, by_input[20].cause) == (None, None)


def test_a_failed_tool(seen: RunnableConfig, books: Any) -> None:
    @tool
    def broken(q: str) -> str:
        """Fail."""
        raise LookupError(q)

    outcome = RunnableLambda(lambda _: broken.invoke({"q": "x"})).with_fallbacks(
        [RunnableLambda(lambda _: "instead")]
    )
    assert outcome.invoke("x", config=seen) == "instead"
    end = books.end("tool")
    assert (end.provider_result, end.error_type) == ("failed", "LookupError")
