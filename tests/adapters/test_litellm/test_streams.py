"""Streams: usage only where the provider reported it, and an end for those nobody reads to it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import litellm
import pytest

import costspan
from costspan.adapters.litellm import CostLogger, abandoned, flush, install, reply

_SAID = "one two three four five six seven eight"


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


@pytest.fixture
def asking() -> None:
    litellm.callbacks[:] = [CostLogger(include_usage=True)]


def collected() -> None:
    """Let go of what nobody holds any more, and wait until its end is written."""
    gc.collect()
    assert abandoned.settled()


async def read(sync: bool, model: str, text: Any, **asked: Any) -> None:
    """One stream, read to its end."""
    if sync:
        await asyncio.to_thread(lambda: list(litellm.completion(model, text, stream=True, **asked)))
    else:
        async for _ in await litellm.acompletion(model, text, stream=True, **asked):
            pass
    await flush()


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_a_stream_is_asked_for_its_usage_on_request(
    attempts: Any, provider: Any, to_provider: Any, said: Any, asking: None, sync: bool
) -> None:
    with costspan.attribute("acme"):
        case = f"asked-{sync}"
        await read(sync, "openai/gpt-4o", said(f"[[in=1000 out=20 case={case}]]"), **to_provider)
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.usage_source) == ("acme", "provider")
    assert attempt.usage == {"input": 1000, "output": 20}
    assert attempt.executed_model == "gpt-4o-2024-08-06"
    [row] = [row for row in provider.truth if row.case == case]
    assert row.reported is True


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_unasked_a_stream_goes_out_as_it_is_and_its_usage_is_no_report(
    attempts: Any, provider: Any, to_provider: Any, said: Any, sync: bool
) -> None:
    case = f"unasked-{sync}"
    await read(sync, "openai/gpt-4o", said(f"[[in=1000 out=20 case={case}]]"), **to_provider)
    [attempt] = attempts(1)
    assert attempt.usage_source in ("estimated", "missing")
    if attempt.usage_source == "missing":  # LiteLLM found no tokens at all: unknown, never zero
        assert attempt.usage is None
    assert attempt.host_cost is None or attempt.usage_source == "estimated"
    [row] = [row for row in provider.truth if row.case == case]
    assert row.reported is False


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_stream_options_of_the_caller_stay(
    attempts: Any, provider: Any, to_provider: Any, said: Any, asking: None, sync: bool
) -> None:
    case = f"own-{sync}"
    text = said(f"[[in=10 out=9 case={case}]]")
    options = {"include_usage": False}
    await read(sync, "openai/gpt-4o", text, stream_options=options, **to_provider)
    [attempt] = attempts(1)
    assert attempt.usage_source != "provider"
    [row] = [row for row in provider.truth if row.case == case]
    assert row.reported is False


async def test_a_wire_without_stream_options_is_left_alone(
    attempts: Any, provider: Any, said: Any, asking: None
) -> None:
    at = {"api_base": provider.url, "api_key": "any"}
    seen: list[set[str]] = []

    def looks(call: Any) -> bool:
        seen.append(set(call.body))
        return False

    provider.script(looks, "in=1 out=1")
    await read(False, "anthropic/claude-sonnet-4-5", said("[[in=100 out=20]]"), **at)
    [attempt] = attempts(1)
    assert seen
    assert not any("stream_options" in body for body in seen)
    assert (attempt.usage, attempt.usage_source) == ({"input": 100, "output": 20}, "provider")


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_an_abandoned_stream_ends_with_what_was_delivered(
    attempts: Any, books_at: Path, to_provider: Any, said: Any, sync: bool
) -> None:
    text = said(f"[[in=100 out=20 text='{_SAID}']] a question of some length")
    asked = dict(stream=True, **to_provider)
    with costspan.attribute("acme"):
        if sync:
            stream: Any = litellm.completion("openai/gpt-4o", text, **asked)
            delivered = "".join(next(stream).choices[0].delta.content or "" for _ in range(4))
        else:
            stream = await litellm.acompletion("openai/gpt-4o", text, **asked)
            chunks = [await anext(stream) for _ in range(4)]
            delivered = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            del chunks
            await stream.aclose()
    assert 0 < len(delivered) < len(_SAID)
    del stream
    await flush()  # what LiteLLM still does with the chunks it showed
    await _ended(attempts)
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.delivery) == ("acme", "cancelled_by_user")
    assert attempt.provider_result == "ok"
    assert attempt.usage_source == "estimated"
    assert 0 < attempt.usage["output"] < 20
    assert attempt.usage["input"] > 0
    assert attempt.delivered_usage == attempt.usage
    assert attempt.executed_model == "gpt-4o-2024-08-06"
    written = b"".join(p.read_bytes() for p in books_at.rglob("*") if p.is_file())
    assert b"three" not in written
    assert b"question" not in written


async def _ended(attempts: Any) -> None:
    """Wait for the end: LiteLLM's threads keep a sync stream while they work on its chunks."""
    for _ in range(100):
        collected()
        try:
            attempts(0)
        except AssertionError:  # it is no longer true that none has ended
            return
        await asyncio.sleep(0.05)


async def test_a_stream_closed_before_its_first_chunk_is_unmeasured(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    stream = await litellm.acompletion(
        "openai/gpt-4o", said("[[in=10 out=5]]"), stream=True, **to_provider
    )
    await stream.aclose()
    del stream
    collected()
    [attempt] = attempts(1)
    assert (attempt.delivery, attempt.usage_source) == ("cancelled_by_user", "missing")
    assert attempt.usage is None


async def test_an_abandoned_hit_of_the_cache_costs_no_second_fill(
    attempts: Any, to_provider: Any, said: Any, response_cache: None
) -> None:
    asked = dict(stream=True, stream_options={"include_usage": True}, **to_provider)
    text = said("[[in=1000 out=20]] a stream to keep")
    async for _ in await litellm.acompletion("openai/gpt-4o", text, **asked):
        pass
    await flush()
    hit = await litellm.acompletion("openai/gpt-4o", text, **asked)
    await anext(hit)
    del hit
    collected()
    fill, hit_attempt = attempts(2)
    assert fill.usage == {"input": 1000, "output": 20}
    assert (hit_attempt.cache, hit_attempt.usage) == ("exact", None)
    assert hit_attempt.delivery == "cancelled_by_user"


async def test_a_cancelled_call_ends_unknown_and_unmeasured(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    async def ask() -> None:
        await litellm.acompletion("openai/gpt-4o", said("[[in=10 out=5 delay=30]]"), **to_provider)

    with costspan.attribute("acme"):
        task = asyncio.create_task(ask())
    while not attempts(0):
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    del task
    collected()
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.provider_result) == ("acme", "unknown")
    assert (attempt.delivery, attempt.usage_source) == ("cancelled_by_user", "missing")
    assert (attempt.usage, attempt.provider_billed) == (None, None)


def test_a_client_that_left_the_proxy_is_an_estimate_of_what_it_got() -> None:
    # LiteLLM calls it a success, with a finish and tokens of its own invention.
    details: dict[str, Any] = {
        **{"call_type": "acompletion", "stream": True, "custom_llm_provider": "openai"},
        "standard_logging_object": {"error_str": reply.DISCONNECTED},
    }
    counts = {"prompt_tokens": 24, "completion_tokens": 7, "prompt_tokens_details": {"x": 1}}
    facts = reply.facts_of(details, {"id": "c", "model": "gpt-4o", "usage": counts})
    assert (facts["usage_source"], facts["delivery"]) == ("estimated", "cancelled_by_user")
    assert facts["delivered_usage"] == facts["usage"] == {"input": 24, "output": 7}


_AT_THE_END = """
import asyncio, os, sys, warnings
warnings.simplefilter("ignore")
import costspan, litellm
from costspan.adapters.litellm import install

books, url, how = sys.argv[1:]
costspan.configure(ledger=books + "/ledger.db", spool=books + "/spool", background=False)
install()
kept = []

async def stream(**options):
    return await litellm.acompletion(
        "openai/gpt-4o", [{"role": "user", "content": "[[in=10 out=5]]"}], stream=True,
        stream_options={"include_usage": True}, api_base=url, api_key="any",
    )

async def main():
    for _ in range(5):
        opened = await stream()
        if how == "read":
            async for _ in opened:
                pass
        elif how == "fork":
            kept.append(opened)
            await anext(opened)
    if how == "fork" and os.fork() == 0:
        kept.clear()
        sys.exit(0)  # a child's exit ends none of its parent's calls

asyncio.run(main())
if how == "fork":
    os.wait()
    os._exit(0)
"""


def _run(how: str, books_at: Path, provider: Any) -> None:
    command = [sys.executable, "-c", _AT_THE_END, str(books_at), provider.base_url, how]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


def test_streams_read_to_their_end_survive_the_loop_that_ends_at_once(
    attempts: Any, books_at: Path, provider: Any
) -> None:
    # LiteLLM drops the callbacks it has queued when a loop ends: of these, some or all.
    _run("read", books_at, provider)
    found = attempts(5)
    assert [a.usage for a in found] == [{"input": 10, "output": 5}] * 5
    assert {a.usage_source for a in found} == {"provider"}
    assert {a.delivery for a in found} == {None}


def test_a_forked_child_ends_none_of_its_parents_calls(
    attempts: Any, books_at: Path, provider: Any
) -> None:
    _run("fork", books_at, provider)
    assert len(attempts(0)) == 5
