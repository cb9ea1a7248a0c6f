"""What every adapter is written on, ours and strangers'.

An adapter that sees the moment before I/O mints an `Attempt`; one that sees only a host's own
notion of a call (a LangChain run) opens an `Operation`; whatever else is known later is
`evidence`. All three write observations and never raise; `usage` normalises what providers and
frameworks report.

    attempt = Attempt.start(layer="gateway", provider="openai", requested_model="gpt-4o")
    try:
        reply = call()
    except Exception as error:
        attempt.fail(error)
        raise
    attempt.end(usage=usage.from_openai(reply.usage), executed_model=reply.model)
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Self

from costspan.adapter import tracing, usage
from costspan.adapter.bridge import (
    OpenOperation,
    current,
    enclosing_operation,
    enclosing_step,
    open_operation,
)
from costspan.adapter.fields import (
    Kept,
    bound_owner,
    cleaned,
    context_fields,
    fields_of,
    laid_over,
)
from costspan.core import counters, runtime
from costspan.core.context import Context
from costspan.core.identifiers import new_attempt_id
from costspan.core.privacy import prompts
from costspan.core.recorder import Ack, Held, Refused
from costspan.core.schema import Kind, Layer, Phase

__all__ = [
    "Attempt",
    "Context",
    "OpenOperation",
    "Operation",
    "context_fields",
    "current",
    "enclosing_operation",
    "enclosing_step",
    "evidence",
    "new_attempt_id",
    "open_operation",
    "tracing",
    "usage",
]


class _Seen:
    """What one instrument sees of one call: a START now, one END later."""

    __slots__ = (
        *("_bound", "_ended", "_facts", "_more", "_said"),
        *("attempt_id", "context", "operation_ids", "started_at"),
    )

    def __init__(
        self,
        attempt_id: str | None,
        operation_ids: Iterable[str],
        context: Context | None,
        facts: dict[str, Any],
        now_ns: int | None = None,
    ) -> None:
        self.attempt_id = attempt_id
        self.operation_ids = tuple(operation_ids)
        self.context = current() if context is None else context
        if "prompt" in facts:
            _hash_prompt(facts, self.context)
        self.started_at: int = facts.get("started_at") or now_ns or time.time_ns()
        facts["started_at"] = self.started_at
        if self.operation_ids:
            facts["operation_ids"] = self.operation_ids
        self._facts = facts
        self._more: dict[str, Any] = {}
        self._said: Kept | None = None
        self._bound: tuple[Any, ...] | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the END was recorded."""
        return self._ended

    def add(self, **facts: Any) -> None:
        """Keep facts that became known between start and end; written with the END."""
        self._more.update(facts)

    def _start(self, now_ns: int) -> None:
        # The END repeats the trace of here: where it is recorded, another span may be in force.
        if (span := tracing.current_span()) is not None:
            tracing.join(span, self.context, self._facts, *self._own_name())
        kept = self._said = fields_of(self.context, self._facts)
        self._bound = bound_owner(self.context)
        self._write("start", kept, now_ns)

    def _write(self, phase: Phase, kept: Kept, now_ns: int) -> Ack | Held | Refused:
        kept["phase"] = phase
        kept["recorded_at"] = now_ns
        if self.attempt_id is None:
            kept.pop("attempt_id", None)
        else:
            kept["attempt_id"] = self.attempt_id
        return runtime.record_clean(kept)

    def _own_name(self) -> tuple[str, str | None]:
        """The span attribute that names this, and its value."""
        return tracing.ATTEMPT, self.attempt_id

    def end(self, **facts: Any) -> Ack | Held | Refused | None:
        """Record the result: `usage`, `executed_model`, `response_id`, `provider_result`, ….

        `provider_result` is ok unless given; `ended_at` is now unless given. The END repeats what
        START said, so that either alone is enough. A second end is counted and ignored (None).
        """
        if self._ended:
            counters.count("ended_twice")
            return None
        self._ended = True
        now_ns = time.time_ns()
        facts.setdefault("provider_result", "ok")
        facts.setdefault("ended_at", now_ns)
        if not facts.get("usage"):
            facts.setdefault("usage_source", "missing")
        if self._more:
            facts = {**self._more, **facts}
        if not _ITS_START.isdisjoint(facts):
            facts = {name: fact for name, fact in facts.items() if name not in _ITS_START}
        kept: Kept | None = None
        if self._said is not None and self._bound == bound_owner(self.context):
            kept = laid_over(self._said, facts)
        if kept is None:
            kept = cleaned(self.context, {**self._facts, **facts})
        return self._write("end", kept, now_ns)

    def fail(self, error: BaseException | None, **facts: Any) -> Ack | Held | Refused | None:
        """Record a failure: the error's type (never its message), and who is at fault if known.

        `provider_billed` stays unknown (None) unless given: a timeout may have been billed.
        """
        facts.setdefault("provider_result", "failed")
        if error is not None:
            facts.setdefault("error_type", type(error).__qualname__)
        return self.end(**facts)


def _hash_prompt(facts: dict[str, Any], context: Context) -> None:
    """Put the hash of a prompt in its place, if keys are configured; the prompt goes no further."""
    prompt = facts.pop("prompt")
    if prompt is None:
        return
    digest = prompts.hash_of(prompt, facts.get("tenant") or context.owner()[0])
    if digest is not None:
        facts["prompt_hash"] = digest


_ITS_START = frozenset({"operation_ids", "started_at"})
"""What only the START says."""


class Attempt(_Seen):
    """One try at one provider: minted by us just before I/O, the identity of the event for ever."""

    __slots__ = ()

    @classmethod
    def start(
        cls,
        *,
        layer: Layer = "manual",
        kind: Kind = "model",
        operation_ids: Iterable[str] = (),
        context: Context | None = None,
        **facts: Any,
    ) -> Self:
        """Write the intent down before the call leaves; any observation field may be given.

        A `prompt` (messages or a text) is never kept: its hash is, if keys are configured.

        `context` is captured here (the current one unless given), so that it holds wherever the
        END is recorded.
        """
        now_ns = time.time_ns()
        facts["layer"] = layer
        facts["kind"] = kind
        seen = cls(new_attempt_id(now_ns), operation_ids, context, facts, now_ns)
        seen._start(now_ns)
        return seen

    def evidence(self, **facts: Any) -> Ack | Held | Refused:
        """Record something more about this attempt (a verdict, a delivery) at any time."""
        return evidence(attempt_id=self.attempt_id, **facts)


class Operation(_Seen):
    """A host's own notion of a call, which may hold several attempts or be metered by nobody else.

    Its observations name the operation and no attempt: where attempts name it too they become
    evidence on them, and where none does they are the event.
    """

    __slots__ = ("handle",)

    handle: OpenOperation

    @classmethod
    def start(
        cls,
        operation_id: str,
        *,
        layer: Layer,
        kind: Kind = "model",
        context: Context | None = None,
        **facts: Any,
    ) -> Self:
        """Open the operation; `handle` is what `open_operation` shows to inner instruments."""
        now_ns = time.time_ns()
        facts["layer"] = layer
        facts["kind"] = kind
        seen = cls(None, (operation_id,), context, facts, now_ns)
        seen.handle = OpenOperation(operation_id, seen.context, kind)
        seen._start(now_ns)
        return seen

    def _own_name(self) -> tuple[str, str | None]:
        return tracing.OPERATION, self.operation_ids[0]

    def end(self, **facts: Any) -> Ack | Held | Refused | None:
        """Record the result and close the operation for inner instruments."""
        self.handle.is_open = False
        return super().end(**facts)


def evidence(**facts: Any) -> Ack | Held | Refused:
    """Record what is known of an attempt, an operation or a response from outside its instrument.

    Give `attempt_id`, `operation_ids` or `response_id`, and whatever observation fields are known.
    """
    facts.setdefault("layer", "manual")
    facts.setdefault("phase", "end")
    facts["recorded_at"] = time.time_ns()
    return runtime.record(facts)
