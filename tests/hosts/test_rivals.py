"""Where the rivals were wrong by up to 96 %: per tenant, nothing wrong, leaked, lost or doubled."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costspan
from costspan.conformance import rivals
from costspan.conformance.provider import LoopbackProvider, contract_toml
from costspan.core.money import parse_usd

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# Warnings of the host libraries about themselves and each other are not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")


class LiteLLM:
    """`litellm.completion`, whose OpenAI client retries in silence, and a Router for fallbacks."""

    tries_of_gpt_4o = 2

    def __init__(self, url: str) -> None:
        import litellm
        from litellm.router import Router

        costspan.install("litellm")
        self._litellm = litellm
        self._at: dict[str, Any] = {"api_base": url, "api_key": "loopback"}
        self._router: Any = Router(
            model_list=[
                {"model_name": m, "litellm_params": {"model": f"openai/{m}", **self._at}}
                for m in ("gpt-4o", "gpt-4o-mini")
            ],
            num_retries=1,
            retry_after=0,
            disable_cooldowns=True,
            fallbacks=[{"gpt-4o": ["gpt-4o-mini"]}],
        )

    def ask(self, model: str, text: str, falls_back: bool = False) -> None:
        messages = [{"role": "user", "content": text}]
        if falls_back:
            self._router.completion(model=model, messages=messages)
        else:
            self._litellm.completion(model=f"openai/{model}", messages=messages, **self._at)

    async def aask(self, model: str, text: str, falls_back: bool = False) -> None:
        messages = [{"role": "user", "content": text}]
        if falls_back:
            await self._router.acompletion(model=model, messages=messages)
        else:
            await self._litellm.acompletion(model=f"openai/{model}", messages=messages, **self._at)


class LangChain:
    """`ChatOpenAI`, whose client retries in silence, and `with_fallbacks`."""

    tries_of_gpt_4o = 2

    def __init__(self, url: str) -> None:
        from langchain_openai import ChatOpenAI
        from pydantic import SecretStr

        costspan.install("langchain")

        def model(name: str) -> Any:
            return ChatOpenAI(
                model=name, base_url=url, api_key=SecretStr("loopback"), max_retries=1
            )

        self._models = {name: model(name) for name in ("gpt-4o", "gpt-4o-mini")}
        self._falling = self._models["gpt-4o"].with_fallbacks([self._models["gpt-4o-mini"]])

    def _model(self, model: str, falls_back: bool) -> Any:
        return self._falling if falls_back else self._models[model]

    def ask(self, model: str, text: str, falls_back: bool = False) -> None:
        self._model(model, falls_back).invoke(text)

    async def aask(self, model: str, text: str, falls_back: bool = False) -> None:
        await self._model(model, falls_back).ainvoke(text)


class LangChainOverLiteLLM:
    """LangChain's chat model on a LiteLLM Router: two instruments see every call."""

    tries_of_gpt_4o = 2

    def __init__(self, url: str) -> None:
        from langchain_litellm import ChatLiteLLMRouter

        costspan.install("langchain")
        router = LiteLLM(url)._router
        self._models = {
            name: ChatLiteLLMRouter(router=router, model=name) for name in ("gpt-4o", "gpt-4o-mini")
        }

    def ask(self, model: str, text: str, falls_back: bool = False) -> None:
        self._models[model].invoke(text)

    async def aask(self, model: str, text: str, falls_back: bool = False) -> None:
        await self._models[model].ainvoke(text)


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as provider:
        yield provider
        assert provider.bugs == ()


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Leave LiteLLM's lists of callbacks as they were found."""
    import litellm

    kept = list(litellm.callbacks)
    yield
    litellm.callbacks[:] = kept


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("host_of", [LiteLLM, LangChain, LangChainOverLiteLLM])
def test_every_tenant_is_charged_exactly_its_own(
    provider: LoopbackProvider, tmp_path: Path, host_of: Any, mode: str
) -> None:
    prices = tmp_path / "contract.toml"
    prices.write_text(contract_toml(), "utf-8")
    costspan.configure(
        ledger=tmp_path / "ledger.db", spool=tmp_path / "spool", prices=prices, background=False
    )
    host = host_of(provider.base_url)
    if mode == "sync":
        rivals.play(host)
    else:
        asyncio.run(_play_async(host))
    assert provider.wait_idle()
    wait_for_callbacks()
    costspan.flush()

    with costspan.open_ledger() as books:
        totals = books.totals(by="owner,bucket")
        events = list(books.events())
    assert totals["balanced"]
    booked = {(r["owner"], r["bucket"]): parse_usd(r["cost"]) for r in totals["rows"]}
    expected: Counter[tuple[str, str]] = Counter()
    for tenant, times in rivals.TENANTS.items():
        for step in rivals.STEPS:
            owner = "@platform" if step.bucket == "platform" else tenant
            expected[owner, step.bucket] += step.micro_usd * times * rivals.PICO_PER_MICRO
    assert booked == expected, "leaked, lost or doubled"

    # Against the provider's own books: per tenant, whoever bears it, and in all.
    drivers: Counter[str] = Counter()
    for event in events:
        drivers[event["driver"]] += parse_usd(event["cost"])
    assert drivers == provider.totals("tenant")
    assert parse_usd(totals["totals"]["cost"]) == sum(row.cost_pico for row in provider.truth)
    billed = [event for event in events if parse_usd(event["cost"])]
    assert len(billed) == rivals.BILLED_PER_TENANT * len(rivals.TENANTS)
    assert totals["totals"]["open"] == totals["totals"]["unpriced_events"] == 0


async def _play_async(host: rivals.Host) -> None:
    from costspan.adapters.litellm import flush

    await rivals.play_async(host)
    await flush()


def wait_for_callbacks() -> None:
    """LiteLLM calls sync callbacks from a pool of its own: wait until that has nothing to do."""
    from litellm.litellm_core_utils.thread_pool_executor import executor

    for done in [executor.submit(lambda: None) for _ in range(executor._max_workers)]:
        done.result(timeout=30)
