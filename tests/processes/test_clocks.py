"""A wall clock that is set back, or forward, between records: nothing is lost, none comes twice.

No clock is touched: the recorder is given a system whose clock can be set.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest
from books_check import Found, check
from calls import configure, cost_of
from msgspec.structs import replace

from costspan.core.journal import spool
from costspan.core.journal.files import SYSTEM, Files
from costspan.core.recorder import Ack, Recorder
from costspan.core.schema import Observation, Phase

HOUR_NS = 3600 * 10**9
CALLS_BETWEEN = 30

JUMPS = {
    "back a year": [-365 * 24 * HOUR_NS],
    "back and forth": [-HOUR_NS, 2 * HOUR_NS, -3 * HOUR_NS, 2 * HOUR_NS],
    "a leap second again and again": [-(10**9)] * 5,
    "to 1970": [-time.time_ns()],
    "stands still": [0, 0, 0],
    "forward a century": [100 * 365 * 24 * HOUR_NS],
}


class Settable:
    """The operating system, with a wall clock that the test sets."""

    def __init__(self, *, stands_still: bool) -> None:
        self.off_by_ns = 0
        self._now_ns = time.time_ns() if stands_still else None

    def __getattr__(self, name: str) -> Any:
        return getattr(SYSTEM, name)

    def time_ns(self) -> int:
        now_ns = time.time_ns() if self._now_ns is None else self._now_ns
        return max(0, now_ns + self.off_by_ns)


def record(recorder: Recorder, files: Settable, number: int, phase: Phase) -> str:
    """One record of a call, by the clock as it stands."""
    now_ns, cost = files.time_ns(), cost_of(number)
    seen = Observation(
        attempt_id=f"call-{number:04d}", phase=phase, tenant="acme", tenant_source="context",
        started_at=now_ns, recorded_at=now_ns,
    )  # fmt: skip
    if phase == "end":
        seen = replace(seen, provider_result="ok", flat_cost=cost, usage={"input": 7})
    said = recorder.record(seen)
    assert isinstance(said, Ack), said
    return f"{said.oid} {cost}"


def books_after(folder: Path, jumps: list[int], *, restarts: bool) -> Found:
    """Calls whose start and end lie on two sides of every jump."""
    configure(folder)
    files = Settable(stands_still=not any(jumps))
    recorder = Recorder(folder / "spool", files=cast("Files", files))
    acked: list[str] = []
    for jump, off_by_ns in enumerate([0, *jumps]):
        numbers = range(jump * CALLS_BETWEEN, (jump + 1) * CALLS_BETWEEN)
        for number in numbers:
            record(recorder, files, number, "start")
        files.off_by_ns += off_by_ns
        recorder.rotate()
        if restarts:
            recorder = Recorder(folder / "spool", files=cast("Files", files))
        acked += [record(recorder, files, number, "end") for number in numbers]
    recorder.rotate()
    segments = spool.segments(folder / "spool")
    assert len({path.name for path in segments}) == len(segments) >= len(jumps) + 1
    return check(folder, acked)


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "a restart at each jump"])
@pytest.mark.parametrize("jump", JUMPS)
def test_a_clock_that_is_set(folder: Path, jump: str, restarts: bool) -> None:
    found = books_after(folder, JUMPS[jump], restarts=restarts)
    assert found.problems == []
    assert found.acked == (len(JUMPS[jump]) + 1) * CALLS_BETWEEN
    assert found.lost == found.doubled == found.unacked == 0
