"""Embeddings: LangChain has no callbacks for them, so they are wrapped.

    vectors = track(OpenAIEmbeddings(model="text-embedding-3-small"))

OpenAI's (and Azure's) are copied with clients that record each HTTP request as an attempt, with the
usage of its reply. Any other `Embeddings` becomes one that records each call as an operation, which
an instrument underneath (LiteLLM's) meters; if there is none its usage is unknown, or the
operator's estimate, called one.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from langchain_core import __version__
from langchain_core.embeddings import Embeddings

from costspan.adapter import (
    Attempt,
    OpenOperation,
    Operation,
    current,
    enclosing_operation,
    enclosing_step,
    open_operation,
    usage,
)
from costspan.adapters.langchain.lifecycle import failure_facts
from costspan.adapters.langchain.request import address
from costspan.adapters.langchain.runs import operation_id_of
from costspan.core.counters import count

E = TypeVar("E", bound=Embeddings)
V = TypeVar("V")
Estimate = Callable[[Sequence[str]], int]
"""The tokens of these texts, as far as anybody can tell without the provider."""

_SOURCE: dict[str, Any] = {"source": "langchain", "source_version": __version__}
_MODEL_NAMES = ("model", "model_name", "deployment", "model_id")


def track(embeddings: E, *, estimate: Estimate | None = None) -> E:
    """These embeddings, recorded; the given object is left as it is.

    Args:
        embeddings: Any LangChain embeddings.
        estimate: Tokens of the texts of a call, used (and flagged) where the provider reports none.

    Returns:
        A copy of the same class where its client can be metered, else a `TrackedEmbeddings`.
    """
    if isinstance(embeddings, TrackedEmbeddings) or _is_metered(embeddings):
        return embeddings
    clients = {
        name: _Client(client, embeddings, estimate)
        for name in ("client", "async_client")
        if callable(getattr(client := getattr(embeddings, name, None), "create", None))
    }
    if clients and (copy := getattr(embeddings, "model_copy", None)) is not None:
        return cast("E", copy(update=clients))
    return cast("E", TrackedEmbeddings(embeddings, estimate))


def _is_metered(embeddings: object) -> bool:
    return any(
        isinstance(getattr(embeddings, name, None), _Client) for name in ("client", "async_client")
    )


def _started_with(read: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What a call asks for; what cannot be read is left out, and the host's call goes on."""
    try:
        return dict(read())
    except Exception as error:
        count(f"langchain_unreadable:{type(error).__name__}")
        return {**_SOURCE, "kind": "embedding", "flags": ("unreadable_request",)}


def _asked(embeddings: object) -> dict[str, Any]:
    """What these embeddings ask for, and why: as far as the object and the steps around say."""
    said = vars(embeddings) if hasattr(embeddings, "__dict__") else {}
    named = (said.get(name) for name in _MODEL_NAMES)
    provider = _provider(embeddings)
    facts: dict[str, Any] = {
        **_SOURCE,
        "kind": "embedding",
        "name": type(embeddings).__name__,
        "requested_model": next((name for name in named if isinstance(name, str)), None),
        "provider": provider,
        "attributes": address(said, provider),
        **_cause(),
    }
    if provider is not None and said.get("max_retries") == 0:
        facts["attempts_hidden"] = 0
    if current().name is not None:
        del facts["name"]
    return facts


def _provider(embeddings: object) -> str | None:
    """Whom OpenAI's client talks to, as `ls_provider` calls it for the chat models."""
    kind = type(embeddings)
    if not kind.__module__.startswith("langchain_openai"):
        return None
    return "azure" if kind.__name__.startswith("Azure") else "openai"


def _cause() -> dict[str, Any]:
    """Inside a retriever or a tool it is their work; inside a model run it looks into a cache."""
    around, step = enclosing_operation(), enclosing_step()
    if around is not None and around.kind == "model":
        return {"cause": "cache_lookup", "cause_source": "structure"}
    if step is None:
        return {}
    cause = "tool" if step.kind == "tool" else "retrieval"
    return {"cause": cause, "cause_source": "structure", "initiator": "agent"}


def _reported(reply: object, asked: object, estimate: Estimate | None) -> dict[str, Any]:
    """The usage of a reply, or the estimate where it has none."""
    told = usage.as_mapping(getattr(reply, "usage", None))
    counted = usage.from_openai(told)
    if counted is not None:
        return {"usage": counted, "raw_usage": dict(told)}
    return _estimated(asked, estimate)


def _estimated(asked: object, estimate: Estimate | None) -> dict[str, Any]:
    """The operator's estimate of what was asked; tokens sent as numbers are counted."""
    texts: list[Any] = [asked] if isinstance(asked, str) else list(cast("list[Any]", asked) or ())
    if estimate is None or not texts:
        return {}
    try:
        if isinstance(texts[0], int):
            tokens = len(texts)
        elif isinstance(texts[0], str):
            tokens = estimate(texts)
        else:
            tokens = sum(len(numbers) for numbers in texts)
    except Exception as error:
        count(f"langchain_estimate:{type(error).__name__}")
        return {}
    return {
        "usage": {"input": tokens, "output": 0},
        "usage_source": "estimated",
        "raw_usage": {"estimator": getattr(estimate, "__qualname__", type(estimate).__name__)},
    }


def _end_with(seen: Attempt | Operation, read: Callable[[], Mapping[str, Any]]) -> None:
    """Record the result; what cannot be read is unknown, and the host's call goes on."""
    try:
        facts = dict(read())
    except Exception as error:
        count(f"langchain_unreadable:{type(error).__name__}")
        facts = {"flags": ("unreadable_result",)}
    seen.end(**facts)


class _Client:
    """OpenAI's embeddings resource, sync or async: each `create` is an attempt."""

    def __init__(self, client: Any, embeddings: object, estimate: Estimate | None) -> None:
        self._resource = client
        self._embeddings = embeddings
        self._estimate = estimate

    def __getattr__(self, name: str) -> Any:
        if name == "_resource":  # a copy in the making
            raise AttributeError(name)
        return getattr(self._resource, name)

    def create(self, **asked: Any) -> Any:
        """The reply, or what to await for it; the client's exceptions pass unchanged."""
        facts = _started_with(lambda: self._facts(asked))
        # What carries the call may tell a gateway which one it is: `costspan.adapters.httpx`.
        call = OpenOperation(operation_id_of(uuid.uuid4()), current(), "embedding")
        attempt = Attempt.start(layer="sdk", operation_ids=(call.operation_id,), **facts)
        open_operation(call)
        try:
            reply = self._resource.create(**asked)
        except BaseException as error:
            call.is_open = False
            attempt.end(**failure_facts(error, None))
            raise
        if hasattr(reply, "__await__"):
            return self._awaited(reply, call, attempt, asked)
        call.is_open = False
        self._end(attempt, reply, asked)
        return reply

    async def _awaited(
        self, reply: Any, call: OpenOperation, attempt: Attempt, asked: Mapping[str, Any]
    ) -> Any:
        try:
            result = await reply
        except BaseException as error:
            attempt.end(**failure_facts(error, None))
            raise
        finally:
            call.is_open = False
        self._end(attempt, result, asked)
        return result

    def _facts(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        facts = _asked(self._embeddings)
        if isinstance(model := asked.get("model"), str):
            facts["requested_model"] = model
        return facts

    def _end(self, attempt: Attempt, reply: object, asked: Mapping[str, Any]) -> None:
        def read() -> dict[str, Any]:
            named = getattr(reply, "model", None)
            told = _reported(reply, asked.get("input"), self._estimate)
            return {"executed_model": named if isinstance(named, str) else None, **told}

        _end_with(attempt, read)


class TrackedEmbeddings(Embeddings):
    """Any embeddings, recorded call by call. What else they have is reached through it."""

    def __init__(self, embeddings: Embeddings, estimate: Estimate | None = None) -> None:
        self._embeddings = embeddings
        self._estimate = estimate

    def __getattr__(self, name: str) -> Any:
        if name in ("_embeddings", "_estimate"):  # a copy in the making
            raise AttributeError(name)
        return getattr(self._embeddings, name)

    def embed_documents(self, texts: list[str], *args: Any, **kwargs: Any) -> list[list[float]]:
        """The vectors of these texts."""
        called = self._embeddings.embed_documents
        return self._sync(texts, lambda: called(texts, *args, **kwargs))

    def embed_query(self, text: str, *args: Any, **kwargs: Any) -> list[float]:
        """The vector of this text."""
        called = self._embeddings.embed_query
        return self._sync([text], lambda: called(text, *args, **kwargs))

    async def aembed_documents(
        self, texts: list[str], *args: Any, **kwargs: Any
    ) -> list[list[float]]:
        """The vectors of these texts."""
        called = self._embeddings.aembed_documents
        return await self._async(texts, lambda: called(texts, *args, **kwargs))

    async def aembed_query(self, text: str, *args: Any, **kwargs: Any) -> list[float]:
        """The vector of this text."""
        called = self._embeddings.aembed_query
        return await self._async([text], lambda: called(text, *args, **kwargs))

    def _open(self) -> Operation:
        asked = _started_with(lambda: _asked(self._embeddings))
        operation = Operation.start(operation_id_of(uuid.uuid4()), layer="framework", **asked)
        open_operation(operation.handle)
        return operation

    def _sync(self, texts: Sequence[str], call: Callable[[], V]) -> V:
        operation = self._open()
        try:
            vectors = call()
        except BaseException as error:
            operation.end(**failure_facts(error, None))
            raise
        _end_with(operation, lambda: _estimated(texts, self._estimate))
        return vectors

    async def _async(self, texts: Sequence[str], call: Callable[[], Awaitable[V]]) -> V:
        operation = self._open()
        try:
            vectors = await call()
        except BaseException as error:
            operation.end(**failure_facts(error, None))
            raise
        _end_with(operation, lambda: _estimated(texts, self._estimate))
        return vectors
