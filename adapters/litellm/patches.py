"""The three places where LiteLLM has no hook and is wrapped: each keeps doing what it did.

- `run_async_function`: a sync call of the Router, or with `fallbacks=[...]`, made while an event
  loop runs, goes to a bare thread. The caller's context goes along, as in `asyncio.to_thread`.
- LiteLLM's logging pool: sync callbacks, of cache hits for one, run with the caller's context.
- Streams: what a stream has delivered so far is found again when nobody reads on.

A version of LiteLLM in which such a place is gone is counted (`litellm:patch:...`) and works on
without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import wraps
from importlib import import_module
from typing import Any

from costspan.adapters.litellm.abandoned import Stream
from costspan.adapters.litellm.tracking import tracked_on
from costspan.core.counters import count

_DONE = "_costspan_patched"


def apply() -> None:
    """Wrap what is not wrapped yet."""
    for patch in (_carry_into_loops, _carry_into_pool, _watch_streams):
        try:
            patch()
        except (ImportError, AttributeError) as error:
            count(f"litellm:patch:{patch.__name__.strip('_')}:{type(error).__name__}")


def _carry_into_loops() -> None:
    asyncify: Any = import_module("litellm.litellm_core_utils.asyncify")
    original = asyncify.run_async_function
    if hasattr(original, _DONE):
        return

    @wraps(original)
    def run_async_function(
        async_function: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any
    ) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # it stays in this thread, and so in this context
            return original(async_function, *args, **kwargs)
        context = copy_context()

        async def within() -> Any:
            return await async_function(*args, **kwargs)

        async def carried() -> Any:
            return await asyncio.create_task(within(), context=context)

        return original(carried)

    setattr(run_async_function, _DONE, True)
    # Modules that imported it by name have it as a global of their own.
    for name, module in list(sys.modules.items()):
        if name.startswith("litellm.") and vars(module).get("run_async_function") is original:
            vars(module)["run_async_function"] = run_async_function


def _carry_into_pool() -> None:
    pool: Any = import_module("litellm.litellm_core_utils.thread_pool_executor")
    original = pool.executor.submit
    if hasattr(original, _DONE):
        return

    @wraps(original)
    def submit(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        return original(copy_context().run, function, *args, **kwargs)

    setattr(submit, _DONE, True)
    pool.executor.submit = submit  # of this one pool, not of its class


def _watch_streams() -> None:
    streaming: Any = import_module("litellm.litellm_core_utils.streaming_handler")
    original = streaming.CustomStreamWrapper.__init__
    if hasattr(original, _DONE):
        return

    @wraps(original)
    def opened(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        with contextlib.suppress(AttributeError):  # a stream of a shape we do not know
            tracked = tracked_on(self.logging_obj.model_call_details)
            if tracked is not None and not tracked.attempt.ended:
                is_cached = self.custom_llm_provider == "cached_response"
                tracked.stream = Stream(self.chunks, self.messages, is_cached)

    setattr(opened, _DONE, True)
    streaming.CustomStreamWrapper.__init__ = opened
