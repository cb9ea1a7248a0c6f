"""The host's OpenTelemetry trace around a call, and our ids on its span.

A trace is a link for who reads, never identity: its ids may be a stranger's, and two tenants may
share them. OpenTelemetry is never imported here; where the host has not loaded it there is no
trace and no cost. Nothing is asked of the sampler: a span that is not recorded has its ids too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from costspan.core.clean import Invalid, identifier, tenant_id
from costspan.core.context import Context
from costspan.core.counters import count

TENANT = "costspan.tenant.id"
SESSION = "costspan.session.id"
REQUEST = "costspan.request.id"
ATTEMPT = "costspan.attempt.id"
OPERATION = "costspan.operation.id"


def current_span() -> Any:
    """The span in force here; None if there is none, or the host does not use OpenTelemetry."""
    otel = sys.modules.get("opentelemetry.trace")
    read = getattr(otel, "get_current_span", None)
    if read is None:  # not loaded, or another thread is still loading it
        return None
    try:
        span = read()
        if span is getattr(otel, "INVALID_SPAN", None):
            return None  # the quick way where there is no trace
        return span if span.get_span_context().is_valid else None
    except Exception as error:  # a tracer of the host's own making
        count(f"otel_failed:{type(error).__name__}")
        return None


def links(span: Any, caller_trace: str | None) -> dict[str, str]:
    """The fields `trace_id`, `span_id` and `trace_origin` that a span gives an observation.

    Args:
        span: The span in force, of `current_span`.
        caller_trace: The trace that the current request's caller named, if it named one: whatever
            runs under it, in however deep a span, is in a trace of origin `caller`.
    """
    known = span.get_span_context()
    trace_id = format(known.trace_id, "032x")
    if known.is_remote:  # no span of this process: its id is whatever the caller wrote
        return {"trace_id": trace_id, "trace_origin": "caller"}
    parent = getattr(span, "parent", None)  # a span of the SDK knows it
    named_by_caller = trace_id == caller_trace or getattr(parent, "is_remote", False)
    return {
        "trace_id": trace_id,
        "span_id": format(known.span_id, "016x"),
        "trace_origin": "caller" if named_by_caller else "ours",
    }


def request_links(span: Any, caller_trace: str | None) -> dict[str, str]:
    """The links of a request: its span's, else the trace its caller named. Never raises."""
    try:
        if span is not None:
            return links(span, caller_trace)
    except Exception as error:
        count(f"otel_failed:{type(error).__name__}")
    return {} if caller_trace is None else {"trace_id": caller_trace, "trace_origin": "caller"}


def join(span: Any, context: Context, facts: dict[str, Any], name: str, value: str | None) -> None:
    """Link `facts` to the span in force, and mark it with the owner and our id (`name`, `value`).

    What names a span of its own keeps its trace. Several attempts under one span leave the ids of
    the last; each of them names the span. Never raises.
    """
    try:
        if facts.get("span_id") is None:
            facts.update(links(span, context.caller_trace))
        if span.is_recording():
            span.set_attributes(_known({**owner_attributes(context, facts), name: value}))
    except Exception as error:
        count(f"otel_failed:{type(error).__name__}")


def mark_request(span: Any, context: Context) -> None:
    """Put the request's owner and id on its span, if that is still recorded. Never raises."""
    try:
        if span.is_recording():
            span.set_attributes(owner_attributes(context))
    except Exception as error:
        count(f"otel_failed:{type(error).__name__}")


def owner_attributes(context: Context, facts: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The span attributes that say whose work it is; nothing personal (no user) is among them."""
    said = facts or {}
    holder = context.holder
    bound = holder.session if holder is not None else None
    tenant = said.get("tenant")
    return _known(
        {
            TENANT: _clean(tenant_id, context.owner()[0] if tenant is None else tenant),
            SESSION: _clean(identifier, said.get("session") or context.session or bound),
            REQUEST: context.request_id,
        }
    )


def _clean(cleaner: Callable[[object], str | None], value: object) -> str | None:
    """What the observation keeps of a value: a span gets nothing that the books would refuse."""
    try:
        return None if value is None else cleaner(value)
    except Invalid:
        return None


def _known(values: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}
