"""Real ChatOpenAI models over the loopback provider, and the events of the real spool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI

from costspan.adapters.langchain import CostHandler
from costspan.conformance.provider import LoopbackProvider
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


@pytest.fixture(scope="session")
def shared_provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as provider:
        yield provider
        assert provider.bugs == ()


@pytest.fixture
def provider(shared_provider: LoopbackProvider) -> LoopbackProvider:
    shared_provider.forget_scripts()
    return shared_provider


@pytest.fixture
async def model_of(provider: LoopbackProvider) -> AsyncIterator[Callable[..., ChatOpenAI]]:
    """Build models whose connections end with the test, not with the process."""
    async with httpx.AsyncClient() as for_async:
        with httpx.Client() as for_sync:

            def build(model: str = "gpt-4o", **settings: Any) -> ChatOpenAI:
                settings.setdefault("max_retries", 0)
                return ChatOpenAI(
                    model=model,
                    base_url=provider.base_url,
                    api_key="any",
                    http_client=for_sync,
                    http_async_client=for_async,
                    **settings,
                )

            yield build


@pytest.fixture
def handler() -> CostHandler:
    return CostHandler()


@pytest.fixture
def seen(handler: CostHandler) -> dict[str, Any]:
    """The config of a call that costspan sees."""
    return {"callbacks": [handler]}


class Books:
    """What was recorded: one START and one END per operation, by kind."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded

    def all(self) -> list[Observation]:
        return [o for o in self._recorded() if o.source == "langchain"]

    def starts(self, kind: str = "model") -> list[Observation]:
        return [o for o in self.all() if o.phase == "start" and o.kind == kind]

    def ends(self, kind: str = "model") -> list[Observation]:
        return [o for o in self.all() if o.phase == "end" and o.kind == kind]

    def end(self, kind: str = "model") -> Observation:
        """The only END of this kind, whose START was written too."""
        (only,) = self.ends(kind)
        (start,) = self.starts(kind)
        assert start.operation_ids == only.operation_ids
        return only


@pytest.fixture
def books(recorded: Recorded) -> Books:
    return Books(recorded)


@pytest.fixture
def counted() -> Callable[[str], int]:
    """How often something was counted since the test began."""
    before = counters.snapshot()

    def read(name: str) -> int:
        return counters.snapshot().get(name, 0) - before.get(name, 0)

    return read


@pytest.fixture(autouse=True)
def _no_hook_failed() -> Iterator[None]:
    """A hook that raised is quiet to the host, and a failure here."""
    before = counters.snapshot()
    yield
    after = counters.snapshot()
    broken = {
        n for n in after if n.startswith(("langchain_on_", "langchain_unreadable", "refused"))
    }
    assert {n for n in broken if after[n] != before.get(n, 0)} == set()
