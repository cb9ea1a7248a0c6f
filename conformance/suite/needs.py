"""Which capabilities a scenario asks of a host: read off its script."""

from __future__ import annotations

from collections.abc import Iterator

from costspan.conformance.suite.driver import option_names
from costspan.conformance.suite.script import (
    Agent,
    Background,
    Batch,
    Call,
    Mode,
    Owner,
    Remote,
    Retrieval,
    Scenario,
    Step,
    Together,
    ToolStep,
    Work,
    steps_in,
)

_OF_STEP = {
    Agent: "agent",
    Background: "background",
    Batch: "batch",
    Owner: "owner",
    Remote: "remote",
    Retrieval: "retrieval",
    Together: "together",
    ToolStep: "tool",
    Work: "work",
}


def needed(scenario: Scenario, mode: Mode) -> frozenset[str]:
    """What a driver must claim to play `scenario` in `mode`."""
    found = set(option_names(scenario.host, mode))
    for step in steps_in(scenario.script):
        found.update(_of(step))
    if "usage_injected" in found:  # then it does not matter who asked
        found.discard("unasked_usage")
    return frozenset(found)


def _of(step: Step) -> Iterator[str]:
    if isinstance(step, Call):
        yield from _of_call(step)
        return
    yield _OF_STEP[type(step)]
    if isinstance(step, Owner) and step.tenant not in (None, "$tenant") and not step.refused:
        yield "other_owner"
    if isinstance(step, Owner) and step.refused:
        yield "principal"
    if isinstance(step, Agent):
        yield "chat"
        if any(tool.cost is not None for tool in step.tools.values()):
            yield "tool"
        if step.retries:
            yield f"agent_{step.retried_by}"
        if step.fallback:
            yield "agent_middleware"
        if step.structured:
            yield "structured"
        if step.summarize:
            yield "summarize"
        if step.stream:
            yield "stream"


def _of_call(call: Call) -> Iterator[str]:
    yield call.api
    options = {
        "stream": call.stream,
        "unasked_usage": call.stream and not call.asks_usage,
        "structured": call.structured,
        "checked": call.structured and call.then,
        "several": call.n > 1,
        "tier": call.tier,
        "route": call.route,
        "mock": call.mock,
        "timeout": call.timeout,
        "cancel": call.cancel,
        "hang_up": call.hang_up,
        "rerouted": call.rerouted,
        "guarded": call.guarded,
        f"{call.retried_by}_retries": call.retries,
        "fallback": call.fallback,
        "no_fallbacks": call.no_fallbacks,
        f"{call.cache}_cache": call.cache,
        f"claims_{call.claims}": call.claims,
        "verdict": call.verdict,
    }
    yield from (name for name, asked in options.items() if asked)
    if call.leave is not None:
        yield "cancel_stream" if call.leave.how == "cancel" else call.leave.how
