"""A run's life in the books: its START, its END, and what may go wrong between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from langchain_core import __version__

from costspan.adapter import Operation, enclosing_operation, evidence, open_operation
from costspan.adapters.langchain import reply, request, retry
from costspan.adapters.langchain.failure import is_cancelled, judge
from costspan.adapters.langchain.partial import request_characters
from costspan.adapters.langchain.runs import (
    Run,
    RunTable,
    enter_fallbacks,
    operation_id_of,
    run_id_of,
)
from costspan.adapters.langchain.watch import watch
from costspan.core.counters import count

_SOURCE: dict[str, str] = {"source": "langchain", "source_version": __version__}
_RETRY = ("attempt", "retry_of", "retry_reason")
_FALLBACKS = "RunnableWithFallbacks"
_ASKS_A_PERSON = frozenset({"GraphInterrupt", "GraphBubbleUp", "NodeInterrupt", "ParentCommand"})
"""What LangGraph raises through a tool to stop or to leave the graph."""

RUNS = RunTable()
"""The runs under way in this process, whichever handler saw them."""

Facts = dict[str, Any]


def start_model(
    run: Run,
    run_id: UUID,
    serialized: Mapping[str, Any] | None,
    messages: Sequence[Any],
    details: Mapping[str, Any],
) -> None:
    """Record that a model run starts, and show it to instruments underneath."""
    run.params = details.get("invocation_params") or {}
    run.options = details.get("options") or {}
    run.fingerprint = retry.fingerprint(messages)
    run.characters = request_characters(messages)
    facts = request.model_facts(run, serialized, details.get("name"))
    repeats = retry.after_failure(run, facts.get("requested_model"))
    facts.update(repeats)
    handle = _open(run, facts, messages).handle
    if repeats:
        handle.retry = {name: repeats[name] for name in _RETRY if name in repeats}
    if mates := _mates(run):
        handle.operation_ids = (*mates, handle.operation_id)
    open_operation(handle)
    watch(run, run_id, _give_up)


def start_step(run: Run, facts: Facts) -> None:
    """Record that a tool or retriever starts: the parent of what its function calls."""
    open_operation(_open(run, facts).handle)


def start_chain(run: Run, serialized: Mapping[str, Any] | None, name: str | None) -> None:
    """Nothing is recorded; alternatives of `with_fallbacks` are told what they belong to."""
    named = (serialized or {}).get("id") or (name,)
    if _FALLBACKS in (named[-1], name):
        enter_fallbacks(run)


def _open(run: Run, facts: Facts, prompt: object = None) -> Operation:
    assert run.kind != "chain", "chains make no events"
    facts.update(request.place(run))
    facts.update(_SOURCE)
    run.facts = facts
    run.context, claims = request.owned(run)
    if claims:
        facts["client_claims"] = claims
    run.operation = Operation.start(
        operation_id_of(run.run_id),
        layer="framework",
        kind=run.kind,
        context=run.context,
        prompt=prompt,
        **facts,
    )
    return run.operation


def _mates(run: Run) -> tuple[str, ...]:
    """The calls before this one of the same `generate`, which starts all before making the first.

    An instrument underneath cannot tell for which of them it is called. Any other model run around
    this one is a model that calls another, and may report this run's usage as its own.
    """
    around = enclosing_operation()
    around_id = None if around is None else run_id_of(around.operation_id)
    other = None if around_id is None else RUNS.find(around_id)
    if around is None or other is None:
        return ()
    if other.params is run.params:
        return around.operation_ids
    other.inside += (run,)
    return ()


def _give_up(run: Run) -> None:
    """The call is over and nobody said so. What it still may bring comes as evidence."""
    if not run.is_over:
        RUNS.drop(run)
        end(run, run.run_id, lambda: failure_facts(asyncio.CancelledError(), run))


def end(run: Run | None, run_id: UUID | str, facts_of: Callable[[], Facts]) -> None:
    """Record the END of a run, once, whichever handler brings it.

    A run whose START is not known any more (evicted, or given up with its task) still brings its
    result, as evidence on the operation.
    """
    if run is not None and run.is_over:
        return  # another handler of the same call was first
    try:
        facts = facts_of()
    except Exception as error:
        count(f"langchain_unreadable:{type(error).__name__}")
        facts = {"provider_result": "unknown", "flags": ("unreadable_result",)}
    if run is None or run.operation is None:
        count("langchain_end_without_start")
        if facts.setdefault("provider_result", "ok") == "ok":
            facts["delivery"] = "delivered"
        evidence(operation_ids=operation_id_of(run_id), layer="framework", **_SOURCE, **facts)
        return
    run.is_over = True
    if run.unwatch is not None:
        run.unwatch()
        run.unwatch = None
    run.operation.end(**facts)
    if run.kind == "model" and not facts.keys() & {"provider_result", "delivery"}:
        retry.remember_answer(run)


def end_chain(run: Run | None, error: BaseException | None = None) -> None:
    """A chain is over; so are the fallbacks it offered. Where it failed it may be run again."""
    if run is None:
        return
    run.is_over = True
    if error is not None and not is_cancelled(error) and not _asks_a_person(error):
        retry.answers_refused(run, judge(error, has_reply=True))


def failure_facts(error: BaseException, run: Run | None) -> Facts:
    """What an error of a model run says; remembered for the run that repeats it.

    A reply that had begun was not for nothing: its usage is reported or estimated.
    """
    begun = {} if run is None else _begun_facts(run)
    if is_cancelled(error):
        facts = {**_cancelled_facts(error), **begun}
        if begun.get("usage_source") == "estimated":
            facts["delivered_usage"] = {"output": begun["usage"]["output"]}
        return facts
    verdict = judge(error, has_reply=run is not None and run.has_reply)
    if run is not None:
        retry.remember(run, verdict)
    return {
        "provider_result": "failed",
        "error_type": type(error).__qualname__,
        "fault": verdict.fault,
        "provider_billed": verdict.provider_billed,
        **begun,
    }


def _begun_facts(run: Run) -> Facts:
    if run.partial is None:
        return {}
    said = run.partial.said
    return {
        **run.partial.facts(run.characters, run.params.get("tools")),
        **reply.named_facts(said, {}, run),
    }


def step_error_facts(error: BaseException) -> Facts:
    """What an error of a tool or retriever says. Asking a person is no failure."""
    if is_cancelled(error):
        return _cancelled_facts(error)
    result = "unknown" if _asks_a_person(error) else "failed"
    return {"provider_result": result, "error_type": type(error).__qualname__}


def _asks_a_person(error: BaseException) -> bool:
    return any(kind.__name__ in _ASKS_A_PERSON for kind in type(error).__mro__)


def _cancelled_facts(error: BaseException) -> Facts:
    return {
        "provider_result": "unknown",
        "delivery": "cancelled_by_user",
        "error_type": type(error).__qualname__,
    }
