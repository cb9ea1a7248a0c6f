"""Calls that nobody lets finish: cancelled, timed out, abandoned, broken off by the provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import costspan
from costspan.adapters.langchain.lifecycle import RUNS
from costspan.adapters.langchain.partial import ESTIMATOR
from costspan.conformance.provider import LoopbackProvider

ModelOf = Callable[..., ChatOpenAI]
STUCK = "[[fault=timeout]]"
WORDS = "[[in=100 out=80 text='one two three four']]"
STUCK_IN_THE_MIDDLE = "[[in=100 out=80 fault=timeout after=2 text='one two three four']]"


async def until(is_so: Callable[[], Any]) -> None:
    """Give the event loop turns until it is so."""
    async with asyncio.timeout(20):
        while not is_so():
            await asyncio.sleep(0)


def estimated(asked: str, replied: str) -> dict[str, int]:
    return {"input": -(-len(asked) // 4), "output": -(-len(replied) // 4)}


@pytest.mark.parametrize("how", ["cancel", "wait_for", "timeout"])
async def test_an_ainvoke_nobody_waits_for_ends_unmeasured(
    how: str, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    """`asyncio.timeout` cancels inside a task that lives on: no task tells of it."""
    with costspan.attribute("acme"):
        call = model_of().ainvoke(STUCK, config=seen)
        if how == "cancel":
            task = asyncio.create_task(call)
            await ledger.arrived()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
        elif how == "wait_for":
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.1)
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await call
    await until(lambda: not len(RUNS))
    event = ledger.event()
    assert (event["outcome"], event["owner"], event["cost"]) == ("cancelled_by_user", "acme", None)
    assert event["flags"] == ["unmeasured"]
    (row,) = ledger.truth
    assert row.cost_pico, "the provider bills what nobody waited for"


async def test_a_task_that_lives_on_does_not_keep_the_run(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    """One worker, many calls that time out: each is over before the next begins."""
    for tenant in ("acme", "globex", "acme"):
        with costspan.attribute(tenant):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await model_of().ainvoke(STUCK, config=seen)
            await until(lambda: not len(RUNS))
    owners = sorted((e["owner"], e["outcome"]) for e in ledger.events())
    assert owners == [(owner, "cancelled_by_user") for owner in ("acme", "acme", "globex")]


async def test_a_stream_cancelled_in_its_task_is_estimated(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    read: list[str] = []

    async def consume() -> None:
        stream = model_of(stream_usage=True).astream(STUCK_IN_THE_MIDDLE, config=seen)
        async for chunk in stream:
            read.append(str(chunk.content))

    task = asyncio.create_task(consume())
    await until(lambda: "".join(read) == "one two")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    end = books.end()
    assert (end.delivery, end.error_type) == ("cancelled_by_user", "CancelledError")
    assert (end.usage, end.usage_source) == (estimated(STUCK_IN_THE_MIDDLE, "one two"), "estimated")
    assert end.delivered_usage == {"output": 2}
    assert end.raw_usage == {
        "estimator": ESTIMATOR,
        "characters_in": len(STUCK_IN_THE_MIDDLE),
        "characters_out": len("one two"),
    }


async def test_an_ainvoke_that_streams_inside_is_estimated(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    """As under LangGraph's `stream_mode="messages"`: cancelled, it says nothing at all."""
    model = model_of(streaming=True, stream_usage=True)
    task = asyncio.create_task(model.ainvoke(STUCK_IN_THE_MIDDLE, config=seen))
    await until(lambda: any(r.partial and r.partial.characters == 7 for r in RUNS))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not len(RUNS))
    end = books.end()
    assert (end.delivery, end.usage_source) == ("cancelled_by_user", "estimated")
    assert end.usage == estimated(STUCK_IN_THE_MIDDLE, "one two")


@pytest.mark.parametrize("handlers", [1, 2])
async def test_an_abandoned_stream_is_charged_what_was_delivered(
    handlers: int, model_of: ModelOf, handler: Any, ledger: Any
) -> None:
    model = model_of(stream_usage=True, callbacks=[type(handler)() for _ in range(handlers - 1)])
    with costspan.attribute("acme"):
        stream = model.astream(WORDS, config={"callbacks": [handler]})
        async for chunk in stream:
            if chunk.content == " three":
                break
        await stream.aclose()  # type: ignore[attr-defined]  # declared as AsyncIterator
    event = ledger.event()
    assert (event["outcome"], event["flags"]) == ("cancelled_by_user", ["estimated"])
    assert event["usage"] == estimated(WORDS, "one two three")
    assert event["charge"] == event["cost"] == "0.000067500000"


def test_a_stream_abandoned_after_its_usage_is_the_providers(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    stream = model_of(stream_usage=True).stream(WORDS, config=seen)
    for chunk in stream:
        if chunk.usage_metadata:
            break
    stream.close()  # type: ignore[attr-defined]  # declared as Iterator
    end = books.end()
    assert (end.usage, end.usage_source) == ({"input": 100, "output": 80}, None)
    assert (end.delivered_usage, end.executed_model) == (None, "gpt-4o-2024-08-06")


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_provider_that_dies_is_its_own_fault(
    is_async: bool, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    words = "[[in=100 out=80 fault=die after=2 text='one two three four']]"
    model = model_of(stream_usage=True)

    async def ask() -> None:
        if is_async:
            async for _ in model.astream(words, config=seen):
                pass
        else:
            list(model.stream(words, config=seen))

    with costspan.attribute("acme"), pytest.raises(Exception, match="closed"):
        await ask()
    event = ledger.event()
    assert (event["outcome"], event["fault"], event["owner"]) == ("failed", "provider", "@platform")
    assert (event.get("provider_billed"), event["flags"]) == (None, ["estimated"])
    assert event["usage"] == estimated(words, "one two")
    assert event["charge"] == "0.000000000000"


async def test_a_stream_that_another_task_reads_on_is_not_given_up(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    """A server peeks at the first chunk and lets a task of its own send the rest."""
    stream = model_of(stream_usage=True).astream(WORDS, config=seen)

    async def peek() -> None:
        await anext(stream)

    with costspan.attribute("acme"):
        await asyncio.create_task(peek())
    async for _ in stream:
        pass
    event = ledger.event()
    assert (event["outcome"], event["owner"]) == ("ok", "acme")
    assert event["usage"] == {"input": 100, "output": 80}


async def test_an_end_after_the_run_was_given_up_is_still_taken(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any, counted: Callable[[str], int]
) -> None:
    stream = model_of(stream_usage=True).astream(WORDS, config=seen)

    async def peek() -> None:
        await anext(stream)
        await asyncio.Event().wait()

    with costspan.attribute("acme"):
        task = asyncio.create_task(peek())
        await until(lambda: any(run.has_reply for run in RUNS))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await until(lambda: not len(RUNS))
    assert ledger.event()["outcome"] == "cancelled_by_user"
    async for _ in stream:
        pass
    assert counted("langchain_end_without_start") == 1
    event = ledger.event()
    assert (event["outcome"], event["owner"]) == ("ok", "acme")
    assert event["usage"] == {"input": 100, "output": 80}


async def test_what_was_abandoned_leaves_no_text(
    model_of: ModelOf, seen: RunnableConfig, books_at: Any, recorded: Any
) -> None:
    words = "[[text='a secret reply']] a secret question"
    stream = model_of().stream([("user", words)], config=seen)
    while next(stream).content != " secret":
        pass
    stream.close()  # type: ignore[attr-defined]  # declared as Iterator
    assert len(recorded()) == 2
    assert all(b"secret" not in path.read_bytes() for path in books_at.rglob("*.*"))


@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_protocol_events_count_once(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    stream = await model_of().astream_events(STUCK_IN_THE_MIDDLE, config=seen, version="v3")
    task = asyncio.create_task(anext(aiter(stream.text)))
    await until(lambda: any(r.partial and r.partial.characters == 7 for r in RUNS))
    task.cancel()
    await stream.aclose()
    await until(lambda: not len(RUNS))
    end = books.end()
    assert (end.delivery, end.usage) == (
        "cancelled_by_user",
        estimated(STUCK_IN_THE_MIDDLE, "one two"),
    )
