"""The loopback provider's Messages API as the real LiteLLM sees it."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anthropic_calls import CACHED, CACHED_PARTS, CACHED_PICO, TOOLS
from provider_calls import only

from costspan.adapter import usage
from costspan.conformance.provider import LoopbackProvider

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import: no look-up in the network
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # LiteLLM's own deprecations at import
    import litellm
    from litellm import exceptions

# pydantic on LiteLLM's models, as it builds, copies and serialises its own replies
pytestmark = [
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning"),
    pytest.mark.filterwarnings("ignore:.* using the `ReadOnly` qualifier:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning"),
]


@pytest.fixture
def ask(provider: LoopbackProvider) -> Iterator[Any]:
    def complete(content: str, **more: object) -> Any:
        return litellm.completion(
            model="anthropic/claude-sonnet-4-5",
            messages=[{"role": "user", "content": content}],
            api_base=provider.url,
            api_key="k",
            max_retries=0,
            **more,
        )

    litellm.suppress_debug_info = True
    yield complete
    litellm.in_memory_llm_clients_cache.flush_cache()  # type: ignore[no-untyped-call]  # theirs


def test_litellm_plain(provider: LoopbackProvider, ask: Callable[..., Any]) -> None:
    reply = ask(CACHED)
    assert reply.choices[0].message.content
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (1000, 200)
    assert usage.from_litellm(reply.usage) == only(provider).usage == CACHED_PARTS


def test_litellm_stream(provider: LoopbackProvider, ask: Callable[..., Any]) -> None:
    chunks = list(ask(CACHED, stream=True, stream_options={"include_usage": True}))
    spoken = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert spoken == ask(CACHED).choices[0].message.content
    assert usage.from_litellm(chunks[-1].usage) == CACHED_PARTS
    assert [row.cost_pico for row in provider.truth] == [CACHED_PICO] * 2


@pytest.mark.parametrize("stream", [False, True])
def test_litellm_tools(provider: LoopbackProvider, ask: Callable[..., Any], stream: bool) -> None:
    go = {"name": "search", "parameters": {"type": "object", "properties": {}}}
    reply = ask(TOOLS, tools=[{"type": "function", "function": go}], stream=stream)
    if stream:
        reply = litellm.stream_chunk_builder(list(reply))
    choice = reply.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "let me see")
    calls = [call.function for call in choice.message.tool_calls]
    assert [(call.name, json.loads(call.arguments)) for call in calls] == [
        ("search", {"q": "a b"}),
        ("stop", {}),
    ]
    assert only(provider).usage == {"input": 50, "output": 9}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, exceptions.BadRequestError),
        (401, exceptions.AuthenticationError),
        (404, exceptions.NotFoundError),
        (429, exceptions.RateLimitError),
        (529, exceptions.InternalServerError),
    ],
)
def test_litellm_errors(
    provider: LoopbackProvider, ask: Callable[..., Any], status: int, error: type[Exception]
) -> None:
    with pytest.raises(error, match="told to answer"):
        ask(f"[[status={status}]]")
    assert (only(provider).status, only(provider).billed) == (status, False)
