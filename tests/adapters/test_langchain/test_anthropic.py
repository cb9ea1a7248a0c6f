"""`ChatAnthropic` against the loopback provider: cache writes by lifetime, whole and streamed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

import costspan
from costspan.conformance.provider import LoopbackProvider

anthropic = pytest.importorskip("langchain_anthropic")
# What the client says of its own connections, and of a model's last day, is not tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore:The model '.*' is deprecated:DeprecationWarning"),
]

Build = Callable[..., Any]
CACHED = "[[tenant=acme in=1000 out=200 cached=400 cache_write=100 cache_write_1h=50]]"


@pytest.fixture
def claude(provider: LoopbackProvider) -> Build:
    def build(**settings: Any) -> Any:
        settings.setdefault("max_retries", 0)
        return anthropic.ChatAnthropic(
            model="claude-sonnet-4-5", base_url=provider.url, api_key="any", **settings
        )

    # The integration keeps its async client for the process, and with it the loop of one test.
    anthropic._client_utils._get_default_async_httpx_client.cache_clear()
    return build


@pytest.mark.parametrize("is_async", [False, True])
async def test_cache_reads_and_writes_of_both_lifetimes(
    is_async: bool, claude: Build, seen: RunnableConfig, ledger: Any
) -> None:
    with costspan.attribute("acme"):
        if is_async:
            await claude().ainvoke(CACHED, config=seen)
        else:
            claude().invoke(CACHED, config=seen)
    ledger.check()
    event = ledger.event()
    assert event["usage"] == {
        "input": 450,
        "cache_read": 400,
        "cache_write_5m": 100,
        "cache_write_1h": 50,
        "output": 200,
    }
    assert (event["provider"], event["attempts_hidden"]) == ("anthropic", 0)
    assert event["response_id"].startswith("anthropic//msg_")


async def test_streamed(claude: Build, seen: RunnableConfig, ledger: Any) -> None:
    words = "[[tenant=acme in=1000 out=200 cached=400]]"
    with costspan.attribute("acme"):
        assert list(claude().stream(words, config=seen))
        assert [chunk async for chunk in claude().astream(words, config=seen)]
    ledger.check()
    assert {e["executed_model"] for e in ledger.events()} == {"claude-sonnet-4-5"}


def test_a_stream_does_not_say_how_long_a_write_lives(
    claude: Build, seen: RunnableConfig, ledger: Any
) -> None:
    with costspan.attribute("acme"):
        assert list(claude().stream(CACHED, config=seen))
    event = ledger.event()
    assert event["flags"] == ["cache_lifetime_assumed"]
    assert event["usage"]["cache_write_5m"] == 150, "Anthropic's default, and said to be assumed"


async def test_two_tenants_interleaved(claude: Build, seen: RunnableConfig, ledger: Any) -> None:
    async def ask(tenant: str) -> None:
        with costspan.attribute(tenant):
            await claude().ainvoke(f"[[tenant={tenant} in=100 out=20 delay=0.01]]", config=seen)

    await asyncio.gather(*(ask(("acme", "globex")[n % 2]) for n in range(6)))
    ledger.check()


def test_an_abandoned_stream_knows_its_model(
    claude: Build, seen: RunnableConfig, books: Any
) -> None:
    stream = claude().stream("[[in=100 out=80 text='one two three']]", config=seen)
    for chunk in stream:
        if chunk.content == " two":
            break
    stream.close()
    end = books.end()
    assert (end.usage_source, end.delivery) == ("estimated", "cancelled_by_user")
    assert end.executed_model == "claude-sonnet-4-5"


@pytest.mark.parametrize(("status", "billed"), [(529, None), (429, False), (400, False)])
def test_failures(
    status: int, billed: bool | None, claude: Build, seen: RunnableConfig, books: Any
) -> None:
    with pytest.raises(Exception, match=str(status)):
        claude().invoke(f"[[status={status} retry_after=0]]", config=seen)
    assert (books.end().provider_result, books.end().provider_billed) == ("failed", billed)
