"""Calls that LiteLLM calls nobody back for: cancelled, or a stream that nobody read to its end.

The state of an attempt rides on LiteLLM's record of the call, and dies with it. An attempt that is
not ended by then never will be, so its death ends it, with what was seen:

- A stream that said its last word: what it reported, else LiteLLM's estimate.
- A stream that did not: an estimate of what was delivered, and that the consumer left it.
- A call without a reply: unknown and unmeasured; cancelled, where its task was.

Of the text only the token count is kept. Objects die in the midst of anything, in any thread, so
death only queues; a thread of ours counts tokens and records. What is still alive when the
interpreter exits is ended there. A killed process leaves open intents, which are swept later.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any, NamedTuple
from weakref import WeakSet

import litellm

from costspan.adapter import Attempt, usage
from costspan.core.counters import count


class Stream(NamedTuple):
    """What LiteLLM has of a stream: the chunks so far (its own, growing list) and the prompt."""

    chunks: Sequence[Any]
    messages: Any
    is_cached: bool

    @property
    def executed_model(self) -> str | None:
        """The model the provider named; the chunks themselves have the name that was asked for."""
        for chunk in self.chunks:
            hidden = usage.as_mapping(getattr(chunk, "_hidden_params", None))
            named = hidden.get("provider_response_model")
            if isinstance(named, str) and named:
                return named
        return None


class Life:
    """Ends its attempt, if nothing else did, when LiteLLM has let go of the call."""

    __slots__ = ("__weakref__", "_attempt", "_pid", "_task", "stream")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._pid = os.getpid()
        self._task = _current_task()
        self.stream: Stream | None = None
        _alive.add(self)
        _ender.wake()

    def __del__(self) -> None:
        # A forked child holds copies of its parent's calls: they are not its own to end.
        if not self._attempt.ended and self._pid == os.getpid():
            _ender.dead.put(self.rest())

    def rest(self) -> _Rest:
        """What ends the attempt."""
        task = self._task
        cancelled = task is not None and (task.cancelled() or task.cancelling() > 0)
        return _Rest(self._attempt, self.stream, cancelled)


class _Rest(NamedTuple):
    attempt: Attempt
    stream: Stream | None
    was_cancelled: bool


class _Ender:
    """The queue of the dead and the thread that ends their attempts, started at the first call."""

    def __init__(self) -> None:
        self.dead: SimpleQueue[_Rest | threading.Event] = SimpleQueue()  # safe inside a finalizer
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="costspan-litellm-abandoned", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while True:
            rest = self.dead.get()
            if isinstance(rest, threading.Event):
                rest.set()
            else:
                end(rest)

    def wait(self, timeout_s: float) -> bool:
        """Wait until what is queued now has been recorded; False if it took too long."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self.dead.put(reached)
        return reached.wait(timeout_s)


_alive: WeakSet[Life] = WeakSet()
_ender = _Ender()


def settled(timeout_s: float = 10.0) -> bool:
    """Wait until every call that died so far is recorded; False if that took too long."""
    return _ender.wait(timeout_s)


def end(rest: _Rest) -> None:
    """Record the end of an attempt. Never raises."""
    try:
        if rest.attempt.ended:
            return
        delivery = "cancelled_by_user" if rest.was_cancelled else None
        if rest.stream is None:
            rest.attempt.end(provider_result="unknown", delivery=delivery)
        else:
            rest.attempt.end(**_facts_of(rest.stream))
    except Exception as error:
        count(f"litellm:abandoned:{type(error).__name__}")


def _facts_of(stream: Stream) -> dict[str, Any]:
    was_read = any(
        getattr(choice, "finish_reason", None)
        for chunk in stream.chunks
        for choice in getattr(chunk, "choices", None) or ()
    )
    delivery = None if was_read else "cancelled_by_user"
    if stream.is_cached:  # the usage that its chunks repeat is the fill's
        return {"cache": "exact", "delivery": delivery}
    reported, counts = _usage_of(stream)
    facts: dict[str, Any] = {"delivery": delivery, "executed_model": stream.executed_model}
    if counts and any(counts.values()):
        # Only a provider's report has prompt details; before the end it is not its last word.
        is_report = was_read and reported.get("prompt_tokens_details") is not None
        facts["usage"] = counts
        facts["usage_source"] = "provider" if is_report else "estimated"
        if not was_read:
            facts["delivered_usage"] = counts
    return facts


def _usage_of(stream: Stream) -> tuple[dict[str, Any], usage.Usage | None]:
    """What the chunks report, completed by LiteLLM's tokenizer: its report and our components."""
    if not stream.chunks:
        return {}, None
    build: Any = vars(litellm)["stream_chunk_builder"]  # untyped
    built = build(list(stream.chunks), messages=stream.messages)
    reported = dict(usage.as_mapping(getattr(built, "usage", None)))
    return reported, usage.from_litellm(reported)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here: a sync call
        return None


def _at_exit() -> None:
    """End what the interpreter takes along; the thread may have no turn any more."""
    settled(timeout_s=2.0)
    for life in list(_alive):
        end(life.rest())


def _after_fork() -> None:
    """A child starts without its parent's calls; the thread and its queue did not come along."""
    global _ender
    _ender = _Ender()
    _alive.clear()


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_after_fork)
