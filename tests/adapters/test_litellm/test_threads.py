"""LiteLLM's own threads: the caller's context goes along, and so does what encloses the call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import litellm
import pytest
from litellm.router import Router

import costspan
from costspan.adapter import OpenOperation, current, open_operation
from costspan.adapters.litellm import install, patches

_DOWN = "status=503 retry_after=0"


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


@pytest.fixture
def enclosed() -> Iterator[OpenOperation]:
    """An open LangChain run around the test."""
    run = OpenOperation("langchain:R1", current())
    open_operation(run)
    yield run
    run.is_open = False


async def test_a_sync_router_inside_an_event_loop_keeps_owner_and_run(
    attempts: Any, provider: Any, to_provider: Any, said: Any, enclosed: Any
) -> None:
    router = Router(
        model_list=[
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **to_provider}}
            for name in ("gpt-4o", "gpt-4o-mini")
        ],
        fallbacks=[{"gpt-4o": ["gpt-4o-mini"]}],
        num_retries=0,
    )
    provider.script("loop", _DOWN, "in=10 out=5")
    with costspan.attribute("acme", session="s1"):
        router.completion("gpt-4o", said("[[loop]]"))  # LiteLLM takes it to a thread of its own
    failed, ok = attempts(2)
    assert {(a.tenant, a.session) for a in (failed, ok)} == {("acme", "s1")}
    assert {a.operation_ids[1:] for a in (failed, ok)} == {("langchain:R1",)}
    assert ok.retry_of == failed.attempt_id
    assert ok.executed_model == "gpt-4o-mini-2024-07-18"


async def test_sync_fallbacks_of_the_sdk_inside_an_event_loop_keep_the_owner(
    attempts: Any, provider: Any, to_provider: Any, said: Any
) -> None:
    provider.script("sdkloop", _DOWN, "in=10 out=5")
    with costspan.attribute("acme"):
        litellm.completion(
            "openai/gpt-4o", said("[[sdkloop]]"), fallbacks=["openai/gpt-4o-mini"], **to_provider
        )
    assert {a.tenant for a in attempts(2)} == {"acme"}


async def test_the_hosts_exception_passes_through_the_thread_unchanged(
    attempts: Any, provider: Any, to_provider: Any, said: Any
) -> None:
    params = {"model": "openai/gpt-4o", **to_provider}
    router = Router(model_list=[{"model_name": "only", "litellm_params": params}], num_retries=0)
    with pytest.raises(litellm.exceptions.RateLimitError):
        router.completion("only", said("[[status=429 retry_after=0]]"))
    [attempt] = attempts(1)
    assert (attempt.provider_result, attempt.fault) == ("failed", "provider")


def test_a_sync_cache_hit_keeps_the_callers_context(
    attempts: Any, to_provider: Any, said: Any, response_cache: None
) -> None:
    for done, tenant in enumerate(("acme", "globex"), start=1):
        with costspan.attribute(tenant):
            asked = said("[[in=1000 out=20]] kept for all")
            litellm.completion("openai/gpt-4o", asked, **to_provider)
        attempts(done)
    fill, hit = attempts(2)
    assert (fill.tenant, fill.cache) == ("acme", None)
    assert (hit.tenant, hit.tenant_source, hit.cache) == ("globex", "context", "exact")


def test_wrapping_litellm_twice_is_wrapping_it_once() -> None:
    from litellm.litellm_core_utils import asyncify
    from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper
    from litellm.litellm_core_utils.thread_pool_executor import executor

    before = asyncify.run_async_function, executor.submit, CustomStreamWrapper.__init__
    patches.apply()
    assert (asyncify.run_async_function, executor.submit, CustomStreamWrapper.__init__) == before
    theirs = litellm.router.run_async_function  # type: ignore[attr-defined]  # as it is named there
    assert theirs is asyncify.run_async_function
