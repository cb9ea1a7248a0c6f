"""Sinks and processes apart: whatever one does, none is in another's way, and one delivers."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from sink_kept import WAIT_SECONDS, Kept, post, reached

import costspan
from costspan.core import hooks, runtime, sinks, upkeep
from costspan.core.config import Config
from costspan.core.process import Process
from costspan.core.sinks import Batch


@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(3), KeyboardInterrupt()])
def test_one_that_raises_holds_up_no_other(
    settings: Config, plug: Callable[..., None], error: BaseException
) -> None:
    bad, good = Kept(fails=10**6, error=error), Kept()
    plug(abad=bad, good=good, zbad=bad)
    post(settings, 1, 2, 3)
    sinks.deliver(settings, wait=True)
    assert good.numbers == [1, 2, 3]
    found = reached(settings)
    assert [found[name].taken for name in ("abad", "good", "zbad")] == [0, 3, 0]
    assert type(error).__name__ in (found["abad"].last_failure or "")
    assert {problem.plugin for problem in hooks.problems} == {"abad", "zbad"}


def test_one_that_hangs_holds_up_no_other_and_no_settlement(
    settings: Config, plug: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hooks, "DEADLINE_SECONDS", 0.2)
    go_on, came = threading.Event(), Kept()

    def hang(batch: Batch) -> None:
        came(batch)
        assert go_on.wait(WAIT_SECONDS)

    good = Kept()
    plug(good=good, hanging=hang)
    post(settings, 1, 2)
    for number in (3, 4, 5):
        sinks.deliver(settings, wait=True)
        post(settings, number)
    sinks.deliver(settings, wait=True)
    assert good.numbers == [1, 2, 3, 4, 5]
    assert came.numbers == [1, 2], "it is called once, until it comes back"
    stuck = [each for each in threading.enumerate() if each.name == "costspan-posted-hanging"]
    assert len(stuck) == 1
    standing = reached(settings)["hanging"]
    assert (standing.taken, standing.waiting) == (0, 5)
    assert "has not come back" in (standing.last_failure or "")
    # It comes back after all: what it took then is taken.
    go_on.set()
    stuck[0].join(WAIT_SECONDS)
    sinks.deliver(settings, wait=True)
    assert came.numbers == [1, 2, 3, 4, 5]
    assert reached(settings)["hanging"].taken == 5


def test_who_waits_waits_for_a_slow_one(settings: Config, plug: Callable[..., None]) -> None:
    def slow(batch: Batch) -> None:
        threading.Event().wait(0.4)

    plug(slow=slow)
    post(settings, 1)
    said: list[int] = []
    sinks.deliver(settings, wait=True, progress=said.append)
    assert reached(settings)["slow"].taken == 1
    assert said[-1] == 1


def test_without_waiting_nobody_waits(settings: Config, plug: Callable[..., None]) -> None:
    go_on, began = threading.Event(), threading.Event()

    def slow(batch: Batch) -> None:
        began.set()
        assert go_on.wait(WAIT_SECONDS)

    plug(slow=slow)
    post(settings, 1)
    sinks.deliver(settings)
    assert began.wait(WAIT_SECONDS)
    sinks.deliver(settings)  # it is under way: no second one beside it
    post(settings, 2)
    go_on.set()
    sinks.deliver(settings, wait=True)
    assert reached(settings)["slow"].taken >= 1


def test_a_locked_ledger_is_no_fault_of_the_sink(
    settings: Config, plug: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "LEASE_SECONDS", 0)
    other = sqlite3.connect(settings.ledger, isolation_level=None, check_same_thread=False)
    sink = Kept()

    def locks(batch: Batch) -> None:
        sink(batch)
        if sink.tries == 1:
            other.execute("BEGIN IMMEDIATE")

    plug(sink=locks)
    post(settings, 1, 2)
    sinks.deliver(settings, wait=True)
    standing = reached(settings)["sink"]
    assert standing.taken == 0
    assert "settled by another process" in (standing.last_failure or "")
    other.execute("ROLLBACK")
    other.close()
    post(settings, 3)
    sinks.deliver(settings, wait=True)
    assert sink.numbers == [1, 2, 3], "what it took it is not given again"
    assert reached(settings)["sink"].taken == 3


def test_one_process_delivers(settings: Config, plug: Callable[..., None]) -> None:
    sink = Kept()
    plug(sink=sink)
    post(settings, 1)
    sinks.deliver(settings, wait=True)
    (lease,) = (settings.spool / "sinks").iterdir()
    post(settings, 2)
    with lease.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        sinks.deliver(settings, wait=True)
        assert sink.numbers == [1]
    sinks.deliver(settings, wait=True)
    assert sink.numbers == [1, 2]


def test_where_no_lease_can_be_had_it_is_at_least_once(
    settings: Config, plug: Callable[..., None]
) -> None:
    sink = Kept()
    plug(sink=sink)
    settings.spool.write_text("no folder", "utf-8")
    post(settings, 1)
    sinks.deliver(settings, wait=True)
    assert sink.numbers == [1]


def test_the_background_of_a_recording_process_delivers(
    settings: Config,
    plug: Callable[..., None],
    new_process: Process,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = threading.Event()
    plug(sink=lambda batch: came.set())
    monkeypatch.setattr(upkeep, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(upkeep, "DRAIN_SECONDS", 0.01)
    costspan.configure(ledger=settings.ledger, spool=settings.spool)
    costspan.record({"tenant": "acme", "flat_cost": "0.5"})
    try:
        runtime.recorder().rotate()
        assert came.wait(WAIT_SECONDS)
    finally:
        background = new_process.thread
        assert background is not None
        background.stop()
        background.join(WAIT_SECONDS)


FORK_AND_DIE = """
import os, sys, threading
from pathlib import Path
from types import ModuleType
from costspan.core import hooks, sinks
from costspan.core.config import Config

began = threading.Event()

@hooks.hookimpl
def posted(batch):
    began.set()
    threading.Event().wait()

module = ModuleType("hanging")
module.posted = posted
hooks.plugins().register(module, "hanging")
sinks.deliver(Config(ledger=sys.argv[1], spool=Path(sys.argv[2])))
assert began.wait(30)
if os.fork() == 0:
    os.write(1, b"alive")
    os.read(0, 1)  # until the test has seen that the lease is free, though this one lives
os._exit(0)
"""


def test_a_child_does_not_keep_the_lease_of_a_parent_that_died(settings: Config) -> None:
    post(settings, 1)
    command = [sys.executable, "-W", "ignore", "-c", FORK_AND_DIE]
    with subprocess.Popen(
        [*command, settings.ledger, str(settings.spool)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(5) == b"alive"
        assert process.wait(WAIT_SECONDS) == 0, "the parent"
        (lease,) = (settings.spool / "sinks").iterdir()
        with lease.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
