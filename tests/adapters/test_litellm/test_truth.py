"""What LiteLLM was told and what the provider billed, settled and compared to the pico."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import litellm
import pytest

import costspan
from costspan.adapters.litellm import flush, install
from costspan.conformance.provider import DEFAULT_PRICES, LoopbackProvider
from costspan.conformance.provider.contract import contract_toml
from costspan.core.money import parse_usd

_PRICES = {
    **DEFAULT_PRICES,
    "gpt-4o": {
        **DEFAULT_PRICES["gpt-4o"],
        **{"cache_write_5m": "3.125", "audio_input": "40", "audio_output": "80"},
    },
    "gpt-4o#flex": {"input": "1.25", "output": "5", "cache_read": "0.6"},
    "gpt-4o#priority": {"input": "4.25", "output": "17", "cache_read": "2.1"},
}
_OPENAI = (
    "in=1000 out=20",
    "in=1000 out=20 cached=400",
    "in=1000 out=20 cached=100 cache_write=300",
    "in=1000 out=200 reasoning=50",
    "in=1000 out=200 audio_in=100 audio_out=40",
    "in=1000 out=20 cached=10 tier=flex",
    "in=1000 out=20 cached=10 tier=priority",
)
_ANTHROPIC = (
    "in=1000 out=20",
    "in=1000 out=20 cached=400",
    "in=1000 out=20 cached=100 cache_write=300",
    "in=1000 out=20 cache_write=200 cache_write_1h=100",
)
_RESPONSES = (*_OPENAI[:2], *_OPENAI[3:4], *_OPENAI[5:])

_needs_backoff = pytest.mark.skipif(
    importlib.util.find_spec("backoff") is None or importlib.util.find_spec("redis") is None,
    reason="LiteLLM streams Anthropic's endpoint only with litellm[proxy] installed",
)


@pytest.fixture(scope="module")
def prices() -> Iterator[LoopbackProvider]:
    with LoopbackProvider(prices=_PRICES) as provider:
        yield provider
        assert provider.bugs == ()


@pytest.fixture
def billed(
    prices: LoopbackProvider, books_at: Path, wait_for_callbacks: Callable[[], None]
) -> Iterator[LoopbackProvider]:
    """The provider; at the end every request it billed is one event of that very cost."""
    contract = books_at / "contract.toml"
    contract.write_text(contract_toml(_PRICES), "utf-8")
    costspan.configure(
        ledger=books_at / "ledger.db",
        spool=books_at / "spool",
        prices=contract,
        background=False,
    )
    install()
    before = len(prices.truth)
    yield prices
    wait_for_callbacks()
    costspan.flush()
    with costspan.open_ledger() as books:
        booked = [(e["owner"], parse_usd(e["cost"])) for e in books.events()]
    truth = [("acme", row.cost_pico) for row in prices.truth[before:]]
    assert truth
    assert booked == truth


async def play(call: Any, sync: bool, **asked: Any) -> None:
    """One call of the tenant, its stream read to the end."""

    def in_thread() -> None:
        reply = call(**asked)
        if asked.get("stream"):
            assert list(reply)

    with costspan.attribute("acme"):
        if sync:
            await asyncio.to_thread(in_thread)
        else:
            reply = await call(**asked)
            if asked.get("stream"):
                assert [chunk async for chunk in reply]
    await flush()


_STREAM: list[dict[str, Any]] = [{}, {"stream": True, "stream_options": {"include_usage": True}}]


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("how", _STREAM, ids=["reply", "stream"])
@pytest.mark.parametrize("words", _OPENAI)
async def test_openai_chat(billed: Any, said: Any, words: str, how: Any, sync: bool) -> None:
    call = litellm.completion if sync else litellm.acompletion
    at = {"api_base": billed.base_url, "api_key": "any", "max_retries": 0}
    await play(call, sync, model="openai/gpt-4o", messages=said(f"[[{words}]]"), **how, **at)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("how", _STREAM, ids=["reply", "stream"])
@pytest.mark.parametrize("words", _ANTHROPIC)
async def test_anthropic_chat(billed: Any, said: Any, words: str, how: Any, sync: bool) -> None:
    call = litellm.completion if sync else litellm.acompletion
    at = {"api_base": billed.url, "api_key": "any", "max_retries": 0}
    model = "anthropic/claude-sonnet-4-5"
    await play(call, sync, model=model, messages=said(f"[[{words}]]"), **how, **at)


@pytest.mark.parametrize("how", [{}, pytest.param({"stream": True}, marks=_needs_backoff)])
@pytest.mark.parametrize("words", _ANTHROPIC)
async def test_anthropics_own_endpoint(billed: Any, said: Any, words: str, how: Any) -> None:
    at = {"api_base": billed.url, "api_key": "any", "max_tokens": 99}
    model = "anthropic/claude-sonnet-4-5"
    text = said(f"[[{words}]]")
    await play(litellm.anthropic_messages, False, model=model, messages=text, **how, **at)


@pytest.mark.parametrize("how", [{}, {"stream": True}], ids=["reply", "stream"])
async def test_anthropics_endpoint_over_openai(billed: Any, said: Any, how: Any) -> None:
    at = {"api_base": billed.base_url, "api_key": "any", "max_tokens": 99}
    text = said("[[in=1000 out=20 cached=400]]")
    await play(litellm.anthropic_messages, False, model="openai/gpt-4o", messages=text, **how, **at)


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("how", [{}, {"stream": True}], ids=["reply", "stream"])
@pytest.mark.parametrize("words", _RESPONSES)
async def test_openai_responses(billed: Any, words: str, how: Any, sync: bool) -> None:
    call = litellm.responses if sync else litellm.aresponses
    at = {"api_base": billed.base_url, "api_key": "any"}
    await play(call, sync, model="openai/gpt-4o", input=f"[[{words}]]", **how, **at)


async def test_several_answers_are_one_usage(billed: Any, said: Any) -> None:
    at = {"api_base": billed.base_url, "api_key": "any", "n": 3}
    text = said("[[in=100 out=60]]")
    await play(litellm.acompletion, False, model="openai/gpt-4o", messages=text, **at)


async def test_the_same_response_id_twice_is_two_calls(billed: Any, said: Any) -> None:
    at = {"api_base": billed.base_url, "api_key": "any"}
    for tokens in (100, 200):
        text = said(f"[[in={tokens} out=10 id=chatcmpl-invented]]")
        await play(litellm.acompletion, False, model="openai/gpt-4o", messages=text, **at)


async def test_web_searches_are_counted(attempts: Any, said: Any, prices: Any) -> None:
    install()
    rates = {**_PRICES["claude-sonnet-4-5"], "web_searches": "0.01"}
    with LoopbackProvider(prices={"claude-sonnet-4-5": rates}) as provider:
        await litellm.acompletion(
            "anthropic/claude-sonnet-4-5",
            said("[[in=10 out=5 web_searches=3]]"),
            api_base=provider.url,
            api_key="any",
        )
    [attempt] = attempts(1)
    assert attempt.usage == {"input": 10, "output": 5, "web_searches": 3}
