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
from costspan.core import counters, runtime
from costspan.core.context import Context
from costspan.core.identifiers import new_attempt_id
from costspan.core.recorder import Ack, Refused
from costspan.core.schema import Kind, Layer

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


def context_fields(context: Context) -> dict[str, Any]:
    """The observation fields a context gives: owner, session, step, lineage.

    A cause named by `costspan.work` is explicit; without one an adapter adds what it infers.
    """
    tenant, source = context.owner()
    holder = context.holder
    fields: dict[str, Any] = {
        "tenant": tenant,
        "tenant_source": source,
        "session": context.session,
        "session_origin": context.session_origin,
        "user": context.user,
        "feature": context.feature,
        "labels": context.labels,
        "request_id": context.request_id,
        "client_request_id": context.client_request_id,
        "parent": context.parent,
        "parent_origin": context.parent_origin,
        "name": context.name,
        "flags": context.flags,
    }
    if tenant != context.tenant:
        # A principal was bound since: what came signed for another owner (or none) is not its own.
        for name in ("session", "parent"):
            if fields[f"{name}_origin"] == "signed":
                fields[name] = fields[f"{name}_origin"] = None
    if holder is not None:
        holder.touched = True
        if fields["session"] is None and holder.session is not None:
            fields["session"] = holder.session
            fields["session_origin"] = "ours"
        if context.user is None:
            fields["user"] = holder.user
    if context.cause is not None:
        fields["cause"] = context.cause
        fields["cause_source"] = "explicit"
        fields["initiator"] = context.initiator
    return fields


class _Seen:
    """What one instrument sees of one call: a START now, one END later."""

    __slots__ = ("_ended", "_facts", "attempt_id", "context", "operation_ids", "started_at")

    def __init__(
        self,
        attempt_id: str | None,
        operation_ids: Iterable[str],
        context: Context | None,
        facts: dict[str, Any],
    ) -> None:
        self.attempt_id = attempt_id
        self.operation_ids = tuple(operation_ids)
        self.context = current() if context is None else context
        self.started_at: int = facts.pop("started_at", None) or time.time_ns()
        self._facts = facts
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether the END was recorded."""
        return self._ended

    def add(self, **facts: Any) -> None:
        """Keep facts that became known between start and end; written with the END."""
        self._facts.update(facts)

    def _write(self, phase: str, facts: dict[str, Any]) -> Ack | Refused:
        fields = context_fields(self.context)
        if fields.get("cause_source") == "explicit" and facts.get("cause_source") != "explicit":
            facts = {k: v for k, v in facts.items() if k not in _CAUSE_FIELDS}
        fields.update((k, v) for k, v in facts.items() if v is not None)
        fields["flags"] = (*self.context.flags, *facts.get("flags", ()))
        fields["attempt_id"] = self.attempt_id
        fields["operation_ids"] = self.operation_ids
        fields["phase"] = phase
        fields["started_at"] = self.started_at
        fields["recorded_at"] = time.time_ns()
        return runtime.record(fields)

    def _start(self) -> None:
        # The END repeats the trace of here: where it is recorded, another span may be in force.
        if (span := tracing.current_span()) is not None:
            tracing.join(span, self.context, self._facts, *self._own_name())
        self._write("start", self._facts)

    def _own_name(self) -> tuple[str, str | None]:
        """The span attribute that names this, and its value."""
        return tracing.ATTEMPT, self.attempt_id

    def end(self, **facts: Any) -> Ack | Refused | None:
        """Record the result: `usage`, `executed_model`, `response_id`, `provider_result`, ….

        `provider_result` is ok unless given; `ended_at` is now unless given. The END repeats what
        START said, so that either alone is enough. A second end is counted and ignored (None).
        """
        if self._ended:
            counters.count("ended_twice")
            return None
        self._ended = True
        facts.setdefault("provider_result", "ok")
        facts.setdefault("ended_at", time.time_ns())
        if not facts.get("usage"):
            facts.setdefault("usage_source", "missing")
        return self._write("end", {**self._facts, **facts})

    def fail(self, error: BaseException | None, **facts: Any) -> Ack | Refused | None:
        """Record a failure: the error's type (never its message), and who is at fault if known.

        `provider_billed` stays unknown (None) unless given: a timeout may have been billed.
        """
        facts.setdefault("provider_result", "failed")
        if error is not None:
            facts.setdefault("error_type", type(error).__qualname__)
        return self.end(**facts)


_CAUSE_FIELDS = frozenset({"cause", "cause_source", "initiator"})


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

        `context` is captured here (the current one unless given), so that it holds wherever the
        END is recorded.
        """
        facts.update(layer=layer, kind=kind)
        seen = cls(new_attempt_id(), operation_ids, context, facts)
        seen._start()
        return seen

    def evidence(self, **facts: Any) -> Ack | Refused:
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
        facts.update(layer=layer, kind=kind)
        seen = cls(None, (operation_id,), context, facts)
        seen.handle = OpenOperation(operation_id, seen.context, kind)
        seen._start()
        return seen

    def _own_name(self) -> tuple[str, str | None]:
        return tracing.OPERATION, self.operation_ids[0]

    def end(self, **facts: Any) -> Ack | Refused | None:
        """Record the result and close the operation for inner instruments."""
        self.handle.is_open = False
        return super().end(**facts)


def evidence(**facts: Any) -> Ack | Refused:
    """Record what is known of an attempt, an operation or a response from outside its instrument.

    Give `attempt_id`, `operation_ids` or `response_id`, and whatever observation fields are known.
    """
    facts.setdefault("layer", "manual")
    facts.setdefault("phase", "end")
    facts["recorded_at"] = time.time_ns()
    return runtime.record(facts)
