"""OpenTelemetry: every span that starts under a request or an `attribute` says whose work it is.

    provider.add_span_processor(CostSpanProcessor())

The join itself needs none of this: with OpenTelemetry loaded, every attempt already carries the
trace and span it ran in, and the span in force carries our ids. The processor adds the owner to
the spans between, so that a trace can be searched by tenant. Spans are never the books: what a
caller's `traceparent` keeps from being sampled is recorded by costspan all the same.
"""

from __future__ import annotations

from costspan.adapter import tracing
from costspan.core.context import NOTHING, current, mirrored
from costspan.core.counters import count

try:
    from opentelemetry.context import Context as OTelContext
    from opentelemetry.sdk.trace import Span, SpanProcessor
except ImportError as missing:
    raise ImportError(
        "costspan.adapters.otel needs OpenTelemetry's SDK: pip install 'costspan[otel]'"
    ) from missing

__all__ = ["CostSpanProcessor"]


class CostSpanProcessor(SpanProcessor):
    """Stamps `costspan.tenant.id`, `costspan.session.id` and `costspan.request.id` on every span.

    The owner is the one in force where the span starts; in a thread that has lost it, the one that
    came along in OpenTelemetry's own context, or in the context the span is given as its parent.
    """

    def on_start(self, span: Span, parent_context: OTelContext | None = None) -> None:
        """Stamp a span that starts. Never raises into the host."""
        try:
            context = current()
            if context is NOTHING and parent_context is not None:
                context = mirrored(parent_context) or NOTHING
            if context is not NOTHING:
                span.set_attributes(tracing.owner_attributes(context))
        except Exception as error:
            count(f"otel_failed:{type(error).__name__}")
