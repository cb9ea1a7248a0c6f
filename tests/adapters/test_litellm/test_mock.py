"""Answers that LiteLLM makes up: seen, and free; asking for one in vain hides no real call."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import pytest

import costspan
from costspan.adapters.litellm import flush, install


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


@pytest.mark.parametrize("stream", [False, True], ids=["reply", "stream"])
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_a_mock_is_recorded_unbilled_without_invented_usage(
    attempts: Any, provider: Any, to_provider: Any, said: Any, sync: bool, stream: bool
) -> None:
    served = len(provider.truth)
    asked = dict(mock_response="hi there", stream=stream, **to_provider)
    with costspan.attribute("acme"):
        if sync:
            answer = await asyncio.to_thread(
                litellm.completion, "openai/gpt-4o", said("x"), **asked
            )
            assert not stream or list(answer)
        else:
            answer = await litellm.acompletion("openai/gpt-4o", said("x"), **asked)
            assert not stream or [chunk async for chunk in answer]
    await flush()
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.provider_result) == ("acme", "ok")
    assert attempt.provider_billed is False
    assert "mock" in attempt.flags
    assert (attempt.usage, attempt.usage_source, attempt.host_cost) == (None, "missing", None)
    assert attempt.response_id is None
    assert len(provider.truth) == served


async def test_a_mocked_failure_was_not_billed_either(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    with pytest.raises(litellm.exceptions.InternalServerError):
        await litellm.acompletion(
            "openai/gpt-4o", said("x"), mock_response="litellm.InternalServerError", **to_provider
        )
    [attempt] = attempts(1)
    assert (attempt.provider_result, attempt.provider_billed) == ("failed", False)
    assert "mock" in attempt.flags


async def test_a_mocked_embedding(attempts: Any, to_provider: Any) -> None:
    asked: Any = dict(input=["a"], mock_response=[0.1], **to_provider)
    await litellm.aembedding("openai/text-embedding-3-small", **asked)
    [attempt] = attempts(1)
    assert (attempt.provider_billed, attempt.usage) == (False, None)


@pytest.mark.parametrize("nothing", ["", [], 0, False])
async def test_an_empty_mock_hides_no_real_call(
    attempts: Any, to_provider: Any, said: Any, nothing: Any
) -> None:
    await litellm.acompletion(
        "openai/gpt-4o", said("[[in=10 out=5]]"), mock_response=nothing, **to_provider
    )
    [attempt] = attempts(1)
    assert (attempt.usage, attempt.provider_billed) == ({"input": 10, "output": 5}, None)
    assert "mock" not in attempt.flags


async def test_a_real_call_with_the_key_of_a_mock_is_a_real_call(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    asked = {**to_provider, "api_key": "mock-key"}
    await asyncio.to_thread(litellm.completion, "openai/gpt-4o", said("[[in=10 out=5]]"), **asked)
    [attempt] = attempts(1)
    assert (attempt.usage, attempt.provider_billed) == ({"input": 10, "output": 5}, None)
