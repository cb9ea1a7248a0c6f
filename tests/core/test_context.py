"""The context: who the work is for, carried where it must go and freed where it must not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import context as otel_context

import costspan
from costspan.adapter import Attempt, context_fields
from costspan.core import counters, schema
from costspan.core.context import (
    NOTHING,
    Context,
    Holder,
    current,
    derive,
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


def test_carry_takes_the_context_into_a_thread() -> None:
    seen: list[str | None] = []

    def see() -> None:
        seen.append(owner())

    with costspan.attribute("acme"):
        plain = threading.Thread(target=see)
        carried = threading.Thread(target=costspan.carry(see))
    for thread in (plain, carried):
        thread.start()
        thread.join()
    assert seen == [None, "acme"]


def test_a_carried_function_may_run_in_many_threads_at_once() -> None:
    barrier = threading.Barrier(8, timeout=20)

    def work(number: int) -> tuple[int, str | None]:
        barrier.wait()
        return number, owner()

    with costspan.attribute("acme"):
        carried = costspan.carry(work)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(carried, range(8))) == [(i, "acme") for i in range(8)]
    assert carried.__name__ == "work"


def test_the_executor_gives_each_task_its_submitters_owner() -> None:
    with ThreadPoolExecutor(4) as pool:
        with costspan.attribute("first"):  # warms every thread under another tenant
            barrier = threading.Barrier(4, timeout=20)
            warmed = [pool.submit(costspan.carry(barrier.wait)) for _ in range(4)]
            assert {future.result() for future in warmed} == {0, 1, 2, 3}
        executor = costspan.ContextExecutor(pool)
        futures = []
        for number in range(200):
            with costspan.attribute(f"tenant-{number % 2}"):
                futures.append(executor.submit(owner))
        assert [f.result() for f in futures] == [f"tenant-{n % 2}" for n in range(200)]
        with costspan.attribute("mapped"):
            assert list(executor.map(lambda _: owner(), range(3))) == ["mapped"] * 3
        assert pool.submit(owner).result() is None


def test_the_executor_passes_results_exceptions_and_shutdown_through() -> None:
    error = ValueError("host")

    def fail() -> None:
        raise error

    pool = ThreadPoolExecutor(1)
    with costspan.ContextExecutor(pool) as executor:
        assert executor.submit(divmod, 7, 2).result() == (3, 1)
        assert executor.submit(fail).exception() is error
    with pytest.raises(RuntimeError):
        pool.submit(owner)


async def test_run_in_executor_loses_the_owner_unless_carried() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        executor = costspan.ContextExecutor(pool)
        with costspan.attribute("acme"):
            assert await loop.run_in_executor(pool, owner) is None
            assert await loop.run_in_executor(pool, costspan.carry(owner)) == "acme"
            assert await asyncio.wrap_future(executor.submit(owner)) == "acme"
            assert await asyncio.to_thread(owner) == "acme"


async def test_tasks_keep_the_owner_they_were_created_under() -> None:
    go = asyncio.Event()

    async def later() -> str | None:
        await go.wait()
        return owner()

    tasks = []
    for number in range(100):
        with costspan.attribute(f"tenant-{number % 2}"):
            tasks.append(asyncio.create_task(later()))
    go.set()
    assert await asyncio.gather(*tasks) == [f"tenant-{n % 2}" for n in range(100)]
    assert current() is NOTHING


def test_the_owner_is_captured_when_the_call_starts(recorded: Recorded) -> None:
    with costspan.attribute("acme"):
        attempt = Attempt.start(layer="sdk")
    with costspan.attribute("other"):
        attempt.end(usage={"input": 1})
    assert [seen.tenant for seen in recorded()] == ["acme", "acme"]


# --- detached


def test_detached_frees_a_worker_from_the_request_that_started_it() -> None:
    request = Context(request_id="r", parent="r", holder=Holder())
    with scope(with_owner(request, "acme", "principal")), costspan.attribute(session="s1"):
        with costspan.detached():
            assert current() == NOTHING
            assert not costspan.bind("other")
        assert owner() == "acme"


def test_detached_may_keep_the_owner_without_the_step() -> None:
    with (
        costspan.attribute("acme", session="s1", user="ann", feature="f", labels={"a": "1"}),
        costspan.tool("search"),
        costspan.work("safety"),
        costspan.detached(keep_owner=True) as kept,
    ):
        assert kept.owner() == ("acme", "context")
        assert (kept.session, kept.session_origin, kept.user) == ("s1", "ours", "ann")
        assert (kept.parent, kept.cause, kept.request_id, kept.holder) == (None,) * 4


def test_detached_keeps_a_bound_owner_with_session_and_user() -> None:
    with scope(Context(request_id="r", holder=Holder())):
        costspan.bind("acme", session="s1", user="ann")
        with costspan.detached(keep_owner=True) as kept:
            assert kept.owner() == ("acme", "principal")
            assert (kept.session, kept.session_origin, kept.user) == ("s1", "ours", "ann")


# --- generators


def test_a_generator_finalised_elsewhere_harms_nobody() -> None:
    def generator() -> Generator[int]:
        with costspan.attribute("acme"):
            yield 1

    before = counted("context_left_elsewhere")
    running = generator()
    contextvars.copy_context().run(next, running)
    with costspan.attribute("other"):
        running.close()
        assert owner() == "other"
    assert counted("context_left_elsewhere") == before + 1


async def test_an_async_generator_left_to_the_garbage_collector_harms_nobody() -> None:
    async def generator() -> AsyncIterator[int]:
        with costspan.attribute("acme"):
            yield 1

    async def first() -> int:
        async for number in generator():  # noqa: B007
            break
        return number

    assert await asyncio.create_task(first()) == 1
    gc.collect()
    await asyncio.sleep(0)
    assert current() is NOTHING


# --- OpenTelemetry's mirror


def test_the_mirror_finds_the_owner_where_only_opentelemetrys_context_was_carried() -> None:
    seen: list[str | None] = []

    def thread(carried: otel_context.Context) -> None:
        seen.append(owner())
        token = otel_context.attach(carried)
        seen.append(owner())
        with costspan.attribute("inner"):
            seen.append(owner())
        with costspan.detached():
            seen.append(owner())
        otel_context.detach(token)
        seen.append(owner())

    with costspan.attribute("acme"):
        running = threading.Thread(target=thread, args=(otel_context.get_current(),))
        running.start()
        running.join()
    assert seen == [None, "acme", "inner", None, None]


def test_the_mirror_leaves_nothing_behind() -> None:
    before = otel_context.get_current()
    with costspan.attribute("acme"), costspan.work("step"):
        assert otel_context.get_current() is not before
    assert otel_context.get_current() == before


def test_a_half_imported_opentelemetry_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    from types import ModuleType

    monkeypatch.setitem(sys.modules, "opentelemetry.context", ModuleType("opentelemetry.context"))
    with costspan.attribute("acme"):
        assert owner() == "acme"
    assert current() is NOTHING


def test_derive_changes_a_copy() -> None:
    base = Context(tenant="acme", tenant_source="context")
    assert derive(base, parent="x") == Context(tenant="acme", tenant_source="context", parent="x")
    assert base.parent is None
