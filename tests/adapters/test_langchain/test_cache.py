"""LangChain's own caches: a hit repeats the usage, ids and text of whoever paid for the fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.caches import RETURN_VAL_TYPE, BaseCache, InMemoryCache
from langchain_core.embeddings import Embeddings
from langchain_core.globals import get_llm_cache, set_llm_cache
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import costspan
from costspan.adapters.langchain import track
from costspan.conformance.provider import LoopbackProvider

ModelOf = Callable[..., ChatOpenAI]
WORDS = "[[tenant=acme in=100 out=20 cached=40]]"
COST = 60 * 2_500_000 + 40 * 1_250_000 + 20 * 10_000_000


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_hit_on_another_tenants_fill(
    is_async: bool, model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    model = model_of(cache=InMemoryCache())
    for tenant in ("acme", "globex", "acme"):
        with costspan.attribute(tenant):
            if is_async:
                await model.ainvoke(WORDS, config=seen)
            else:
                model.invoke(WORDS, config=seen)
    assert len(ledger.truth) == 1
    fill, other, own = sorted(ledger.events(), key=lambda event: event["started_at"])
    assert (fill["owner"], other["owner"], own["owner"]) == ("acme", "globex", "acme")
    for hit in (other, own):
        assert (hit["cache"], hit["fill_event"]) == ("exact", fill["event"])
        assert (hit["cost"], hit["charge"]) == ("0.000000000000", "0.000000000000")
        assert hit.get("response_id") is None, "the fill's: it would make one event of two"
    assert {row: cost for row, cost in ledger.rows().items() if cost} == {("acme", "direct"): COST}


def test_a_stream_does_not_ask_the_cache(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any
) -> None:
    model = model_of(cache=InMemoryCache(), stream_usage=True)
    with costspan.attribute("acme"):
        model.invoke(WORDS, config=seen)
        assert list(model.stream(WORDS, config=seen))
    ledger.check()
    assert [event.get("cache") for event in ledger.events()] == [None, None]
    assert len(ledger.truth) == 2


def test_a_hit_inside_a_chain_that_failed_before_is_no_retry(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    model = model_of(cache=InMemoryCache())
    model.invoke("[[in=10 out=1]]", config=seen)
    model.invoke("[[in=10 out=1]]", config=seen)
    filled, hit = books.ends()
    assert (hit.attempt, hit.usage, hit.flat_cost) == (None, None, None)
    assert hit.fill_event == filled.operation_ids[0]


class SemanticCache(BaseCache):
    """As the real ones: what is near enough to an earlier question gets its answer."""

    def __init__(self, vectors: Embeddings) -> None:
        self._vectors = vectors
        self._held: list[tuple[list[float], Any]] = []

    def lookup(self, prompt: str, llm_string: str) -> RETURN_VAL_TYPE | None:
        self._vectors.embed_query("[[tenant=acme in=7]]")
        return self._held[0][1] if self._held else None

    def update(self, prompt: str, llm_string: str, return_val: Sequence[Any]) -> None:
        self._held.append(([], return_val))

    def clear(self, **kwargs: Any) -> None:
        self._held.clear()


@pytest.fixture
def semantic(embeddings_of: Any) -> Iterator[None]:
    before = get_llm_cache()
    set_llm_cache(SemanticCache(track(embeddings_of())))
    yield
    set_llm_cache(before)


@pytest.mark.usefixtures("semantic")
def test_a_semantic_hit_costs_its_lookup(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any, provider: LoopbackProvider
) -> None:
    with costspan.attribute("acme"):
        model_of().invoke(WORDS, config=seen)
        model_of().invoke("[[tenant=acme]] something near", config=seen)
    ledger.check()
    models = [event for event in ledger.events() if event["kind"] == "model"]
    lookups = [event for event in ledger.events() if event["kind"] == "embedding"]
    hit = next(event for event in models if event.get("cache"))
    assert (hit["cache"], hit["cost"], hit["charge"]) == (
        "semantic",
        "0.000000000000",
        "0.000000000000",
    )
    assert {event["cause"] for event in lookups} == {"cache_lookup"}
    assert ledger.rows() == {("acme", "direct"): COST + 2 * 7 * 20_000}
