"""One model call: what is recorded of requests, replies, streams, caches and failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from costspan.adapter import enclosing_operation
from costspan.adapters.langchain.lifecycle import RUNS
from costspan.conformance.provider import LoopbackProvider

ModelOf = Callable[..., ChatOpenAI]
PROMPT = "secret words [[in=1000 out=200 cached=400 text='a secret reply of six words']]"


def test_an_invoke_is_one_operation(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    reply = model_of().invoke(PROMPT, config=seen)
    end = books.end()
    run_id = str(reply.id).removeprefix("lc_run--")[:36]
    assert end.operation_ids == (f"langchain:{run_id}",)
    assert end.attempt_id is None
    assert (end.layer, end.kind, end.source) == ("framework", "model", "langchain")
    assert (end.provider, end.requested_model) == ("openai", "gpt-4o")
    assert end.executed_model == "gpt-4o-2024-08-06"
    assert end.usage == {"input": 600, "cache_read": 400, "output": 200}
    assert end.raw_usage is not None
    assert end.raw_usage["input_tokens"] == 1000
    assert end.response_id == f"openai//{reply.response_metadata['id']}"
    assert end.provider_result == "ok"
    assert (end.tier, end.attempts_hidden) == ("default", 0)
    assert end.attributes == {"base_url": provider.base_url}
    assert (end.cause, end.tenant, end.parent) == (None, None, None)


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "batch", "abatch", "events"])
async def test_every_way_of_calling_is_seen_once(
    how: str, model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    model = model_of(stream_usage=True)
    if how == "invoke":
        model.invoke(PROMPT, config=seen)
    elif how == "ainvoke":
        await model.ainvoke(PROMPT, config=seen)
    elif how == "batch":
        model.batch([PROMPT], config=seen)
    elif how == "abatch":
        await model.abatch([PROMPT], config=seen)
    else:
        events = [e async for e in model.astream_events(PROMPT, config=seen, version="v2")]
        assert events
    assert books.end().usage == {"input": 600, "cache_read": 400, "output": 200}


def test_a_batch_is_one_operation_each(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    model_of().batch([f"[[in={n} out=1]]" for n in (10, 20, 30)], config=seen)
    assert sorted(end.usage["input"] for end in books.ends()) == [10, 20, 30]
    assert len({end.operation_ids for end in books.ends()}) == 3


def test_n_replies_are_one_usage(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    model_of(n=3).invoke("[[in=100 out=20 cached=40]]", config=seen)
    end = books.end()
    assert end.usage == {"input": 60, "cache_read": 40, "output": 20}
    assert end.executed_model == "gpt-4o-2024-08-06"
    assert end.response_id.startswith("openai//chatcmpl-")


def test_a_stream_with_usage(model_of: ModelOf, seen: RunnableConfig, books: Any) -> None:
    for _ in model_of(stream_usage=True).stream(PROMPT, config=seen):
        pass
    end = books.end()
    assert end.usage == {"input": 600, "cache_read": 400, "output": 200}
    assert end.executed_model == "gpt-4o-2024-08-06"
    assert end.response_id is None


async def test_a_stream_without_usage_is_missing_never_zero(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    async for _ in model_of(stream_usage=False).astream(PROMPT, config=seen):
        pass
    end = books.end()
    assert (end.usage, end.usage_source, end.provider_result) == (None, "missing", "ok")


@pytest.mark.parametrize(
    ("words", "fault", "billed"),
    [
        ("status=503 retry_after=0", "provider", False),
        ("status=429 retry_after=0", "provider", False),
        ("status=500", "provider", None),
        ("status=400", "agent", False),
        ("status=401", "platform", False),
        ("status=408", "provider", None),
        ("fault=refuse", "provider", None),
    ],
)
def test_a_failure_says_whose_fault_and_whether_billed(
    words: str,
    fault: str,
    billed: bool | None,
    model_of: ModelOf,
    seen: RunnableConfig,
    books: Any,
) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        model_of().invoke(f"[[{words}]]", config=seen)
    end = books.end()
    assert (end.provider_result, end.fault, end.provider_billed) == ("failed", fault, billed)
    assert end.error_type == type(raised.value).__qualname__
    assert end.usage is None


def test_a_refused_connection_was_never_billed(seen: RunnableConfig, books: Any) -> None:
    nobody = "http://127.0.0.1:9/v1"
    with httpx.Client() as http:
        model = ChatOpenAI(
            model="gpt-4o", base_url=nobody, api_key=SecretStr("x"), max_retries=0, http_client=http
        )
        with pytest.raises(Exception, match="Connection"):
            model.invoke("hi", config=seen)
    assert (books.end().fault, books.end().provider_billed) == ("provider", False)


def test_a_stream_that_breaks_was_perhaps_billed(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    with pytest.raises(Exception, match="closed"):
        list(model_of().stream("[[fault=die after=1 text='a b c d']]", config=seen))
    end = books.end()
    assert (end.provider_result, end.fault, end.provider_billed) == ("failed", "provider", None)


def test_a_cache_hit_drops_the_repeated_usage(
    model_of: ModelOf, seen: RunnableConfig, books: Any, provider: LoopbackProvider
) -> None:
    model = model_of(cache=InMemoryCache())
    model.invoke(PROMPT, config=seen)
    model.invoke(PROMPT, config=seen)
    filled, hit = books.ends()
    assert filled.cache is None
    assert hit.cache == "exact"
    assert hit.fill_event == filled.operation_ids[0]
    assert (hit.usage, hit.raw_usage, hit.response_id) == (None, None, None)
    assert (hit.requested_model, hit.executed_model) == ("gpt-4o", "gpt-4o-2024-08-06")


def test_no_text_is_recorded(
    model_of: ModelOf, seen: RunnableConfig, recorded: Any, books_at: Any
) -> None:
    model_of().invoke(PROMPT, config=seen)
    assert recorded()
    assert all(b"secret" not in path.read_bytes() for path in books_at.rglob("*.*"))


def test_a_completion_model_is_seen_and_names_no_executed_model(
    seen: RunnableConfig, books: Any
) -> None:
    FakeListLLM(responses=["x"]).invoke("hi", config=seen)
    end = books.end()
    assert (end.provider_result, end.usage_source) == ("ok", "missing")
    assert end.executed_model is None


class Asking(BaseChatModel):
    """A model that asks another, and passes its reply on or makes one of its own."""

    inner: ChatOpenAI
    own_usage: tuple[int, int] | None = None

    @property
    def _llm_type(self) -> str:
        return "asking"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        reply = self.inner.invoke(messages)
        assert isinstance(reply, AIMessage)
        if self.own_usage is not None:
            told, said = self.own_usage
            spent = UsageMetadata(input_tokens=told, output_tokens=said, total_tokens=told + said)
            reply = AIMessage(content="own", usage_metadata=spent)
        return ChatResult(generations=[ChatGeneration(message=reply)])


def test_a_model_that_passes_on_costs_nothing_itself(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    RunnableLambda(Asking(inner=model_of()).invoke).invoke("[[in=10 out=2]]", config=seen)
    inner, outer = books.ends()
    assert inner.usage == {"input": 10, "output": 2}
    assert (outer.usage, outer.flat_cost, outer.cache) == (None, "0", None)
    assert "metered_inside" in outer.flags


def test_a_model_that_asks_another_keeps_its_own_usage(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    asking = Asking(inner=model_of(), own_usage=(7, 3))
    RunnableLambda(asking.invoke).invoke("[[in=10 out=2]]", config=seen)
    inner, outer = books.ends()
    assert inner.usage == {"input": 10, "output": 2}
    assert (outer.usage, outer.flat_cost) == ({"input": 7, "output": 3}, None)


@pytest.mark.filterwarnings("ignore:Unexpected type for token usage:UserWarning")
def test_generate_starts_all_before_it_calls_the_first(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    """An instrument underneath sees both operations, whichever it is called for."""
    named: list[tuple[str, ...]] = []

    class Look(ChatOpenAI):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            enclosing = enclosing_operation()
            assert enclosing is not None
            named.append(enclosing.operation_ids)
            return super()._generate(*args, **kwargs)

    lent = model_of()
    model = Look(
        model="gpt-4o",
        base_url=lent.openai_api_base,
        api_key=SecretStr("any"),
        http_client=lent.http_client,
    )
    prompts: list[list[BaseMessage]] = [
        [HumanMessage("[[in=10 out=1]]")],
        [HumanMessage("[[in=20 out=2]]")],
    ]
    model.generate(prompts, callbacks=seen["callbacks"])
    assert [end.usage["input"] for end in books.ends()] == [10, 20]
    both = tuple(start.operation_ids[0] for start in books.starts())
    assert named == [both, both]
    assert enclosing_operation() is None


def test_a_run_pushed_out_of_the_table_still_brings_its_usage(
    model_of: ModelOf,
    seen: RunnableConfig,
    books: Any,
    counted: Callable[[str], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(RUNS, "_runs_max", 1)
    stream = model_of(stream_usage=True).stream("[[in=10 out=1]]", config=seen)
    next(stream)
    model_of().invoke("[[in=20 out=2]]", config=seen)
    assert counted("langchain_run_evicted") == 1
    for _ in stream:
        pass
    assert counted("langchain_end_without_start") == 1
    late = books.all()[-1]
    assert late.operation_ids == books.starts()[0].operation_ids
    assert (late.phase, late.attempt_id, late.usage) == ("end", None, {"input": 10, "output": 1})


async def test_nothing_stays_in_the_table(
    model_of: ModelOf, seen: RunnableConfig, books: Any
) -> None:
    before = len(RUNS)
    chain = RunnableLambda(lambda words: words) | model_of()
    chain.batch(["a", "b"], config=seen)
    await chain.abatch(["a", "b"], config=seen)
    with pytest.raises(Exception, match="400"):
        chain.invoke("[[status=400]]", config=seen)
    assert len(books.ends()) == 5
    assert len(RUNS) == before
