"""The state machine: what may happen next, in any order."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    get_state_machine_test,
    initialize,
    invariant,
    precondition,
    rule,
)
from journals import POLICIES

from simulator.computer import DATA, SHM
from simulator.disk import failure
from simulator.faults import Disaster, Fault
from simulator.hosts import Entry, Host, replaced
from simulator.owed import check_step, finish
from simulator.work import (
    HOUR_NS,
    SESSIONS,
    TENANTS,
    TIMES_NS,
    Told,
    ends,
    evidence,
    nasty,
    starts,
)
from simulator.world import World

LIVING_MAX = 4
_numbers = st.integers(0, LIVING_MAX - 1)
_seeds = st.integers(0, 50)
_errors = st.sampled_from([errno.EIO, errno.ENOSPC, errno.EINTR, errno.EACCES, errno.EMFILE])
_soon = st.integers(0, 6) | st.integers(0, 60)
_schedules = st.lists(st.integers(0, 2), min_size=4, max_size=60)
_others = st.sampled_from(["drain", "record", "rotate", "fork", "kill", "same"])


class Machine(RuleBasedStateMachine):
    """A computer whose processes record, die and settle."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.start()
        self.seed = 0

    @property
    def entries(self) -> list[Entry]:
        """What has a name to import it under."""
        return [each for each in self.world.entries.values() if each.oid is not None]

    def living(self, number: int) -> Host:
        return self.world.living(number)

    @initialize(seed=st.integers(0, 99))
    def begin(self, seed: int) -> None:
        self.seed = seed

    # --- recording -----------------------------------------------------------------------------

    @rule(number=_numbers, seen=st.lists(starts | ends, min_size=2, max_size=6))
    def record(self, number: int, seen: list[Told]) -> None:
        for each in seen:
            self.world.record(self.living(number), each.seen)

    @rule(number=_numbers, calls=st.lists(st.tuples(starts, ends), min_size=1, max_size=3),
          other=_numbers)  # fmt: skip
    def call(self, number: int, calls: list[tuple[Told, Told]], other: int) -> None:
        """A start, and an end that may come from another process."""
        for start, end in calls:
            self.world.record(self.living(number), start.seen)
            self.world.record(self.living(other), end.seen)

    @rule(number=_numbers, seen=st.lists(evidence, min_size=1, max_size=4))
    def tell(self, number: int, seen: list[Told]) -> None:
        for each in seen:
            self.world.record(self.living(number), each.seen)

    @rule(number=_numbers, seen=st.lists(nasty, min_size=1, max_size=3))
    def record_nastily(self, number: int, seen: list[Told]) -> None:
        for each in seen:
            self.world.record(self.living(number), each.seen)

    @rule(number=_numbers, what=st.sampled_from(["sync", "sync", "rotate"]))
    def tend(self, number: int, what: str) -> None:
        """What a background thread does now and then."""
        host = self.living(number)
        if what == "sync":
            self.world.sync(host)
        else:
            self.world.rotate(host)

    # --- processes and what befalls them -------------------------------------------------------

    def _has_room(self) -> bool:
        return sum(host.is_alive for host in self.world.hosts) < LIVING_MAX

    @precondition(_has_room)
    @rule(has_beside=st.booleans(), syncs_always=st.booleans())
    def start(self, has_beside: bool, syncs_always: bool) -> None:
        self.world.start(has_beside, syncs_always)

    @precondition(_has_room)
    @rule(number=_numbers, seen=starts, drains=st.booleans())
    def fork(self, number: int, seen: Told, drains: bool) -> None:
        """A process that has recorded forks, and both go on."""
        parent = self.living(number)
        self.world.record(parent, seen.seen)
        if not parent.is_alive:
            return
        child = self.world.fork(parent)
        self.world.record(child, seen.seen)
        if drains and child.is_alive:
            self.world.drain(child)
        if parent.is_alive:
            self.world.record(parent, seen.seen)

    @rule(number=_numbers)
    def kill(self, number: int) -> None:
        self.world.kill(self.living(number))

    @rule(seed=_seeds)
    def lose_power(self, seed: int) -> None:
        self.world.lose_power(seed)

    @rule(volume=st.sampled_from([DATA, DATA, SHM]), room=st.none() | st.integers(0, 900))
    def fill(self, volume: Path, room: int | None) -> None:
        """Leave so many bytes on a volume, or as many as anybody wants."""
        self.world.computer.disk.free_bytes[volume] = room

    @rule(
        what=st.sampled_from(["error", "error", "short", "slow", "kill", "kill_after", "power"]),
        at=_soon, error=_errors, seed=_seeds,
    )  # fmt: skip
    def break_at(self, what: Disaster, at: int, error: int, seed: int) -> None:
        self.world.break_at(Fault(what, at, failure(error), seed))

    @rule(
        what=st.sampled_from(["error", "kill", "kill_after", "power"]),
        at=st.integers(0, 45), error=_errors, seed=_seeds, number=_numbers,
        action=st.sampled_from(["drain", "drain", "drain", "sync", "rotate", "rebuild"]),
    )  # fmt: skip
    def go_wrong(
        self, what: Disaster, at: int, error: int, seed: int, number: int, action: str
    ) -> None:
        """Something happens in the middle of what is done now."""
        host = self.living(number)
        self.world.break_at(Fault(what, at, failure(error), seed))
        getattr(self.world, action)(host)

    @rule(at=_soon, other=_others, number=_numbers, seen=ends)
    def interrupt_at(self, at: int, other: str, number: int, seen: Told) -> None:
        """Another process does something in the middle of what comes next."""
        world = self.world

        def meanwhile() -> None:
            if world.is_racing:
                return  # those who race are at it already
            host = world.living(number)
            match other:
                case "drain":
                    world.race([], partial(world.drain, host))
                case "record":
                    world.record(host, seen.seen)
                case "rotate":
                    world.rotate(host)
                case "fork":
                    if host not in world.busy:  # a fork waits for the end of a record
                        world.record(world.fork(host), seen.seen)
                case "kill":
                    world.kill(host)
                case _:  # a signal handler of whoever is at it
                    world.record(host, seen.seen)

        world.break_at(Fault("meanwhile", at, meanwhile=meanwhile))

    @rule(wall_ns=st.sampled_from([-2, -1, 1, 3, 30]), monotonic=st.booleans())
    def jump(self, wall_ns: int, monotonic: bool) -> None:
        self.world.pass_time(wall_ns * HOUR_NS, HOUR_NS if monotonic else 0)

    # --- the books -----------------------------------------------------------------------------

    @rule(number=_numbers)
    def drain(self, number: int) -> None:
        self.world.drain(self.living(number))

    @rule(number=_numbers)
    def rotate_and_drain(self, number: int) -> None:
        for host in list(self.world.hosts):
            if host.is_alive:
                self.world.rotate(host)
        self.world.drain(self.living(number))

    @rule(number=_numbers, older_seconds=st.sampled_from([0, 60]))
    def sweep(self, number: int, older_seconds: int) -> None:
        self.world.drain(self.living(number), older_seconds)

    @rule(numbers=st.tuples(_numbers, _numbers, _numbers), records=st.booleans(),
          schedule=_schedules, seen=ends)  # fmt: skip
    def race(
        self, numbers: tuple[int, ...], records: bool, schedule: list[int], seen: Told
    ) -> None:
        """Two drains, and perhaps a third process that records."""
        hosts = [self.living(number) for number in numbers]
        jobs: list[Callable[[], None]] = [partial(self.world.drain, host) for host in hosts[:2]]
        if records:
            jobs.append(partial(self._record_and_rotate, hosts[2], seen))
        self.world.race(schedule, *jobs)

    def _record_and_rotate(self, host: Host, seen: Told) -> None:
        self.world.record(host, seen.seen)
        if host.is_alive:
            self.world.rotate(host)

    @rule(number=_numbers, policy=st.integers(0, 1), at=st.sampled_from([0, *TIMES_NS]))
    def change_policy(self, number: int, policy: int, at: int) -> None:
        self.world.change_policy(self.living(number), POLICIES[policy], at)

    @rule(number=_numbers, session=st.sampled_from(SESSIONS), tenant=st.sampled_from(TENANTS))
    def own_session(self, number: int, session: str, tenant: str) -> None:
        self.world.own_session(self.living(number), session, tenant)

    @precondition(lambda self: self.entries)
    @rule(
        number=_numbers,
        which=st.integers(0, 30),
        change=st.sampled_from([{}, {}, {"usage": {"output": 77}}, {"tenant": "globex"}]),
    )
    def import_again(self, number: int, which: int, change: dict[str, Any]) -> None:
        entries = self.entries
        self.world.import_again(self.living(number), entries[which % len(entries)], change)

    @rule(
        number=_numbers,
        event=st.sampled_from(["a0", "a1", "a2", "a3", "run:0", "run:1", "oid", "oid"]),
        which=st.integers(0, 30),
        tenant=st.sampled_from(TENANTS),
    )
    def assign(self, number: int, event: str, which: int, tenant: str) -> None:
        entries = self.entries
        if event == "oid" and entries:
            event = entries[which % len(entries)].oid or event
        self.world.assign(self.living(number), event, tenant)

    @rule(number=_numbers, period=st.sampled_from(["2025-11", "2025-12", "2026-01", "2026-02"]))
    def close_period(self, number: int, period: str) -> None:
        self.world.close_period(self.living(number), period)

    @rule(number=_numbers, sink=st.sampled_from(["lago", "langfuse"]))
    def deliver(self, number: int, sink: str) -> None:
        self.world.deliver(self.living(number), sink)

    @rule(number=_numbers)
    def rebuild(self, number: int) -> None:
        self.world.rebuild(self.living(number))

    # --- what must hold ------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        check_step(self.world)

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                finish(self.world, self.seed)
        finally:
            self.world.close()


STEPS = 30
_UNCHECKED = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
)


def simulate(examples: int, seed: int, shrink: bool, steps: int = STEPS) -> None:
    """Make so many runs of so many steps, which follow from `seed`.

    Raises:
        Violation: with the steps that led to it, as few as were found if it is to `shrink`.
    """
    run = hypothesis.seed(seed)(
        get_state_machine_test(
            Machine,
            settings=hypothesis.settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                print_blob=False,
                suppress_health_check=_UNCHECKED,
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
            ),
        )
    )
    with _drawn_alike():
        run()


@contextmanager
def _drawn_alike() -> Generator[None]:
    """A seed draws the same runs whatever else is loaded.

    Hypothesis likes to draw the constants of all code around it; of those of other files, none.
    """
    providers = import_module("hypothesis.internal.conjecture.providers")
    if not hasattr(providers, "_get_local_constants"):  # this part of it is nobody's promise
        yield
        return
    with replaced(providers, "_get_local_constants", providers.Constants):
        providers.CONSTANTS_CACHE.cache.clear()
        try:
            yield
        finally:
            providers.CONSTANTS_CACHE.cache.clear()
