"""What the tests of the OpenTelemetry join share: a trace, a call, and where it says it was."""

from __future__ import annotations

from typing import Any

from costspan.adapter import Attempt
from costspan.core.schema import Observation

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


def call(**facts: Any) -> Attempt:
    attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o", **facts)
    attempt.end(usage={"input": 1})
    return attempt


def place(one: Observation) -> tuple[str | None, str | None, str | None]:
    return one.trace_id, one.span_id, one.trace_origin


def ids(span: Any) -> tuple[str, str]:
    known = span.get_span_context()
    return format(known.trace_id, "032x"), format(known.span_id, "016x")
