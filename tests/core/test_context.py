"""The context: who the work is for, carried where it must go and freed where it must not."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import costspan
from costspan.adapter import Attempt, context_fields
from costspan.core import counters, schema
from costspan.core.context import (
    NOTHING,
    Context,
    Holder,
    current,
    scope,
    with_owner,
)
from costspan.core.schema import Observation

Recorded = Callable[[], list[Observation]]
TRUST: tuple[schema.TenantSource, ...] = (
    "assignment",
    "principal",
    "signed",
    "delegating_principal",
    "context",
    "metadata",
)


def owner() -> str | None:
    return current().owner()[0]


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


def call() -> Attempt:
    """The LLM call of these tests."""
    attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o")
    attempt.end(usage={"input": 1})
    return attempt


def ends(observations: list[Observation]) -> list[Observation]:
    return [seen for seen in observations if seen.phase == "end"]


# --- attribute


def test_attribute_names_the_owner_and_gives_it_back() -> None:
    assert current() is NOTHING
    with costspan.attribute("acme", session="s1", user="ann", feature="chat", labels={"a": 1}):
        inside = current()
        assert inside.owner() == ("acme", "context")
        assert (inside.session, inside.session_origin) == ("s1", "ours")
        assert (inside.user, inside.feature, inside.labels) == ("ann", "chat", {"a": "1"})
    assert current() is NOTHING


def test_attribute_inherits_what_is_not_given() -> None:
    with (
        costspan.attribute("acme", session="s1", labels={"a": "1"}),
        costspan.attribute(feature="search", labels={"b": "2"}),
    ):
        inside = current()
        assert (inside.tenant, inside.session, inside.feature) == ("acme", "s1", "search")
        assert inside.labels == {"a": "1", "b": "2"}


def test_attribute_gives_the_owner_back_when_the_body_raises() -> None:
    error = KeyError("host")
    with pytest.raises(KeyError) as raised, costspan.attribute("acme"):
        raise error
    assert raised.value is error
    assert current() is NOTHING


@given(st.text(st.characters(exclude_categories=()), max_size=150))
def test_any_text_as_a_tenant_is_an_owner_or_a_flag(name: str) -> None:
    with costspan.attribute(name) as context:
        tenant, source = context.owner()
        assert (tenant is None) == ("tenant_invalid" in context.flags)
        assert (tenant is None) == (source is None)
    assert current() is NOTHING


@pytest.mark.parametrize("hostile", [17, b"acme", ["acme"], "", "@platform", "a" * 10**7])
def test_an_invalid_tenant_leaves_the_work_visible_without_an_owner(
    hostile: Any, recorded: Recorded
) -> None:
    before = counted("tenant_invalid")
    with costspan.attribute("acme"), costspan.attribute(hostile):
        call()
    assert counted("tenant_invalid") == before + 1
    (end,) = ends(recorded())
    assert end.tenant is None
    assert "tenant_invalid" in end.flags


@pytest.mark.parametrize("hostile", [["a"], 7, "text"])
def test_labels_that_are_none_do_not_harm_the_host(hostile: Any) -> None:
    before = counted("labels_invalid")
    with costspan.attribute("acme", labels={"a": "1"}), costspan.attribute(labels=hostile):
        assert (owner(), current().labels) == ("acme", {"a": "1"})
        assert "invalid:labels" in current().flags
    assert counted("labels_invalid") == before + 1


# --- the trust order


@given(st.sampled_from(TRUST), st.sampled_from(TRUST))
def test_a_more_trusted_owner_is_never_replaced(
    held: schema.TenantSource, given_: schema.TenantSource
) -> None:
    before = counted("tenant_disagreement")
    base = with_owner(NOTHING, "held", held)
    tenant, source = with_owner(base, "new", given_).owner()
    if TRUST.index(held) < TRUST.index(given_):
        assert (tenant, source) == ("held", held)
        assert counted("tenant_disagreement") == before + 1
    else:
        assert (tenant, source) == ("new", given_)


def test_the_trust_order_knows_every_source() -> None:
    assert set(TRUST) == set(get_args(schema.TenantSource))


def test_attribute_inside_a_principals_request_changes_nothing_but_the_rest() -> None:
    principal = with_owner(NOTHING, "acme", "principal")
    with scope(principal), costspan.attribute("evil", session="s2", feature="f"):
        assert current().owner() == ("acme", "principal")
        assert (current().session, current().feature) == ("s2", "f")


def test_an_invalid_tenant_does_not_unseat_a_principal() -> None:
    with scope(with_owner(NOTHING, "acme", "principal")), costspan.attribute("@evil"):
        assert current().owner() == ("acme", "principal")


# --- bind


def test_bind_is_seen_by_everything_that_shares_the_request() -> None:
    with scope(Context(holder=Holder())):
        copied = contextvars.copy_context()
        assert copied.run(costspan.bind, "acme", session="s1", user="ann")
        assert current().owner() == ("acme", "principal")
        fields = context_fields(current())
    assert (fields["tenant"], fields["tenant_source"]) == ("acme", "principal")
    assert (fields["session"], fields["session_origin"], fields["user"]) == ("s1", "ours", "ann")


def test_bind_is_written_once() -> None:
    before = counted("bind_disagreement")
    with scope(Context(holder=Holder())):
        assert costspan.bind("acme")
        assert costspan.bind("acme", session="s1")
        assert not costspan.bind("evil", session="s1", user="ann")
        assert owner() == "acme"
        assert context_fields(current())["user"] == "ann"
    assert counted("bind_disagreement") == before + 1


def test_bind_outside_a_request_is_counted() -> None:
    before = counted("bind_outside_request")
    assert not costspan.bind("acme")
    assert counted("bind_outside_request") == before + 1


@pytest.mark.parametrize("hostile", ["", "@x", "a\x00", 7, ["acme"]])
def test_bind_refuses_what_is_no_tenant(hostile: Any) -> None:
    with scope(Context(holder=Holder())):
        assert not costspan.bind(hostile, session="s1")
        assert owner() is None
        assert costspan.bind("acme")


def test_bind_outranks_what_the_application_attributed_but_not_a_principal() -> None:
    with scope(Context(holder=Holder())), costspan.attribute("guess"):
        assert costspan.bind("acme")
        assert current().owner() == ("acme", "principal")
    with scope(with_owner(Context(holder=Holder()), "acme", "principal")):
        costspan.bind("evil")
        assert current().owner() == ("acme", "principal")


def test_of_many_threads_that_bind_exactly_one_wins() -> None:
    holder = Holder()
    barrier = threading.Barrier(16, timeout=20)

    def race(number: int) -> bool:
        barrier.wait()
        with scope(Context(holder=holder)):
            return costspan.bind(f"tenant-{number}")

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(race, range(16)))
    assert sum(won) == 1
    assert holder.tenant == f"tenant-{won.index(True)}"


def test_only_an_attempt_touches_the_request(books_at: object) -> None:
    holder = Holder()
    with scope(Context(holder=holder)):
        with costspan.attribute("acme"), costspan.work("safety"):
            costspan.bind("acme")
        assert not holder.touched
        call()
        assert holder.touched


# --- work and tool


@pytest.mark.parametrize("cause", get_args(schema.Cause))
def test_work_says_cause_and_initiator_explicitly(cause: schema.Cause, recorded: Recorded) -> None:
    with costspan.attribute("acme"), costspan.work(cause, name="check"):
        call()
    (end,) = ends(recorded())
    assert (end.cause, end.cause_source, end.name) == (cause, "explicit", "check")
    assert end.initiator == schema.initiator_of(cause)


def test_the_initiator_may_be_given_and_the_innermost_work_counts(recorded: Recorded) -> None:
    with costspan.work("safety", initiator="user"):
        call()
        with costspan.work("retrieval"):
            call()
    outer, inner = ends(recorded())
    assert (outer.cause, outer.initiator) == ("safety", "user")
    assert (inner.cause, inner.initiator) == ("retrieval", "agent")


def test_an_explicit_cause_beats_what_an_adapter_infers(recorded: Recorded) -> None:
    with costspan.work("memory"):
        Attempt.start(layer="sdk", cause="step", cause_source="structure", initiator="agent").end()
    (end,) = ends(recorded())
    assert (end.cause, end.cause_source) == ("memory", "explicit")


def test_a_tool_is_the_parent_of_the_calls_inside(recorded: Recorded) -> None:
    with costspan.attribute("acme"), costspan.tool("search", cost="0.01") as run:
        call()
    call_end, tool_end = ends(recorded())
    assert call_end.parent == run.attempt_id == tool_end.attempt_id
    assert (tool_end.kind, tool_end.name, tool_end.flat_cost) == ("tool", "search", "0.01")
    assert (tool_end.tenant, call_end.tenant) == ("acme", "acme")
    assert tool_end.parent is None


def test_a_tools_exception_passes_unchanged_and_the_run_failed(recorded: Recorded) -> None:
    error = OSError("disk")

    @costspan.tool("search")
    def search() -> None:
        raise error

    with pytest.raises(OSError, match="disk") as raised:
        search()
    assert raised.value is error
    (end,) = ends(recorded())
    assert (end.provider_result, end.error_type) == ("failed", "OSError")


async def test_an_async_tool_decorates_a_coroutine_function(recorded: Recorded) -> None:
    @costspan.tool("search", cost="0.02")
    async def search(query: str) -> str:
        await asyncio.sleep(0)
        call()
        return query.upper()

    assert await search("hello") == "HELLO"
    call_end, tool_end = ends(recorded())
    assert call_end.parent == tool_end.attempt_id


async def test_one_tool_object_entered_by_many_tasks_at_once(recorded: Recorded) -> None:
    search = costspan.tool("search", cost="0.01")
    started = [asyncio.Event() for _ in range(3)]
    finish = [asyncio.Event() for _ in range(3)]

    async def run(number: int) -> tuple[str | None, str | None]:
        with costspan.attribute(f"tenant-{number}"):
            with search as attempt:
                started[number].set()
                await finish[number].wait()
                inner = call()
            assert current().parent is None
            return attempt.attempt_id, inner.attempt_id

    tasks = [asyncio.create_task(run(number)) for number in range(3)]
    for event in started:
        await event.wait()
    for event in finish:  # first in, first out: not the order of a stack
        event.set()
        await asyncio.sleep(0)
    ids = await asyncio.gather(*tasks)
    seen = {end.attempt_id: end for end in ends(recorded())}
    assert len(seen) == 6
    for number, (tool_id, call_id) in enumerate(ids):
        assert seen[tool_id].tenant == seen[call_id].tenant == f"tenant-{number}"
        assert seen[call_id].parent == tool_id


# --- threads, pools and tasks
