"""One short history, in which every single call once fails, or is the last before a death.

Every call with `--examples`; without, every 17th of them, others for each kind of disaster.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from simulator.disk import failure
from simulator.faults import Disaster, Fault
from simulator.owed import check_step, finish
from simulator.work import TIMES_NS
from simulator.world import World

from costspan.core.schema import Observation

CALL: dict[str, Any] = {
    "requested_model": "gpt-4o",
    "executed_model": "gpt-4o",
    "started_at": TIMES_NS[0],
}
OWNER: dict[str, Any] = {"tenant": "acme", "tenant_source": "principal", "session": "s0"}
RESULT: dict[str, Any] = {"provider_result": "ok", "usage": {"input": 1000, "output": 10}}


def history(world: World) -> None:
    """Two calls, a child, two drains, a correction, a close, a sink and a rebuild."""
    world.record(world.living(0), Observation(phase="start", attempt_id="a0", **CALL, **OWNER))
    world.record(world.living(0), Observation(phase="start", attempt_id="a1", parent="a0", **CALL))
    world.sync(world.living(0))
    world.record(world.living(0), Observation(attempt_id="a0", **CALL, **RESULT))
    child = world.fork(world.living(0))
    if child.is_alive:
        world.record(child, Observation(attempt_id="a1", **CALL, **RESULT))
        world.rotate(child)
    world.drain(world.living(0))
    check_step(world)
    world.rotate(world.living(0))
    world.sync(world.living(0))
    world.drain(world.living(1))
    world.assign(world.living(0), "a0", "globex")
    world.close_period(world.living(0), "2026-01")
    world.deliver(world.living(0), "lago")
    check_step(world)
    world.record(world.living(0), Observation(attempt_id="a1", **CALL, flat_cost="7"))
    world.rotate(world.living(0))
    world.drain(world.living(0), 0)
    world.rebuild(world.living(0))


STRIDE = 17


@pytest.mark.timeout(0)
@pytest.mark.parametrize(
    ("first", "what", "error", "seed"),
    [
        (0, "error", errno.EIO, 0),
        (2, "error", errno.ENOSPC, 0),
        (4, "short", 0, 0),
        (6, "kill", 0, 0),
        (8, "kill_after", 0, 0),
        (10, "power", 0, 0),
        (12, "power", 0, 1),
        (14, "power", 0, 7),
    ],
)
def test_whichever_call_it_is(
    first: int, what: Disaster, error: int, seed: int, option: Callable[[str], int | None]
) -> None:
    at = 0
    for at in count() if option("--examples") else count(first, STRIDE):
        world = World()
        try:
            world.start(has_beside=seed == 7)
            world.break_at(Fault(what, at, failure(error), seed))
            history(world)
            was_hit = world.computer.faults_hit == 1
            finish(world, at)
        finally:
            world.close()
        if not was_hit:
            break
    assert at > 100
