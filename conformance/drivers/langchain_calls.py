"""What the drivers of LangChain's models share: how a call is made, configured and read."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, ClassVar

import httpx
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)

import costspan
from costspan.adapters.langchain import CostHandler
from costspan.conformance.suite.driver import CLAIMS, Ask, Driver, Reply, ToolCall
from costspan.conformance.suite.script import Call

ASSERTED: dict[str, Any] = {
    **CLAIMS,
    **{f"costspan_{name}": value for name, value in CLAIMS.items()},
    **{"thread_id": "initech-thread", "user_api_key_team_id": "initech", "total_cost": 0},
    "lc_source": "safety",
}
"""What a caller may say of a call in LangChain's metadata; none of it may move money."""


NOT_CACHED: Mapping[str, str] = {
    "K03": "LangChain's stream() does not look into its cache: each stream is a call, and billed",
    "K04": "LangChain's cache holds no embeddings: each is a call, and billed",
}
"""Where the host does what the script does not say; the books are right about what it did."""


class LangChainCalls(Driver):
    """Calls chat models and embeddings as an application does; says which ones by `model`."""

    can: ClassVar[frozenset[str]] = frozenset(
        "sync async chat embeddings stream unasked_usage structured checked several tier timeout"
        " cancel abandon close cancel_stream host_retries fallback exact_cache retrieval verdict"
        " work tool agent together background owner other_owner claims_metadata registered_twice"
        " failing_callback reused_metadata loop_closes".split()
    )

    def model(self, name: str, call: Call) -> Any:
        """A chat model with the options of `call`."""
        raise NotImplementedError

    def embeddings(self, name: str) -> Any:
        """Embeddings as costspan meters them."""
        raise NotImplementedError

    def begin(self, options: frozenset[str]) -> None:
        """Register costspan for the process, as an application does once."""
        costspan.install("langchain")
        self.http = httpx.AsyncClient()  # LangChain shares one for ever: its loop ends with a play
        self.is_closing = "loop_closes" in options
        self._callbacks: list[BaseCallbackHandler] = []
        if "failing_callback" in options:
            self._callbacks.append(_Failing())
        if "registered_twice" in options:
            self._callbacks += [CostHandler(), CostHandler()]
        self._metadata: dict[str, Any] | None = None
        if "reused_metadata" in options:
            self._metadata = {"app": "conformance"}
        if "exact_cache" in options:
            set_llm_cache(InMemoryCache())

    def end(self) -> None:
        """Nothing is cached for the next play."""
        set_llm_cache(None)

    async def afinish(self) -> None:
        """Let go of the connections of this loop; the handler itself runs in the call."""
        if not self.is_closing:
            await self.http.aclose()

    # Calls

    def ask(self, ask: Ask) -> Reply:
        """Make a call and wait for it."""
        if ask.call.api == "embeddings":
            self.embeddings(ask.call.model).embed_query(ask.prompt)
            return Reply()
        return self.converse(ask, self.config(ask.call))

    async def aask(self, ask: Ask) -> Reply:
        """Make a call on the event loop."""
        if ask.call.api == "embeddings":
            await self.embeddings(ask.call.model).aembed_query(ask.prompt)
            return Reply()
        return await self.aconverse(ask, self.config(ask.call))

    def converse(self, ask: Ask, config: RunnableConfig) -> Reply:
        """One chat, streamed or not."""
        runnable = self.runnable(ask)
        if not ask.call.stream:
            return reply_of(runnable.invoke(ask.messages, config))
        for tries_left in reversed(range(_stream_tries(ask.call))):
            try:
                return self._read(runnable.stream(ask.messages, config), ask)
            except Exception:
                if not tries_left:
                    raise
        raise AssertionError

    async def aconverse(self, ask: Ask, config: RunnableConfig) -> Reply:
        """One chat on the event loop."""
        runnable = self.runnable(ask)
        if not ask.call.stream:
            return reply_of(await runnable.ainvoke(ask.messages, config))
        for tries_left in reversed(range(_stream_tries(ask.call))):
            try:
                return await self._aread(runnable.astream(ask.messages, config), ask)
            except Exception:
                if not tries_left:
                    raise
        raise AssertionError

    def _read(self, chunks: Any, ask: Ask) -> Reply:
        whole = _Whole()
        for chunk in chunks:
            if whole.add(chunk) and ask.piece():
                break
        if ask.call.leave is not None and ask.call.leave.how == "close":
            chunks.close()
        return whole.reply()

    async def _aread(self, chunks: Any, ask: Ask) -> Reply:
        whole = _Whole()
        async for chunk in chunks:
            if whole.add(chunk) and ask.piece():
                break
        if ask.call.leave is not None and ask.call.leave.how == "close":
            await chunks.aclose()
        return whole.reply()

    def runnable(self, ask: Ask) -> Runnable[Any, Any]:
        """The model with everything LangChain puts around one."""
        call = ask.call
        chosen = self._bound(call.model, ask)
        if call.fallback is not None:
            chosen = chosen.with_fallbacks([self._bound(call.fallback, ask)])
        if call.claims == "metadata":  # asserted by a child run, of which the caller is the parent
            asserting = chosen.with_config(metadata=ASSERTED, tags=["tenant:initech"])
            return RunnablePassthrough[Any]() | asserting
        return chosen

    def _bound(self, name: str, ask: Ask) -> Runnable[Any, Any]:
        call = ask.call
        bound: Runnable[Any, Any] = self.model(name, call)
        if call.structured is not None:
            forced = function_named(call.structured)
            bound = self.model(name, call).with_structured_output(forced, method="function_calling")
            if call.then:
                bound = bound | RunnableLambda(_checked)
        elif ask.tools:
            bound = self.model(name, call).bind_tools([function_named(tool) for tool in ask.tools])
        if call.retries and call.retried_by == "host":
            bound = self.retried(bound, call.retries)
        return bound

    def retried(self, runnable: Runnable[Any, Any], retries: int) -> Runnable[Any, Any]:
        """`runnable`, tried again by the host."""
        return runnable.with_retry(stop_after_attempt=retries + 1, wait_exponential_jitter=False)

    def config(self, call: Call) -> RunnableConfig:
        """The config of a call; where the scenario says so, the same dict for all."""
        config = RunnableConfig(callbacks=self.callbacks())
        if self._metadata is not None:
            config["metadata"] = self._metadata
        if call.claims == "metadata":
            config["metadata"] = {**ASSERTED, **config.get("metadata", {})}
            config["tags"] = ["tenant:initech", "cost:0"]
        return config

    def callbacks(self) -> list[BaseCallbackHandler]:
        """The callbacks that the application passes itself."""
        return list(self._callbacks)

    # What LangChain has around calls

    def retrieve(self, body: Callable[[], None]) -> None:
        """Run `body` inside a retriever."""
        _Shelf(body=body).invoke("q", RunnableConfig(callbacks=self.callbacks()))

    async def aretrieve(self, body: Callable[[], Awaitable[None]]) -> None:
        """Run `body` inside a retriever, on the event loop."""
        await _Shelf(abody=body).ainvoke("q", RunnableConfig(callbacks=self.callbacks()))

    def together(self, bodies: Sequence[Callable[[], None]]) -> None:
        """Run `bodies` as the branches of a `RunnableParallel`."""
        branches = {f"b{n}": RunnableLambda(_ignoring(body)) for n, body in enumerate(bodies)}
        RunnableParallel[Any](branches).invoke({})

    async def atogether(self, bodies: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Run `bodies` as branches on the event loop."""
        branches = {f"b{n}": RunnableLambda(_aignoring(body)) for n, body in enumerate(bodies)}
        await RunnableParallel[Any](branches).ainvoke({})


def function_named(name: str) -> dict[str, Any]:
    """A function that takes one text `q`, for a tool or a structured answer."""
    text = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"]}
    return {"title": name, "description": f"Use {name}.", **text}


def reply_of(answer: object) -> Reply:
    """What the suite wants to know of a message; of a structured answer, nothing."""
    if not isinstance(answer, AIMessage):
        return Reply()
    calls = tuple(
        ToolCall(str(call["id"]), call["name"], json.dumps(call["args"]))
        for call in answer.tool_calls
    )
    said = answer.response_metadata
    named = said.get("id")
    provider = said.get("model_provider")
    if named is not None:
        return Reply(answer.text, calls, f"{provider}//{named}")
    run = str(answer.id).removeprefix("lc_run--")[:36]  # LangChain's message ids are of their runs
    return Reply(answer.text, calls, operation_id=f"langchain:{run}")


def _stream_tries(call: Call) -> int:
    """`with_retry` leaves streams alone: an application tries those again by hand."""
    return 1 + (call.retries if call.retried_by == "host" else 0)


class _Whole:
    """The message that the chunks of a stream add up to."""

    def __init__(self) -> None:
        self._message: AIMessageChunk | None = None

    def add(self, chunk: object) -> bool:
        """Take a chunk; whether it has content."""
        if not isinstance(chunk, AIMessageChunk):
            return True  # a structured answer so far
        self._message = chunk if self._message is None else self._message + chunk
        return bool(chunk.content)

    def reply(self) -> Reply:
        """What the suite wants to know of it."""
        return reply_of(self._message)


def _checked(answer: Any) -> Any:
    """An application that accepts no answer without a `q`.

    Raises:
        ValueError: which makes the host ask again.
    """
    if not answer or "q" not in answer:
        raise ValueError("the answer has no q")
    return answer


def _ignoring(body: Callable[[], None]) -> Callable[[Any], None]:
    return lambda _: body()


def _aignoring(body: Callable[[], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    async def run(_: Any) -> None:
        await body()

    return run


class _Shelf(BaseRetriever):
    """A retriever that does what the script says, and finds nothing."""

    body: Any = None
    abody: Any = None

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        self.body()
        return []

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        await self.abody()
        return []


class _Failing(BaseCallbackHandler):
    """Somebody else's callback, broken in every hook."""

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")

    def on_tool_start(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("broken")
