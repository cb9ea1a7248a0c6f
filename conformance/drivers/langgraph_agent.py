"""LangGraph: agents of `create_agent`, graphs by hand, and every plain call as a node of one.

Branches stay a `RunnableParallel`: a graph in a node of another is a sub-graph, whose calls are
agent work (DESIGN.md section 3), not the user's own. Parallel tools are sent to nodes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, TypedDict

from langchain.agents import create_agent  # pyright: ignore[reportUnknownVariableType]  # untyped checkpoints in it
from langchain.agents.middleware import (
    AgentMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain.agents.structured_output import ToolStrategy
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda
from langchain_core.tools import StructuredTool, ToolException
from langgraph.graph import START, MessagesState, StateGraph  # pyright: ignore[reportMissingTypeStubs]  # has none
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import RetryPolicy
from msgspec import structs

from costspan.conformance.drivers.chat_openai import ChatOpenAICalls
from costspan.conformance.drivers.langchain_calls import (
    NOT_CACHED,
    function_named,
    reply_of,
)
from costspan.conformance.suite.driver import AgentAsk, Ask, Reply
from costspan.conformance.suite.script import Call

_READ_TO_THE_END = (
    "a graph's thread reads its model's stream to the end, whoever left: the provider tells the"
    " usage, and it is booked in full where the scenario has it lost"
)


class _Talk(TypedDict):
    """The state of a graph of one node."""

    messages: list[Any]


class LangGraphAgents(ChatOpenAICalls):
    """Every agent and every call runs in a graph; a host's retry is a node's retry policy."""

    name: ClassVar[str] = "langgraph"
    can: ClassVar[frozenset[str]] = ChatOpenAICalls.can | {
        *("agent_policy", "agent_middleware", "summarize")
    }
    known_failures: ClassVar[Mapping[str, str]] = {
        "K04": NOT_CACHED["K04"],
        "S03-sync": _READ_TO_THE_END,
        "S04-sync": _READ_TO_THE_END,
    }
    has_agents: ClassVar[bool] = True

    # Calls: a graph of one node

    def converse(self, ask: Ask, config: RunnableConfig) -> Reply:
        """One chat in a node; a streamed one is read as the graph's messages."""
        replies: list[Reply] = []
        graph, asked = self._of_one_node(ask, replies), {"messages": ask.messages}
        if not ask.call.stream:
            graph.invoke(asked, config)
            return replies[0]
        chunks = graph.stream(asked, config, stream_mode="messages")
        for chunk, _ in chunks:
            if chunk.content and ask.piece():
                break
        if ask.call.leave is not None and ask.call.leave.how == "close":
            chunks.close()
        return Reply()

    async def aconverse(self, ask: Ask, config: RunnableConfig) -> Reply:
        """One chat in a node, on the event loop."""
        replies: list[Reply] = []
        graph, asked = self._of_one_node(ask, replies), {"messages": ask.messages}
        if not ask.call.stream:
            await graph.ainvoke(asked, config)
            return replies[0]
        chunks = graph.astream(asked, config, stream_mode="messages")
        async for chunk, _ in chunks:
            if chunk.content and ask.piece():
                break
        if ask.call.leave is not None and ask.call.leave.how == "close":
            await chunks.aclose()
        return Reply()

    def runnable(self, ask: Ask) -> Runnable[Any, Any]:
        """The node is tried again, not the model; unless another model is to stand in after."""
        if ask.call.fallback is None and ask.call.retried_by == "host":
            ask = replace(ask, call=structs.replace(ask.call, retries=0))
        return super().runnable(ask)

    def _of_one_node(self, ask: Ask, replies: list[Reply]) -> Any:
        runnable = self.runnable(ask)

        def think(state: _Talk) -> dict[str, Any]:
            replies.append(reply_of(runnable.invoke(state["messages"])))
            return {}

        async def athink(state: _Talk) -> dict[str, Any]:
            replies.append(reply_of(await runnable.ainvoke(state["messages"])))
            return {}

        graph: Any = StateGraph(_Talk)
        call = ask.call
        again = call.retries if call.retried_by == "host" and call.fallback is None else 0
        graph.add_node("think", RunnableLambda(think, athink), retry_policy=_policy(again))
        graph.add_edge(START, "think")
        return graph.compile()

    # Agents

    def run_agent(self, ask: AgentAsk) -> None:
        """Run the agent to its answer."""
        graph, asked, config = self._agent(ask), self._asked(ask), self.config(_call_of(ask))
        if not ask.agent.stream:
            graph.invoke(asked, config)
            return
        for _ in graph.stream(asked, config, stream_mode="messages"):
            pass

    async def arun_agent(self, ask: AgentAsk) -> None:
        """Run the agent on the event loop."""
        graph, asked, config = self._agent(ask), self._asked(ask), self.config(_call_of(ask))
        if not ask.agent.stream:
            await graph.ainvoke(asked, config)
            return
        async for _ in graph.astream(asked, config, stream_mode="messages"):
            pass

    def _asked(self, ask: AgentAsk) -> dict[str, Any]:
        """The user's message. Where a summary replaces the history, the script is kept apart."""
        words = "and now?" if ask.agent.summarize is not None else ask.prompt
        return {"messages": [{"role": "user", "content": words}]}

    def _agent(self, ask: AgentAsk) -> Any:
        agent, tools = ask.agent, [_tool(ask, name) for name in ask.tools]
        model = self.model(agent.model, _call_of(ask))
        if agent.retries and agent.retried_by == "policy":
            return _by_hand(model, tools, agent.retries)
        response = None
        if agent.structured is not None:
            response = ToolStrategy[Any](function_named(agent.structured))
        return create_agent(
            model,
            tools,
            name=agent.name,
            middleware=self._middleware(ask),
            response_format=response,
            system_prompt=ask.prompt if agent.summarize is not None else None,
        )

    def _middleware(self, ask: AgentAsk) -> list[AgentMiddleware[Any, Any, Any]]:
        agent, call = ask.agent, _call_of(ask)
        found: list[AgentMiddleware[Any, Any, Any]] = []
        if agent.fallback is not None:
            found.append(ModelFallbackMiddleware(self.model(agent.fallback, call)))
        if agent.retries:
            found.append(
                ModelRetryMiddleware(
                    max_retries=agent.retries,
                    retry_on=(Exception,),
                    on_failure="error",
                    initial_delay=0,
                    jitter=False,
                )
            )
        if agent.summarize is not None:
            words = ask.summary.replace("{", "{{").replace("}", "}}")
            found.append(
                SummarizationMiddleware(
                    self.model(agent.model, Call(model=agent.model)),
                    trigger=("messages", 3),  # the user's, the step, what the tool found
                    keep=("messages", 2),
                    summary_prompt=f"{words} Summarise: {{messages}}",
                )
            )
        return found


def _call_of(ask: AgentAsk) -> Call:
    return Call(model=ask.agent.model, stream=ask.agent.stream)


def _policy(retries: int) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=0, jitter=False, max_attempts=retries + 1, retry_on=Exception
    )


def _tool(ask: AgentAsk, name: str) -> StructuredTool:
    run, arun = ask.tools[name], ask.atools[name]

    def use(q: str = "") -> str:
        try:
            return run(q)
        except Exception as error:
            raise ToolException(type(error).__name__) from error

    async def ause(q: str = "") -> str:
        try:
            return await arun(q)
        except Exception as error:
            raise ToolException(type(error).__name__) from error

    return StructuredTool.from_function(
        use, ause, name=name, description=f"Use {name}.", handle_tool_error=True
    )


def _by_hand(model: Any, tools: list[StructuredTool], retries: int) -> Any:
    """The graph that `create_agent` makes, whose model node has a retry policy."""
    bound = model.bind_tools(tools) if tools else model

    def think(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    async def athink(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await bound.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph.add_node("model", RunnableLambda(think, athink), retry_policy=_policy(retries))
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


driver = LangGraphAgents
