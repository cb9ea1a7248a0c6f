"""Over LiteLLM: its callback sees the operation around each call, in every way of calling."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

import costspan
from costspan.adapter import enclosing_operation
from costspan.adapters.langchain import track
from costspan.conformance.provider import LoopbackProvider

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import asks the network
litellm = pytest.importorskip("litellm")
integration = pytest.importorskip("langchain_litellm")
CostLogger = pytest.importorskip("costspan.adapters.litellm").CostLogger

# LiteLLM warns of its own types, and takes a warning that is an error for the provider's failure.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*ReadOnly.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the .* attribute on the instance"),
]


class Look(litellm.integrations.custom_logger.CustomLogger):  # type: ignore[misc,name-defined]  # untyped at this path
    """Notes the operation that encloses each call that is about to leave."""

    def __init__(self) -> None:
        super().__init__()
        self.named: list[str] = []

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        enclosing = enclosing_operation()
        self.named.append("" if enclosing is None else enclosing.operation_id)


_LISTS = (
    *("callbacks", "input_callback", "success_callback", "failure_callback"),
    *("_async_success_callback", "_async_failure_callback"),
)


@pytest.fixture
async def look() -> AsyncIterator[Look]:
    """Registered for one test, whose connections end with it."""
    held = {name: list(getattr(litellm, name)) for name in _LISTS}
    callback = Look()
    litellm.callbacks.append(callback)
    yield callback
    for name, callbacks in held.items():
        getattr(litellm, name)[:] = callbacks
    await litellm.llms.custom_httpx.async_client_cleanup.close_litellm_async_clients()
    for client in list(litellm.in_memory_llm_clients_cache.cache_dict.values()):
        close: Any = getattr(client, "close", None)
        if not inspect.iscoroutinefunction(close):
            close()
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.fixture
def chat(provider: LoopbackProvider) -> Any:
    return integration.ChatLiteLLM(
        model="openai/gpt-4o", api_base=provider.base_url, api_key="any", max_retries=0
    )


@pytest.mark.parametrize("how", ["invoke", "batch", "stream"])
def test_litellm_sees_the_operation(
    how: str, chat: Any, look: Look, seen: RunnableConfig, books: Any
) -> None:
    chat.invoke("hi", config=seen)
    if how == "batch":  # by now LiteLLM has a client: threads that start together would leak some
        chat.batch(["hi"] * 4, config=seen)
    elif how == "stream":
        assert list(chat.stream("hi", config=seen))
    assert sorted(look.named) == sorted(start.operation_ids[0] for start in books.starts())
    assert enclosing_operation() is None


@pytest.mark.parametrize("how", ["ainvoke", "astream", "gather"])
async def test_litellm_sees_the_operation_in_tasks(
    how: str, chat: Any, look: Look, seen: RunnableConfig, books: Any
) -> None:
    if how == "ainvoke":
        await chat.ainvoke("hi", config=seen)
    elif how == "astream":
        assert [chunk async for chunk in chat.astream("hi", config=seen)]
    else:
        await asyncio.gather(*(chat.ainvoke("hi", config=seen) for _ in range(4)))
    assert sorted(look.named) == sorted(start.operation_ids[0] for start in books.starts())
    assert enclosing_operation() is None


def test_what_litellm_echoes_is_no_fact(
    chat: Any, look: Look, seen: RunnableConfig, books: Any
) -> None:
    chat.invoke("[[in=100 out=20 cached=40]]", config=seen)
    end = books.end()
    assert (end.requested_model, end.executed_model) == ("openai/gpt-4o", None)
    assert (end.provider, end.response_id, end.attempts_hidden) == (None, None, None)
    assert end.usage == {"input": 60, "cache_read": 40, "output": 20}


@pytest.fixture
def router_chat(provider: LoopbackProvider) -> Iterator[Any]:
    reached = {"model": "openai/gpt-4o", "api_base": provider.base_url, "api_key": "any"}
    router = litellm.Router([{"model_name": "fast", "litellm_params": reached}], num_retries=0)
    yield integration.ChatLiteLLMRouter(router=router, model_name="fast")
    router.discard()


def test_a_router_sees_the_operation(
    router_chat: Any, look: Look, seen: RunnableConfig, books: Any
) -> None:
    router_chat.invoke("hi", config=seen)
    assert list(router_chat.stream("hi", config=seen))
    assert look.named == [start.operation_ids[0] for start in books.starts()]
    assert {(end.requested_model, end.executed_model) for end in books.ends()} == {("fast", None)}


async def test_an_async_router_sees_the_operation(
    router_chat: Any, look: Look, seen: RunnableConfig, books: Any
) -> None:
    await asyncio.gather(*(router_chat.ainvoke("hi", config=seen) for _ in range(3)))
    assert sorted(look.named) == sorted(start.operation_ids[0] for start in books.starts())


class Finishing(CostLogger):  # type: ignore[misc,valid-type]  # imported where LiteLLM is installed
    """Says when LiteLLM's own thread has told it of a reply."""

    def __init__(self) -> None:
        super().__init__()
        self.has_finished = threading.Event()

    def log_success_event(self, *args: Any, **kwargs: Any) -> None:
        super().log_success_event(*args, **kwargs)
        self.has_finished.set()


def test_an_attempt_of_the_litellm_adapter_names_the_operation(
    chat: Any, look: Look, seen: RunnableConfig, books: Any, recorded: Any
) -> None:
    logger = Finishing()
    litellm.callbacks.append(logger)
    chat.invoke("hi", config=seen)
    assert logger.has_finished.wait(20)
    (operation,) = {o.operation_ids for o in books.all()}
    attempts = [o for o in recorded() if o.attempt_id is not None]
    assert len({o.attempt_id for o in attempts}) == 1
    assert {o.phase for o in attempts} == {"start", "end"}
    assert all(set(operation) < set(o.operation_ids) for o in attempts)


@pytest.fixture
def logger(look: Look) -> Any:
    """The LiteLLM adapter, taken away after the test as `look` is."""
    logger = Finishing()
    litellm.callbacks.append(logger)
    return logger


async def settle() -> None:
    """Wait until LiteLLM has told its callbacks of every reply."""
    from litellm.litellm_core_utils.thread_pool_executor import executor

    await importlib.import_module("costspan.adapters.litellm").flush()
    waits = [executor.submit(lambda: None) for _ in range(executor._max_workers)]
    await asyncio.to_thread(lambda: [done.result(timeout=30) for done in waits])


async def test_two_layers_are_one_event(
    chat: Any, router_chat: Any, logger: Any, seen: RunnableConfig, ledger: Any
) -> None:
    async def ask(model: Any, tenant: str) -> None:
        with costspan.attribute(tenant):
            await model.ainvoke(f"[[tenant={tenant} in=100 out=20 delay=0.01]]", config=seen)

    models = (chat, router_chat)
    await asyncio.gather(*(ask(models[n // 2 % 2], ("acme", "globex")[n % 2]) for n in range(8)))
    await settle()
    assert len(ledger.events()) == 8
    ledger.check()
    assert ledger.rows() == {(t, "direct"): 4 * 450_000_000 for t in ("acme", "globex")}


async def test_a_stream_abandoned_over_litellm_is_closed_by_the_outer_layer(
    chat: Any, logger: Any, seen: RunnableConfig, ledger: Any
) -> None:
    """LiteLLM says nothing of a stream that nobody reads on."""
    with costspan.attribute("acme"):
        stream = chat.astream("[[in=10 out=9 text='one two three']]", config=seen)
        async for chunk in stream:
            if "two" in str(chunk.content):
                break
        await stream.aclose()
    await settle()
    event = ledger.event()
    assert (event["outcome"], event["owner"]) == ("cancelled_by_user", "acme")
    assert "estimated" in event["flags"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_embeddings_over_litellm_are_one_event(
    is_async: bool, logger: Any, ledger: Any, provider: LoopbackProvider
) -> None:
    vectors = track(
        integration.LiteLLMEmbeddings(
            model="openai/text-embedding-3-small", api_base=provider.base_url, api_key="any"
        )
    )
    with costspan.attribute("acme"):
        if is_async:
            await vectors.aembed_query("[[tenant=acme in=7]]")
        else:
            vectors.embed_query("[[tenant=acme in=7]]")
    await settle()
    event = ledger.event()
    assert (event["kind"], event["owner"]) == ("embedding", "acme")
    ledger.check()
