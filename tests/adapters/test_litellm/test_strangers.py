"""Strangers' callbacks, a caller who would not be metered, our own bugs: still one attempt."""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
import pytest
from litellm.integrations.custom_logger import CustomLogger

from costspan.adapters.litellm import flush, install
from costspan.core import counters

_USAGE = {"include_usage": True}


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


async def test_no_log_silences_others_but_not_the_meter(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    asked = dict(stream=True, stream_options=_USAGE, **{"no-log": True}, **to_provider)
    async for _ in await litellm.acompletion("openai/gpt-4o", said("[[in=10 out=5]]"), **asked):
        pass
    await flush()
    [attempt] = attempts(1)
    assert attempt.usage == {"input": 10, "output": 5}


class Broken(CustomLogger):
    """A stranger's callback that fails wherever it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.called: set[str] = set()

    def _fail(self, hook: str) -> None:
        self.called.add(hook)
        raise RuntimeError("a stranger's bug")

    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        self._fail("before")

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._fail("sync")

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self._fail("async")

    async def async_post_call_success_deployment_hook(
        self, request_data: Any, response: Any, call_type: Any
    ) -> None:
        self._fail("reply")


@pytest.mark.parametrize(
    ("how", "called"),
    [
        ("sync", {"before", "sync"}),
        ("async", {"before", "reply", "async"}),
        ("stream", {"before", "async"}),
    ],
)
async def test_a_strangers_broken_callback_changes_nothing(
    attempts: Any, to_provider: Any, said: Any, how: str, called: set[str]
) -> None:
    broken = Broken()
    litellm.callbacks.insert(0, broken)
    text = said("[[in=10 out=5]]")
    if how == "sync":
        await asyncio.to_thread(litellm.completion, "openai/gpt-4o", text, **to_provider)
    elif how == "async":
        await litellm.acompletion("openai/gpt-4o", text, **to_provider)
    else:
        asked = dict(stream=True, stream_options=_USAGE, **to_provider)
        async for _ in await litellm.acompletion("openai/gpt-4o", text, **asked):
            pass
    await flush()
    [attempt] = attempts(1)
    assert attempt.usage == {"input": 10, "output": 5}
    assert broken.called == called


class Refusing(CustomLogger):
    """A stranger's guardrail that refuses the call after its intent was written."""

    async def async_pre_call_deployment_hook(self, kwargs: Any, call_type: Any) -> None:
        raise PermissionError("not this one")


async def test_a_call_that_a_stranger_refuses_ends_failed_with_the_strangers_error(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    litellm.callbacks.append(Refusing())
    with pytest.raises(PermissionError, match="not this one"):
        await litellm.acompletion("openai/gpt-4o", said("[[in=10 out=5]]"), **to_provider)
    [attempt] = attempts(1)
    assert (attempt.provider_result, attempt.error_type) == ("failed", "PermissionError")
    assert attempt.usage is None


async def test_what_goes_wrong_in_our_hooks_is_counted_and_the_call_goes_on(
    attempts: Any, to_provider: Any, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costspan.adapters.litellm.owner.owner_of", None)  # as broken as it gets
    before = counters.snapshot().get("litellm:_begin_with:TypeError", 0)
    reply = await litellm.acompletion("openai/gpt-4o", said("[[in=1 out=1]]"), **to_provider)
    assert reply.usage.prompt_tokens == 1
    assert counters.snapshot()["litellm:_begin_with:TypeError"] == before + 1
    assert attempts(0) == []
