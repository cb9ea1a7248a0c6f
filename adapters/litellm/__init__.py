"""LiteLLM: SDK, Router and proxy.

    litellm.callbacks.append(CostLogger())    # or costspan.install("litellm")

and in a proxy's config:

    litellm_settings:
      callbacks: ["costspan.adapters.litellm.callback"]

Every try at a provider is an attempt of its own, retries and fallbacks included: written down
before I/O, ended with what came back. Owner and cause come from `costspan.attribute`,
`costspan.work` and the metadata rules of `costspan.adapters.litellm.request`.

What LiteLLM does not show, and what is made of it:

- A call that was cancelled, or a stream nobody read to its end: no callback fires. It is ended
  when LiteLLM lets go of it (`costspan.adapters.litellm.abandoned`), with an estimate of what was
  delivered. If the process is killed before, its intent stays open and is swept later.
- Silent retries of the OpenAI client in direct SDK calls: `attempts_hidden` is unknown there and
  0 where `max_retries=0` (Router and proxy set it; `CostLogger(see_retries=True)` does, too).
- The usage of a stream that nobody asked it of: estimated or missing, never 0. Pass
  `stream_options={"include_usage": True}` or use `CostLogger(include_usage=True)`.
- Realtime and pass-through calls are seen when they end, and unmeasured unless LiteLLM reports
  their usage; video and OCR, which are not priced by tokens, are unmeasured.
- Files, fine-tuning, assistants and vector stores make no attempts.

Importing this wraps three places of LiteLLM where it has no hook
(`costspan.adapters.litellm.patches`): threads that lose the caller's context, and streams.
"""

from __future__ import annotations

import asyncio
from typing import Any

import litellm
from litellm.litellm_core_utils.logging_worker import (  # pyright: ignore[reportMissingTypeStubs]  # has none
    GLOBAL_LOGGING_WORKER,
)

from costspan.adapters.litellm import abandoned
from costspan.adapters.litellm.logger import CostLogger_PROXY_

__all__ = ["CostLogger", "callback", "flush", "install"]

CostLogger = CostLogger_PROXY_

_LOGGING_TASKS = frozenset(
    {
        "_client_async_logging_helper",
        "Logging.dispatch_success_handlers",
        "Logging.dispatch_failure_handlers",
    }
)
"""The tasks in which LiteLLM calls back for a stream, or queues the callbacks of a reply."""

callback = CostLogger()
"""A ready instance, for the proxy's config and for `install`."""


def install() -> CostLogger:
    """Register `callback` with LiteLLM, once; the other callbacks are left alone."""
    if callback not in litellm.callbacks:
        litellm.callbacks.append(callback)
    return callback


async def flush() -> None:
    """Wait until LiteLLM has called its async callbacks for what was answered in this event loop.

    Before a short-lived loop ends: LiteLLM drops what it has not called by then. Plain replies are
    in the journal already; this is for the ends of streams, cache hits and LiteLLM's own price,
    and for calls that died unfinished.
    Sync calls are called back from threads that outlive the loop.
    """
    logging = [task for task in asyncio.all_tasks() if _coroutine_name(task) in _LOGGING_TASKS]
    if logging:
        await asyncio.wait(logging)
    await GLOBAL_LOGGING_WORKER.flush()
    await asyncio.to_thread(abandoned.settled)


def _coroutine_name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")
