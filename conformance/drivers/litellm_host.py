"""LiteLLM as a process has it: its lists of callbacks, odd ones in them, and its caches."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

_LISTS = (
    *("callbacks", "input_callback", "success_callback", "failure_callback", "service_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)


def kept() -> dict[str, list[Any]]:
    """LiteLLM's lists of callbacks as they are: it copies from one to the others by itself."""
    import litellm

    return {name: list(getattr(litellm, name)) for name in _LISTS}


def restore(lists: dict[str, list[Any]]) -> None:
    """Put them back."""
    import litellm

    for name, callbacks in lists.items():
        getattr(litellm, name)[:] = callbacks


def rest() -> None:
    """Wait until LiteLLM has handed over all callbacks of sync calls.

    It calls them from a pool of its own. Sync `fallbacks` run on event loops of their own, whose
    callbacks the next loop inherits.
    """
    from litellm.litellm_core_utils.thread_pool_executor import executor  # pyright: ignore[reportMissingTypeStubs]  # has none

    everyone = threading.Barrier(executor._max_workers + 1, timeout=30)
    for _ in range(executor._max_workers):
        executor.submit(everyone.wait)
    everyone.wait()
    asyncio.run(arest())


async def arest() -> None:
    """Wait until LiteLLM has handed over all callbacks of this loop's calls, which ends then.

    Its client of Anthropic's streams belongs to the process, with a session of one loop.
    """
    import litellm

    from costspan.adapters.litellm import flush

    collect()
    await flush()
    await litellm.module_level_aclient.client._transport.aclose()  # pyright: ignore[reportPrivateUsage]  # nothing else closes it and lets it open anew


def collect() -> None:
    """Let dropped streams end: one may be part of a cycle."""
    gc.collect()
    _keep_for_good()


@lru_cache(1)
def _keep_for_good() -> None:
    """What the libraries brought in is looked through once, not at every play's end."""
    gc.freeze()


def register_again() -> None:
    """Our callback once more in each list an application may write to, and a second instance."""
    import litellm

    from costspan.adapters.litellm import CostLogger, callback

    for name in ("callbacks", "success_callback", "failure_callback", "_async_success_callback"):
        getattr(litellm, name).append(callback)
    litellm.callbacks.append(CostLogger())


def failing_callback() -> Any:
    """Somebody else's callback: every hook of it raises."""
    from litellm.integrations.custom_logger import CustomLogger  # pyright: ignore[reportMissingTypeStubs]  # has none

    class Failing(CustomLogger):  # pyright: ignore[reportUntypedBaseClass]  # as above
        """Raises wherever LiteLLM promises to go on."""

        def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
            raise _SomebodyElses

        def log_success_event(self, *args: Any, **kwargs: Any) -> None:
            raise _SomebodyElses

        def log_failure_event(self, *args: Any, **kwargs: Any) -> None:
            raise _SomebodyElses

        async def async_log_success_event(self, *args: Any, **kwargs: Any) -> None:
            raise _SomebodyElses

        async def async_log_failure_event(self, *args: Any, **kwargs: Any) -> None:
            raise _SomebodyElses

        async def async_post_call_success_deployment_hook(self, *args: Any, **kwargs: Any) -> None:
            raise _SomebodyElses

    return Failing()


class _SomebodyElses(Exception):
    """What somebody else's callback raises."""


def whole(chunks: list[Any]) -> Any:
    """The reply that a stream's chunks make."""
    import litellm

    build = cast("Callable[[list[Any]], Any]", litellm.stream_chunk_builder)  # pyright: ignore[reportUnknownMemberType]  # bare list
    return build(chunks)


def cache(options: frozenset[str]) -> Any:
    """LiteLLM's cache as a scenario needs it; None if it needs none."""
    from litellm.caching.caching import Cache, LiteLLMCacheType  # pyright: ignore[reportMissingTypeStubs]  # has none

    if "semantic_cache" in options:
        return Cache(LiteLLMCacheType.QDRANT_SEMANTIC, _backend=_nearly_equal())
    return Cache() if "exact_cache" in options else None


async def cache_written() -> None:
    """LiteLLM writes to its cache behind the caller's back: wait for it."""
    from litellm.caching import caching_handler  # pyright: ignore[reportMissingTypeStubs]  # has none

    writes = list(caching_handler._PENDING_CACHE_WRITES)  # pyright: ignore[reportPrivateUsage]  # nothing else tells
    await asyncio.gather(*writes)


def _nearly_equal() -> Any:
    from litellm.caching.base_cache import BaseCache  # pyright: ignore[reportMissingTypeStubs]  # has none

    class NearlyEqual(BaseCache):
        """A semantic cache in memory, as a vector store would be: half of the words suffice."""

        def __init__(self) -> None:
            super().__init__()
            self._kept: list[tuple[str, frozenset[str], Any]] = []

        def set_cache(self, key: str, value: Any, **asked: Any) -> None:
            self._kept.append((key, _words(asked), value))

        def get_cache(self, key: str, **asked: Any) -> Any:
            words = _words(asked)
            for scope, others, value in self._kept:
                if scope == key and 2 * len(words & others) >= len(words | others):
                    return value
            return None

        async def async_set_cache(self, key: str, value: Any, **asked: Any) -> None:
            self.set_cache(key, value, **asked)

        async def async_get_cache(self, key: str, **asked: Any) -> Any:
            return self.get_cache(key, **asked)

        async def async_set_cache_pipeline(self, cache_list: Any, **asked: Any) -> None:
            for key, value in cache_list:
                self.set_cache(key, value, **asked)

    return NearlyEqual()


def _words(asked: dict[str, Any]) -> frozenset[str]:
    text = " ".join(str(message["content"]) for message in asked["messages"])
    return frozenset(text.strip("[]").split())
