"""The context in threads, executors, tasks and generators, and where nothing should follow it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry import context as otel_context

import costspan
from costspan.adapter import Attempt
from costspan.core import counters
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


def owner() -> str | None:
    return current().owner()[0]


def counted(name: str) -> int:
    return counters.snapshot().get(name, 0)


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
