"""Real ChatOpenAI models over the loopback provider, and the events of the real spool."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

import costspan
from costspan.adapters.langchain import CostHandler
from costspan.conformance.provider import LoopbackProvider, Row, contract_toml
from costspan.core import counters
from costspan.core.money import parse_usd
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
async def embeddings_of(provider: LoopbackProvider) -> AsyncIterator[Callable[..., Any]]:
    """Build embeddings, not tracked, whose connections end with the test."""
    async with httpx.AsyncClient() as for_async:
        with httpx.Client() as for_sync:

            def build(kind: Any = OpenAIEmbeddings, **settings: Any) -> Any:
                settings.setdefault("max_retries", 0)
                return kind(
                    model="text-embedding-3-small",
                    base_url=provider.base_url,
                    api_key="any",
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


class Ledger:
    """The settled books of this test beside the provider's own truth of it."""

    def __init__(self, provider: LoopbackProvider) -> None:
        self._provider = provider
        self._before = len(provider.truth)

    @property
    def truth(self) -> tuple[Row, ...]:
        assert self._provider.wait_idle()
        return self._provider.truth[self._before :]

    def events(self) -> list[dict[str, Any]]:
        """Every event that is about money, settled now."""
        costspan.flush()
        with costspan.open_ledger() as books:
            assert books.totals()["balanced"]
            return [event for event in books.events() if event["kind"] not in ("tool", "retrieval")]

    def event(self) -> dict[str, Any]:
        (only,) = self.events()
        return only

    def rows(self) -> dict[tuple[str, str], int]:
        """(owner, bucket) -> cost in pico-USD, what cost nothing left out."""
        costspan.flush()
        with costspan.open_ledger() as books:
            rows = books.totals(by="owner,bucket")["rows"]
        return {(r["owner"], r["bucket"]): c for r in rows if (c := parse_usd(r["cost"]))}

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
    """A configured process that settles by the loopback provider's own price list."""
    prices = tmp_path / "contract.toml"
    prices.write_text(contract_toml(), "utf-8")
    costspan.configure(
        ledger=tmp_path / "ledger.db", spool=tmp_path / "spool", prices=prices, background=False
    )
    return Ledger(provider)


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
