"""A host that traces with the real OpenTelemetry SDK, and what it exported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from costspan.adapters.otel import CostSpanProcessor

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

OURS = "costspan."


class Traces:
    """A tracer provider of the host's, and what it exported."""

    def __init__(self, *, processor: bool = False, **how: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**how)
        if processor:
            self.provider.add_span_processor(CostSpanProcessor())
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.span = self.provider.get_tracer("host").start_as_current_span

    def finished(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def said(self, name: str) -> dict[str, Any]:
        """What the books wrote on a finished span."""
        attributes = self.finished()[name].attributes or {}
        return {key[len(OURS) :]: attributes[key] for key in attributes if key.startswith(OURS)}


@pytest.fixture
def new_traces() -> Iterator[Callable[..., Traces]]:
    """`new_traces(processor=…, sampler=…)`: another tracer provider of the host's."""
    made: list[Traces] = []

    def new(**how: Any) -> Traces:
        made.append(Traces(**how))
        return made[-1]

    yield new
    for each in made:
        each.provider.shutdown()


@pytest.fixture
def traces(new_traces: Callable[..., Traces]) -> Traces:
    return new_traces()
