"""Real LiteLLM against the loopback provider, and what it made the adapter write down."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from costspan.conformance.provider import LoopbackProvider
from costspan.core import runtime
from costspan.core.journal import records, spool
from costspan.core.schema import FIELDS, Observation

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: no look-up in the network
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # LiteLLM's own deprecations at import
    import litellm
    from litellm.caching.caching import Cache
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
    from litellm.litellm_core_utils.thread_pool_executor import executor
    from litellm.llms.custom_httpx.async_client_cleanup import close_litellm_async_clients
    from litellm.types.caching import LiteLLMCacheType

_HERE = Path(__file__).parent
_SECONDS = 20.0
_LISTS = (
    *("callbacks", "input_callback", "success_callback", "failure_callback"),
    *("_async_input_callback", "_async_success_callback", "_async_failure_callback"),
)

_LITELLMS_OWN = (
    # pydantic on LiteLLM's models, as it builds, copies and serialises its own replies
    "Pydantic serializer warnings:UserWarning",
    ".* using the `ReadOnly` qualifier:UserWarning",
    "Accessing the 'model_(computed_)?fields' attribute on the instance:DeprecationWarning",
    # its queue of callbacks, which it leaves behind in the event loop of a test that has ended
    "coroutine 'LoggingWorker:RuntimeWarning",
    "Exception ignored in. <coroutine object LoggingWorker:pytest.PytestUnraisableExceptionWarning",
)

Attempts = Callable[[int], list[SimpleNamespace]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents:
            for warning in _LITELLMS_OWN:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{warning}"))


@pytest.fixture(scope="session")
def loopback() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as provider:
        yield provider
        assert provider.bugs == ()


@pytest.fixture
def provider(loopback: LoopbackProvider) -> LoopbackProvider:
    loopback.forget_scripts()
    return loopback


@pytest.fixture
def to_provider(provider: LoopbackProvider) -> dict[str, Any]:
    """The arguments that send a LiteLLM call to the loopback provider, without hidden retries."""
    return {"api_base": provider.base_url, "api_key": "any", "max_retries": 0}


@pytest.fixture(autouse=True)
async def fresh_litellm() -> Any:
    """LiteLLM's process-wide state as it was: callbacks, cache, clients of this test's loop."""
    held = {name: list(getattr(litellm, name)) for name in _LISTS}
    litellm.suppress_debug_info = True
    yield
    for name, callbacks in held.items():
        getattr(litellm, name)[:] = callbacks
    litellm.cache = None
    litellm.num_retries = None
    await _leave_no_foreign_queue()
    await close_litellm_async_clients()  # type: ignore[no-untyped-call]  # LiteLLM's own
    await litellm.module_level_aclient.client._transport.aclose()  # opens anew when it is asked
    for client in list(litellm.in_memory_llm_clients_cache.cache_dict.values()):
        close: Any = getattr(client, "close", None)
        if not inspect.iscoroutinefunction(close):
            close()
    litellm.in_memory_llm_clients_cache.flush_cache()  # type: ignore[no-untyped-call]  # its own


async def _leave_no_foreign_queue() -> None:
    """Let LiteLLM's queue go that a thread's event loop left behind, here and not in a later test.

    Flushing brings the queue into this loop, which ends with the test.
    """
    left = GLOBAL_LOGGING_WORKER._worker_task
    if left is not None and left.get_loop() is not asyncio.get_running_loop():
        del left
        await GLOBAL_LOGGING_WORKER.flush()
        gc.collect()


@pytest.fixture
def response_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM's in-memory cache. A hit imports the proxy's modules, and they an audio library."""
    try:
        import soundfile  # type: ignore[import-untyped]  # noqa: F401
    except ImportError:
        monkeypatch.setitem(sys.modules, "soundfile", ModuleType("soundfile"))
    litellm.cache = Cache(type=LiteLLMCacheType.LOCAL)


@pytest.fixture
def attempts(books_at: Path) -> Attempts:
    """`attempts(n)`: the attempts of this test, oldest first, once n of them have ended.

    LiteLLM calls back from threads and queues of its own, so this waits. Each attempt has the
    fields of all its observations, later ones first, and `observations` itself.
    """

    def read() -> list[SimpleNamespace]:
        by_id: dict[str | None, list[Observation]] = {}
        for observation in _written(books_at / "spool"):
            by_id.setdefault(observation.attempt_id, []).append(observation)
        return [_merged(seen) for _, seen in sorted(by_id.items(), key=lambda pair: pair[0] or "")]

    def wait(ended: int) -> list[SimpleNamespace]:
        deadline = time.monotonic() + _SECONDS
        while True:
            found = read()
            if sum(a.ended for a in found) >= ended or time.monotonic() > deadline:
                assert sum(a.ended for a in found) == ended, found
                return found
            time.sleep(0.01)

    return wait


def _written(folder: Path) -> Iterator[Observation]:
    """What is in the segments that nobody is writing at this moment; the rest is seen next time."""
    runtime.recorder().rotate()
    for path in spool.segments(folder):
        with spool.claim(path) as content:
            writer = None
            for payload in content.payloads if content is not None else ():
                record = records.decode(payload, writer)
                if isinstance(record, records.Opened):
                    writer = record.writer
                elif isinstance(record, Observation):
                    yield record


def _merged(seen: list[Observation]) -> SimpleNamespace:
    fields = dict.fromkeys(FIELDS)
    for observation in seen:
        said = ((name, getattr(observation, name)) for name in FIELDS)
        fields.update({name: value for name, value in said if value not in (None, ())})
    fields["flags"] = fields["flags"] or ()
    return SimpleNamespace(
        **fields,
        observations=seen,
        ended=any(o.phase == "end" and o.provider_result is not None for o in seen),
    )


@pytest.fixture
def said() -> Callable[[str], list[dict[str, str]]]:
    """The messages of a call: one of the user."""
    return lambda text: [{"role": "user", "content": text}]


@pytest.fixture
def wait_for_callbacks() -> Callable[[], None]:
    """Wait until LiteLLM's pool, which calls sync callbacks, has nothing to do any more."""

    def wait() -> None:
        for done in [executor.submit(lambda: None) for _ in range(executor._max_workers)]:
            done.result(timeout=_SECONDS)

    return wait
