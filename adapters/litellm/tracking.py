"""One attempt on its way through LiteLLM, and how the next try finds the one before it.

The state of an attempt rides on LiteLLM's own record of the call (`model_call_details`, the dict
every callback is given). That dict is LiteLLM's alone, one per call, and survives wrappers,
threads and streams; the caller's metadata does not: LiteLLM mutates it in place and shares it
between calls. So there is no table of open attempts to leak: an abandoned call takes its state
along when LiteLLM lets go of it, and its START stays open in the journal.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from costspan.adapter import Attempt
from costspan.core.counters import count
from costspan.core.schema import Kind, RetryReason

Details = dict[str, Any]
"""LiteLLM's `model_call_details`."""

_KEY = "costspan_attempt"
_FAILED_MAX = 4096

_KINDS: dict[str, Kind] = {
    "completion": "model",
    "text_completion": "model",
    "responses": "model",
    "anthropic_messages": "model",
    "generate_content": "model",
    "generate_content_stream": "model",
    "embedding": "embedding",
    "image_generation": "image",
    "image_edit": "image",
    "image_variation": "image",
    "transcription": "audio",
    "speech": "audio",
    "rerank": "rerank",
    "moderation": "guardrail",
}


def call_name(call_type: object) -> str:
    """LiteLLM's call type without the `a` of its async twin: `acompletion` -> `completion`."""
    name = str(getattr(call_type, "value", call_type) or "")
    if name in _KINDS or not name.startswith("a"):
        return name
    return name[1:]


def kind_of(call_type: object) -> Kind | None:
    """What kind of work a call is; None for calls that consume no model (files, batches, lists)."""
    return _KINDS.get(call_name(call_type))


class Tracked:
    """An attempt and what its successor must know of it.

    Copying gives the same object: other callbacks may copy LiteLLM's record, and two copies of
    one attempt would be two attempts.
    """

    __slots__ = ("attempt", "cost_said", "number", "requested_model", "retry_reason")

    def __init__(self, attempt: Attempt, number: int, requested_model: str | None) -> None:
        self.attempt = attempt
        self.number = number
        self.requested_model = requested_model
        self.retry_reason: RetryReason | None = None
        """Why somebody would try again; None as long as this attempt has not failed."""
        self.cost_said = False

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (repr(self),)

    def __repr__(self) -> str:
        return f"<costspan attempt {self.attempt.attempt_id}>"


def tracked_on(details: Mapping[str, Any]) -> Tracked | None:
    """The latest attempt of this call, if we saw it start."""
    found = details.get(_KEY)
    return found if isinstance(found, Tracked) else None


def track(details: Details, tracked: Tracked) -> None:
    """Make it the attempt of this call: every later callback of the call finds it."""
    details[_KEY] = tracked


class Predecessor(NamedTuple):
    """The failed attempt that another one retries."""

    attempt_id: str | None
    number: int
    requested_model: str | None
    retry_reason: RetryReason


def predecessor(tracked: Tracked) -> Predecessor | None:
    """What a retry on the same LiteLLM record links to; None if that attempt did not fail."""
    if tracked.retry_reason is None:
        return None
    return Predecessor(
        tracked.attempt.attempt_id,
        tracked.number,
        tracked.requested_model,
        tracked.retry_reason,
    )


class FailedAttempts:
    """The latest failed attempt of each trace, for the Router: each of its tries is a new call.

    Bounded: the oldest traces nobody retried are forgotten and counted. A forgotten link costs
    an attempt its `retry_of`, never its money.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_trace: OrderedDict[tuple[str, str | None], Predecessor] = OrderedDict()

    def remember(self, trace_id: str, failed: Predecessor) -> None:
        """Keep the failure until its retry or `_FAILED_MAX` later failures."""
        with self._lock:
            self._by_trace[trace_id, failed.requested_model] = failed
            if len(self._by_trace) <= _FAILED_MAX:
                return
            self._by_trace.popitem(last=False)
        count("litellm:failed_attempt_forgotten")

    def take(self, trace_id: str, requested_model: str | None) -> Predecessor | None:
        """The failure that this retry follows."""
        with self._lock:
            return self._by_trace.pop((trace_id, requested_model), None)


failed_attempts = FailedAttempts()
