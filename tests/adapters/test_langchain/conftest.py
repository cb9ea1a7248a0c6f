"""Real ChatOpenAI models over the loopback provider, and the events of the real spool."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import SecretStr

import costspan
from costspan.adapters.langchain import CostHandler
from costspan.conformance.provider import DEFAULT_PRICES, LoopbackProvider, Row, contract_toml
from costspan.core import counters
from costspan.core.money import parse_usd
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]

_GPT_4O = {
    **DEFAULT_PRICES["gpt-4o"],
    "cache_write_5m": "3.10",
    "audio_input": "40.00",
    "audio_output": "80.00",
}
PRICES = {
    **DEFAULT_PRICES,
    "gpt-4o": _GPT_4O,
    "gpt-4o#priority": {**_GPT_4O, "input": "4.25", "output": "17.00", "cache_read": "2.125"},
    "gpt-4o#flex": {**_GPT_4O, "input": "1.25", "output": "5.00", "cache_read": "0.625"},
}


@pytest.fixture(scope="session")
def shared_provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(prices=PRICES) as provider:
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
                settings.setdefault("base_url", provider.base_url)
                return ChatOpenAI(
                    model=model,
                    api_key=SecretStr("any"),
                    http_client=for_sync,
                    http_async_client=for_async,
                    **settings,
                )

            yield build


@pytest.fixture
async def embeddings_of(provider: LoopbackProvider) -> AsyncIterator[Callable[..., Any]]:
    """Build embeddings, not tracked, whose connections end with the test."""
    async with httpx.AsyncClient() as for_async:
        with httpx.Client() as for_sync:

            def build(**settings: Any) -> OpenAIEmbeddings:
                settings.setdefault("max_retries", 0)
                settings.setdefault("base_url", provider.base_url)
                return OpenAIEmbeddings(
                    model="text-embedding-3-small",
                    api_key=SecretStr("any"),
                    check_embedding_ctx_length=False,
                    http_client=for_sync,
                    http_async_client=for_async,
                    **settings,
                )

            yield build


@pytest.fixture
def handler() -> CostHandler:
    return CostHandler()


@pytest.fixture
def seen(handler: CostHandler) -> RunnableConfig:
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


class Ledger:
    """The settled books of this test beside the provider's own truth of it."""

    def __init__(self, provider: LoopbackProvider, folder: Path) -> None:
        self._provider = provider
        self._before = len(provider.truth)
        self._folder = folder
        (folder / "contract.toml").write_text(contract_toml(PRICES), "utf-8")
        self.configure()

    def configure(self, **settings: Any) -> None:
        """Settle in this test's folder, by the loopback provider's own price list."""
        costspan.configure(
            ledger=self._folder / "ledger.db",
            spool=self._folder / "spool",
            prices=self._folder / "contract.toml",
            background=False,
            **settings,
        )

    @property
    def truth(self) -> tuple[Row, ...]:
        assert self._provider.wait_idle()
        return self._provider.truth[self._before :]

    async def arrived(self, count: int = 1) -> None:
        """Wait until so many requests of this test have reached the provider."""
        assert await asyncio.to_thread(self._provider.wait_received, self._before + count)

    def events(self) -> list[dict[str, Any]]:
        """Every event that is about money, settled now."""
        costspan.flush()
        with costspan.open_ledger() as books:
            assert books.is_balanced()
            return [event for event in books.events() if event["kind"] not in ("tool", "retrieval")]

    def totals(self) -> dict[str, Any]:
        """Sums over all events, settled now."""
        costspan.flush()
        with costspan.open_ledger() as books:
            totals: dict[str, Any] = books.totals()["totals"]
            return totals

    def event(self) -> dict[str, Any]:
        (only,) = self.events()
        return only

    def rows(self) -> dict[tuple[str, str], int]:
        """(owner, bucket) -> cost in pico-USD; rows of unknown cost left out."""
        costspan.flush()
        with costspan.open_ledger() as books:
            rows = books.totals(by="owner,bucket")["rows"]
        return {(r["owner"], r["bucket"]): parse_usd(r["cost"]) for r in rows if r["cost"]}

    def check(self) -> None:
        """Nothing leaked, lost or doubled: cost per driver is what the provider billed for it."""
        driven: Counter[str | None] = Counter()
        for event in self.events():
            assert event["cost"] is not None, event
            assert not {"open", "estimated"}.intersection((event["outcome"], *event["flags"]))
            driven[event["driver"]] += parse_usd(event["cost"])
        billed: Counter[str | None] = Counter()
        for row in self.truth:
            billed[row.tenant] += row.cost_pico
        assert +driven == +billed


@pytest.fixture
def ledger(provider: LoopbackProvider, tmp_path: Path) -> Ledger:
    """A configured process, whose books are compared with what the provider billed."""
    return Ledger(provider, tmp_path)


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
