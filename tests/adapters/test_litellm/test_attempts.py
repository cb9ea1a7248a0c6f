"""One attempt per call: async, sync, streams, endpoints."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import litellm
import pytest

import costspan
from costspan.adapters.litellm import CostLogger, callback, flush, install
from costspan.conformance.provider import LoopbackProvider

_USAGE = {"include_usage": True}


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


async def test_an_async_call_is_one_attempt_ended_before_the_caller_has_the_reply(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    with costspan.attribute("acme", session="s1"):
        reply = await litellm.acompletion(
            "openai/gpt-4o", said("[[in=1000 out=20 cached=400]]"), **to_provider
        )
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.tenant_source, attempt.session) == ("acme", "context", "s1")
    assert attempt.usage == {"input": 600, "output": 20, "cache_read": 400}
    assert attempt.usage_source == "provider"
    assert attempt.raw_usage["prompt_tokens"] == 1000
    assert (attempt.requested_model, attempt.executed_model) == ("gpt-4o", "gpt-4o-2024-08-06")
    assert (attempt.provider, attempt.kind, attempt.layer) == ("openai", "model", "gateway")
    assert attempt.response_id == f"openai/{to_provider['api_base']}/{reply.id}"
    assert (attempt.attempt, attempt.retry_of, attempt.attempts_hidden) == (1, None, 0)
    assert attempt.provider_result == "ok"
    assert [o.phase for o in attempt.observations] == ["start", "end"]
    assert attempt.observations[0].tenant == "acme"
    assert attempt.cause is None


async def test_litellms_own_price_is_added_as_a_second_opinion(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    await litellm.acompletion("openai/gpt-4o", said("[[in=1000 out=20]]"), **to_provider)
    await flush()
    [attempt] = attempts(1)
    assert attempt.host_cost == "0.0027"
    assert attempt.flat_cost is None
    assert [o.phase for o in attempt.observations] == ["start", "end", "end"]


def test_a_sync_call_is_one_attempt(attempts: Any, to_provider: Any, said: Any) -> None:
    with costspan.attribute("acme"):
        litellm.completion("openai/gpt-4o", said("[[in=1000 out=20]]"), **to_provider)
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.usage) == ("acme", {"input": 1000, "output": 20})
    assert attempt.executed_model == "gpt-4o-2024-08-06"
    assert attempt.host_cost == "0.0027"
    assert [o.phase for o in attempt.observations] == ["start", "end"]


def test_a_sync_stream_keeps_the_owner_that_its_callback_cannot_see(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    with costspan.attribute("acme"):
        stream = litellm.completion(
            "openai/gpt-4o",
            said("[[in=1000 out=20]]"),
            stream=True,
            stream_options=_USAGE,
            **to_provider,
        )
        chunks = list(stream)
    assert len(chunks) > 1
    [attempt] = attempts(1)
    assert attempt.tenant == "acme"
    assert attempt.usage == {"input": 1000, "output": 20}
    assert [o.phase for o in attempt.observations] == ["start", "end"]


async def test_an_embedding(attempts: Any, to_provider: Any) -> None:
    asked = dict(input=["a b c"], **to_provider)
    await litellm.aembedding("openai/text-embedding-3-small", **asked)
    [attempt] = attempts(1)
    assert (attempt.kind, attempt.usage) == ("embedding", {"input": 3, "output": 0})
    assert attempt.executed_model == "text-embedding-3-small"
    assert attempt.response_id is None


@pytest.mark.parametrize("stream", [False, True])
async def test_the_responses_api(
    attempts: Any, provider: Any, to_provider: Any, stream: bool
) -> None:
    asked = dict(model="openai/gpt-4o", input=f"[[in=10 out=5 case=resp-{stream}]]", stream=stream)
    reply: Any = await litellm.aresponses(**asked, **to_provider)
    if stream:
        async for _ in reply:
            pass
    await flush()
    [attempt] = attempts(1)
    assert attempt.usage == {"input": 10, "output": 5}
    assert attempt.executed_model == "gpt-4o-2024-08-06"
    [row] = [row for row in provider.truth if row.case == f"resp-{stream}"]
    assert attempt.response_id == f"openai/{to_provider['api_base']}/{row.response_id}"


async def test_a_bridged_call_is_one_attempt(attempts: Any, to_provider: Any) -> None:
    # LiteLLM serves the Responses API of this provider through a nested chat completion.
    await litellm.aresponses(model="deepseek/gpt-4o", input="[[in=10 out=5]]", **to_provider)
    await flush()
    [attempt] = attempts(1)
    assert (attempt.provider, attempt.usage) == ("deepseek", {"input": 10, "output": 5})


async def test_the_anthropic_endpoint(attempts: Any, to_provider: Any, said: Any) -> None:
    await litellm.anthropic_messages(
        model="openai/gpt-4o", max_tokens=9, messages=said("[[in=10 out=5]]"), **to_provider
    )
    await flush()
    [attempt] = attempts(1)
    assert attempt.usage == {"input": 10, "output": 5}


async def test_a_reply_without_usage_is_unmeasured_never_zero(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    await litellm.acompletion("openai/gpt-4o", said("[[usage=none]]"), **to_provider)
    await flush()
    [attempt] = attempts(1)
    assert (attempt.usage, attempt.usage_source, attempt.host_cost) == (None, "missing", None)


async def test_a_model_litellm_cannot_price_has_no_second_opinion(attempts: Any, said: Any) -> None:
    with LoopbackProvider(prices={"house-model": {"input": "1", "output": "2"}}) as house:
        await litellm.acompletion(
            "openai/house-model", said("[[in=10 out=5]]"), api_base=house.base_url, api_key="any"
        )
        await flush()
    [attempt] = attempts(1)
    assert (attempt.executed_model, attempt.host_cost) == ("house-model", None)
    assert attempt.usage == {"input": 10, "output": 5}
    assert attempt.attempts_hidden is None  # the client may have retried: nobody said it must not


_TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
_FORCED = {"type": "function", "function": {"name": "search"}}


@pytest.mark.parametrize(
    ("asked", "cause"), [({}, "step"), ({"tool_choice": _FORCED}, None)], ids=["free", "forced"]
)
async def test_a_reply_of_tool_calls_is_a_step_unless_it_is_the_answer(
    attempts: Any, to_provider: Any, said: Any, asked: Any, cause: str | None
) -> None:
    await litellm.acompletion(
        "openai/gpt-4o", said("[[in=10 out=5 tool=search]]"), tools=_TOOLS, **asked, **to_provider
    )
    [attempt] = attempts(1)
    assert attempt.cause == cause
    assert attempt.cause_source == ("inferred" if cause else None)


async def test_an_explicit_cause_wins_over_what_the_reply_suggests(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    with costspan.attribute("acme"), costspan.work("safety"):
        await litellm.acompletion(
            "openai/gpt-4o", said("[[in=10 out=5 tool=search]]"), tools=_TOOLS, **to_provider
        )
    [attempt] = attempts(1)
    assert (attempt.cause, attempt.cause_source) == ("safety", "explicit")
    assert attempt.initiator == "platform"


async def test_an_exact_cache_hit_is_an_event_without_the_usage_of_its_fill(
    attempts: Any, to_provider: Any, said: Any, response_cache: None
) -> None:
    for tenant in ("acme", "globex"):
        with costspan.attribute(tenant):
            asked = said("[[in=1000 out=20]] async hit")
            await litellm.acompletion("openai/gpt-4o", asked, **to_provider)
            await flush()
    fill, hit = attempts(2)
    assert (fill.tenant, fill.cache, fill.usage) == ("acme", None, {"input": 1000, "output": 20})
    assert (hit.tenant, hit.cache, hit.usage) == ("globex", "exact", None)
    assert (hit.avoided_cost, hit.host_cost, hit.response_id) == ("0.0027", None, None)


def test_a_sync_cache_hit_is_owned_by_what_the_metadata_says(
    attempts: Any, to_provider: Any, said: Any, response_cache: None
) -> None:
    for done in (1, 2):
        litellm.completion(
            "openai/gpt-4o",
            said("[[in=1000 out=20]] sync hit"),
            metadata={"tenant": "acme"},
            **to_provider,
        )
        attempts(done)
    _, hit = attempts(2)
    assert (hit.tenant, hit.tenant_source) == ("acme", "metadata")
    assert (hit.cache, hit.usage) == ("exact", None)


async def test_interleaved_calls_of_two_tenants_do_not_mix(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    async def ask(tenant: str, tokens: int) -> None:
        with costspan.attribute(tenant):
            asked = said(f"[[in={tokens} out=1 delay=0.05]]")
            await litellm.acompletion("openai/gpt-4o", asked, **to_provider)

    calls = [(("acme", "globex")[n % 2], 100 + n) for n in range(10)]
    await asyncio.gather(*(ask(tenant, tokens) for tenant, tokens in calls))
    found = {(a.tenant, a.usage["input"]) for a in attempts(10)}
    assert found == set(calls)


async def test_registered_twice_and_two_instances_are_still_one_event(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    litellm.callbacks[:] = [callback, callback, CostLogger()]
    await litellm.acompletion("openai/gpt-4o", said("[[in=10 out=5]]"), **to_provider)
    await flush()
    [attempt] = attempts(1)
    assert [o.phase for o in attempt.observations] == ["start", "end", "end"]
    assert install() is callback
    assert litellm.callbacks.count(callback) == 2


_SHORT_LIFE = """
import asyncio, sys, warnings
warnings.simplefilter("ignore")
import costspan, litellm
from costspan.adapters.litellm import install

# Where a machine is slow records go elsewhere: here every one is to be in the spool.
from costspan.core import recorder
from costspan.core.journal import rung

rung.SLOW_NS = recorder.SLOW_NS = 60 * 10**9

books = sys.argv[1]
costspan.configure(ledger=books + "/ledger.db", spool=books + "/spool", background=False)
install()

async def main():
    await asyncio.gather(*(
        litellm.acompletion(
            "openai/gpt-4o", [{"role": "user", "content": "[[in=10 out=5]]"}],
            api_base=sys.argv[2], api_key="any",
        )
        for _ in range(20)
    ))

asyncio.run(main())
import os
os._exit(0)  # nothing of LiteLLM's or ours runs at exit
"""


def test_an_event_loop_that_ends_at_once_loses_no_reply(
    attempts: Any, books_at: Path, provider: Any
) -> None:
    # LiteLLM drops the callbacks it has queued when a loop ends: some of these, or all.
    short_life = [sys.executable, "-c", _SHORT_LIFE, str(books_at), provider.base_url]
    subprocess.run(short_life, check=True, capture_output=True, timeout=120)
    assert [a.usage for a in attempts(20)] == [{"input": 10, "output": 5}] * 20
