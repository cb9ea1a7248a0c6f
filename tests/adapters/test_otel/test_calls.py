"""Every observation names the trace it started in, and our ids are on its span."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from otel_calls import SAMPLED, TRACE, UNSAMPLED, call, ids, place

import costspan
from costspan.adapter import Attempt, Operation
from costspan.core import counters
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]


def test_every_observation_names_the_span_it_started_in(recorded: Recorded, traces: Any) -> None:
    with traces.span("step") as span:
        attempt = Attempt.start(layer="sdk")
        operation = Operation.start("langchain:1", layer="framework")
    with traces.span("elsewhere"):
        attempt.end(usage={"input": 1})
        operation.fail(TimeoutError())
    seen = recorded()
    assert [one.phase for one in seen] == ["start", "start", "end", "end"]
    assert {place(one) for one in seen} == {(*ids(span), "ours")}
    assert seen[0].operation_ids == ()  # a span around a call is a link, never its identity


def test_without_a_span_there_is_no_trace(recorded: Recorded) -> None:
    call()
    assert {place(one) for one in recorded()} == {(None, None, None)}


def test_an_instrument_that_names_its_own_span_keeps_its_trace(
    recorded: Recorded, traces: Any
) -> None:
    with traces.span("step") as span:
        call(trace_id="t", span_id="s", trace_origin="caller")
        call(trace_id="a host's own grouping", trace_origin="caller")
    first, second = (one for one in recorded() if one.phase == "end")
    assert place(first) == ("t", "s", "caller")
    assert place(second) == (*ids(span), "ours")  # never half of each


def test_our_ids_are_on_the_span(recorded: Recorded, traces: Any) -> None:
    with (
        costspan.attribute("acme", session="s1", user="ann", request_id="r1"),
        traces.span("step"),
    ):
        attempt = call()
        Operation.start("langchain:1", layer="framework").end()
    assert traces.said("step") == {
        "tenant.id": "acme",
        "session.id": "s1",
        "request.id": "r1",
        "attempt.id": attempt.attempt_id,
        "operation.id": "langchain:1",
    }


def test_a_span_gets_nothing_that_the_books_refuse(recorded: Recorded, traces: Any) -> None:
    with costspan.attribute(session="s\r\n" * 5000), traces.span("step"):
        with traces.span("refused"):
            call(tenant="evil\nid")
        call(tenant="named by the adapter")
    said = traces.said("step")
    assert "tenant.id" not in traces.said("refused")
    first, *_, last = recorded()
    assert (first.tenant, last.tenant) == (None, "named by the adapter")
    assert said["tenant.id"] == "named by the adapter"
    assert said["session.id"] == last.session
    assert str(said["session.id"]).startswith("sha256:")


@pytest.mark.parametrize("parent", [None, SAMPLED, UNSAMPLED])
def test_nothing_is_asked_of_the_sampler(
    recorded: Recorded, parent: str | None, new_traces: Any
) -> None:
    traces = new_traces(sampler=ALWAYS_OFF, processor=True)
    headers = {} if parent is None else {"traceparent": parent}
    with (
        costspan.attribute("acme"),
        traces.span("step", context=extract(headers)) as span,
    ):
        assert not span.is_recording()
        call()
    assert traces.finished() == {}
    assert {(one.tenant, one.trace_id, one.span_id) for one in recorded()} == {("acme", *ids(span))}


def test_a_remote_parent_makes_the_trace_a_callers(recorded: Recorded, traces: Any) -> None:
    remote = extract({"traceparent": SAMPLED})
    with traces.span("server", context=remote) as span:
        call()
    token = otel_context.attach(remote)
    call()  # the stranger's own span is in force: its id is no span of ours
    otel_context.detach(token)
    first, *_, last = recorded()
    assert place(first) == (TRACE, ids(span)[1], "caller")
    assert place(last) == (TRACE, None, "caller")


def test_a_span_that_has_ended_is_left_alone(
    recorded: Recorded, traces: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with traces.span("step") as span:
        span.end()
        call()
        assert caplog.records == []
    assert traces.said("step") == {}
    assert {place(one) for one in recorded()} == {(*ids(span), "ours")}


class Hostile(trace.NonRecordingSpan):
    """A span of a tracer that fails in every way it is asked to."""

    def is_recording(self) -> bool:
        raise RuntimeError("no")


def test_a_tracer_that_fails_costs_only_its_link(
    recorded: Recorded, traces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = counters.snapshot().get("otel_failed:RuntimeError", 0)
    with traces.span("step") as real, trace.use_span(Hostile(real.get_span_context())):
        call()
    monkeypatch.setattr(trace, "get_current_span", lambda: SimpleNamespace())
    call()
    seen = recorded()
    assert len(seen) == 4
    assert counters.snapshot()["otel_failed:RuntimeError"] == before + 1
    assert counters.snapshot()["otel_failed:AttributeError"] > 0


def test_opentelemetry_is_not_loaded_by_us(tmp_path: Path) -> None:
    script = (
        "import sys, costspan\n"
        "from costspan.adapter import Attempt\n"
        "costspan.configure(ledger='l.db', spool='spool', background=False)\n"
        "with costspan.attribute('acme'): Attempt.start().end()\n"
        "import costspan.adapters.asgi\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.strip() == "[]"


# --- threads and the processor


def test_the_processor_stamps_every_span_of_an_owner(new_traces: Any) -> None:
    traces = new_traces(processor=True)
    with traces.span("before"), costspan.attribute("acme", session="s1", request_id="r1"):
        with traces.span("outer"), traces.span("inner"):
            pass
        with costspan.detached(), traces.span("detached"):
            pass
    owner = {"tenant.id": "acme", "session.id": "s1", "request.id": "r1"}
    assert traces.said("outer") == traces.said("inner") == owner
    assert traces.said("before") == traces.said("detached") == {}


def test_a_thread_that_only_carries_opentelemetry_keeps_the_owner(
    recorded: Recorded, new_traces: Any
) -> None:
    """As under OpenTelemetry's threading instrumentation: its context goes along, ours does not."""
    traces = new_traces(processor=True)
    with costspan.attribute("acme", session="s1"), traces.span("request") as span:
        carried = otel_context.get_current()

    def attached() -> None:
        token = otel_context.attach(carried)
        with traces.span("attached"):
            call()
        otel_context.detach(token)

    def given() -> None:
        with traces.span("given", context=carried):
            pass

    for target in (attached, given):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert {(one.tenant, one.session, one.trace_id) for one in recorded()} == {
        ("acme", "s1", ids(span)[0])
    }
    for name in ("attached", "given"):
        assert traces.said(name)["tenant.id"] == "acme"


def test_the_threading_instrumentation_carries_the_owner(recorded: Recorded, traces: Any) -> None:
    module = pytest.importorskip("opentelemetry.instrumentation.threading")
    instrumentor = module.ThreadingInstrumentor()
    instrumentor.instrument()
    try:
        with costspan.attribute("acme"), traces.span("request") as span:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()
    finally:
        instrumentor.uninstrument()
    assert {(one.tenant, *place(one)) for one in recorded()} == {("acme", *ids(span), "ours")}
