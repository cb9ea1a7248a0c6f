"""`CostHandler`: LangChain's callbacks, in the order a run lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

from costspan.adapters.langchain import lifecycle
from costspan.adapters.langchain.lifecycle import RUNS
from costspan.adapters.langchain.partial import Partial
from costspan.adapters.langchain.reply import reply_facts
from costspan.core.counters import count

Hook = TypeVar("Hook", bound=Callable[..., None])


def _quiet(hook: Hook) -> Hook:
    """The hook, which never raises into the host: what goes wrong is counted."""

    @wraps(hook)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            hook(*args, **kwargs)
        except Exception as error:
            count(f"langchain_{hook.__name__}:{type(error).__name__}")

    return cast("Hook", run)


class CostHandler(BaseCallbackHandler):
    """Records every model, tool and retriever run of the calls it is given to.

    Holds no state of its own: several of them on one call make one event. It runs inline, in the
    caller's context, which is where the owner is. Prompts and replies are not kept.
    """

    run_inline = True
    raise_error = False

    @_quiet
    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[Any]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the operation, in the owner's context, before the request leaves."""
        run = RUNS.open("model", run_id, parent_run_id, metadata, tags)
        if run is not None:
            asked = messages[0] if messages else ()
            lifecycle.start_model(run, run_id, serialized, asked, kwargs)

    @_quiet
    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """As a chat model's start, for completion models."""
        run = RUNS.open("model", run_id, parent_run_id, metadata, tags)
        if run is not None:
            lifecycle.start_model(run, run_id, serialized, prompts, kwargs)

    def on_llm_new_token(
        self, token: Any, *, run_id: UUID, chunk: Any = None, **kwargs: Any
    ) -> None:
        """From the first token on, what runs between the chunks is the reader's work."""
        try:  # as `_quiet`, without its call: a reply has thousands of tokens
            partial = self._partial(run_id)
            if partial is not None:
                partial.take_chunk(token, chunk)
        except Exception as error:
            count(f"langchain_on_llm_new_token:{type(error).__name__}")

    @_quiet
    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """As a token, where content is streamed as events."""
        partial = self._partial(run_id)
        if partial is not None:
            partial.take_event(event)

    def _partial(self, run_id: UUID) -> Partial | None:
        """The reply that has begun, if it is this handler that reads it."""
        run = RUNS.find(run_id)
        if run is None:
            return None
        if run.partial is None:
            run.partial = Partial(self)
            if run.operation is not None:
                run.operation.handle.is_open = False
        return run.partial if run.partial.reader is self else None

    @_quiet
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the reply's usage and close the operation."""
        run = RUNS.close(run_id)
        lifecycle.end(run, run_id, lambda: reply_facts(response, run))

    @_quiet
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Record the failure or the cancellation."""
        run = RUNS.close(run_id)
        lifecycle.end(run, run_id, lambda: lifecycle.failure_facts(error, run))

    @_quiet
    def on_tool_start(
        self,
        serialized: dict[str, Any],
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the tool's step: the parent of what its function calls."""
        run = RUNS.open("tool", run_id, parent_run_id, metadata, tags)
        if run is not None:
            name = (serialized or {}).get("name") or kwargs.get("name")
            facts = {"name": name, "tool_call_id": kwargs.get("tool_call_id")}
            lifecycle.start_step(run, facts)

    @_quiet
    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Close the tool's step. A tool may say in its message that it failed."""
        failed = getattr(output, "status", None) == "error"
        facts = {"provider_result": "failed", "fault": "agent"} if failed else {}
        lifecycle.end(RUNS.close(run_id), run_id, lambda: facts)

    @_quiet
    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Close the tool's step as failed."""
        run = RUNS.close(run_id)
        lifecycle.end(run, run_id, lambda: lifecycle.step_error_facts(error))

    @_quiet
    def on_retriever_start(
        self,
        serialized: dict[str, Any],
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open the retriever's step."""
        run = RUNS.open("retrieval", run_id, parent_run_id, metadata, tags)
        if run is not None:
            name = kwargs.get("name") or run.metadata.get("ls_retriever_name")
            lifecycle.start_step(run, {"name": name})

    @_quiet
    def on_retriever_end(self, documents: Sequence[Any], *, run_id: UUID, **kwargs: Any) -> None:
        """Close the retriever's step."""
        lifecycle.end(RUNS.close(run_id), run_id, dict)

    @_quiet
    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Close the retriever's step as failed."""
        run = RUNS.close(run_id)
        lifecycle.end(run, run_id, lambda: lifecycle.step_error_facts(error))

    @_quiet
    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keep what runs under what."""
        run = RUNS.open("chain", run_id, parent_run_id, metadata, tags)
        if run is not None:
            lifecycle.start_chain(run, serialized, kwargs.get("name"))

    @_quiet
    def on_chain_end(self, outputs: dict[str, Any], *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the chain."""
        lifecycle.end_chain(RUNS.close(run_id))

    @_quiet
    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget the chain; what it was told in vain may be asked again."""
        lifecycle.end_chain(RUNS.close(run_id), error)


_everywhere = CostHandler()
# The default makes it the value in every thread, whatever context that thread was given.
_hook: ContextVar[CostHandler | None] = ContextVar("costspan_langchain", default=_everywhere)
_lock = threading.Lock()
_is_installed = False


def install() -> CostHandler:
    """Give a handler to every LangChain call of this process, also to those with no callbacks.

    Doing it twice is doing it once; a call that was given a `CostHandler` of its own keeps that.
    """
    global _is_installed
    with _lock:
        if not _is_installed:
            register_configure_hook(_hook, inheritable=True, handle_class=CostHandler)
            _is_installed = True
    return _everywhere
