"""One attempt on its way through LiteLLM, and how the next try finds the one before it.

The state of an attempt rides on LiteLLM's own record of the call (`model_call_details`, the dict
every callback is given). That dict is LiteLLM's alone, one per call, and survives wrappers,
threads and streams; the caller's metadata does not: LiteLLM mutates it in place and shares it
between calls. So there is no table of open attempts to leak: an abandoned call takes its state
along when LiteLLM lets go of it, and says so then (`costspan.adapters.litellm.abandoned`).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, Self

from costspan.adapter import Attempt, usage
from costspan.adapters.litellm.abandoned import Life, Stream
from costspan.core.schema import Kind, RetryReason

Details = dict[str, Any]
"""LiteLLM's `model_call_details`."""

SECRET_SUFFIX = secrets.token_hex(8)
"""LiteLLM lays what it does not know of a request over its record, where a request could name, and
so replace, what we keep there."""

_KEY = f"costspan_attempt_{SECRET_SUFFIX}"

_READ_LATER = (
    *("call_type", "combined_usage_object", "completion_start_time", "litellm_params"),
    *("optional_params", "response_cost", "standard_logging_object"),
)
"""What is read of the record once the request has been laid over it."""

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
    # Seen when they end, if at all, and unmeasured where LiteLLM reports no usage of them.
    "_arealtime": "model",
    "_aresponses_websocket": "model",
    "create_interaction": "model",
    "pass_through_endpoint": "model",
    "create_video": "image",
    "video_generation": "image",
    "video_remix": "image",
    "video_edit": "image",
    "video_extension": "image",
    "ocr": "image",
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

    __slots__ = (
        *("_asserted", "_call_type", "_life", "attempt", "cost_said", "is_mock"),
        *("number", "requested_model", "retry_reason"),
    )

    def __init__(self, attempt: Attempt, number: int, requested_model: str | None) -> None:
        self.attempt = attempt
        self.number = number
        self.requested_model = requested_model
        self._call_type: object = None
        self._asserted: dict[str, object] = {}
        self.retry_reason: RetryReason | None = None
        """Why somebody would try again; None as long as this attempt has not failed."""
        self.cost_said = False
        self.is_mock = False
        """Whether LiteLLM made the answer up: no provider was called."""
        self._life = Life(attempt)

    @property
    def stream(self) -> Stream | None:
        """What the stream delivers, kept in case nobody reads it to its end."""
        return self._life.stream

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self._life.stream = stream

    def note_request(self, call_type: object, arguments: Mapping[str, Any]) -> None:
        """Keep the type of the call, and what of LiteLLM's record the request itself names."""
        self._call_type = call_type
        said = {**usage.as_mapping(arguments.get("extra_body")), **arguments}
        self._asserted = {name: said[name] for name in _READ_LATER if name in said}

    def record(self, details: Details) -> Details:
        """LiteLLM's record of the call without what the request itself laid over it."""
        forged = {n for n, said in self._asserted.items() if details.get(n) == said}
        if not forged:
            return details
        own = {name: value for name, value in details.items() if name not in forged}
        return {"call_type": self._call_type, **own}

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


_last_failure: ContextVar[tuple[object, Predecessor] | None] = ContextVar(
    "costspan_litellm_failure", default=None
)
"""The Router makes each try a new call, all tries of an operation in one task, one by one."""


def remember_failure(trace_id: object, failed: Predecessor) -> None:
    """Keep the failure for the retry that the Router may make next in this task."""
    _last_failure.set((trace_id, failed))


def failed_before(trace_id: object, *, is_retry: bool) -> Predecessor | None:
    """The failure that a Router's try in this task follows; a first try follows none.

    Other operations may share the trace, whose id a caller may choose; they do not share the task.
    """
    found = _last_failure.get()
    if found is None:
        return None
    _last_failure.set(None)
    return found[1] if is_retry and found[0] == trace_id else None
