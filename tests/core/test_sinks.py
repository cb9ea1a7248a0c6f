"""Sinks: at least once and the same to the byte, each at its own pace, none in another's way."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import costspan
from costspan.core import hooks, runtime, sinks
from costspan.core.config import Config
from costspan.core.drain import add_observations
from costspan.core.journal.files import SYSTEM
from costspan.core.schema import Observation
from costspan.core.settle.ledger import open_url
from costspan.core.sinks import Batch, Entry, Standing

Posted = Callable[[Batch], Any]
WAIT_SECONDS = 30


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    return Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")


@pytest.fixture
def plug(settings: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Registers sinks by name; what they and this process did is forgotten afterwards."""
    monkeypatch.setattr(hooks, "problems", [])
    registered: list[str] = []

    def plug(**functions: Posted) -> None:
        for name, function in functions.items():

            @hooks.hookimpl
            def posted(batch: Batch, function: Posted = function) -> Any:
                return function(batch)

            module = ModuleType(name)
            module.posted = posted  # type: ignore[attr-defined]  # a module made by hand
            hooks.plugins().register(module, name)
            registered.append(name)

    yield plug
    for name in registered:
        hooks.plugins().unregister(name=name)


class Kept:
    """A sink that keeps what it is given; it fails as often as it is told to."""

    def __init__(self, fails: int = 0, error: BaseException | None = None) -> None:
        self.batches: list[bytes] = []
        self.tries = 0
        self._fails = fails
        self._error = error or RuntimeError("the other end is down")

    def __call__(self, batch: Batch) -> None:
        self.tries += 1
        self.batches.append(batch.to_json_lines())
        if self.tries <= self._fails:
            raise self._error

    @property
    def numbers(self) -> list[int]:
        return [json.loads(line)["number"] for each in self.batches for line in each.splitlines()]


def post(settings: Config, *numbers: int) -> None:
    """An event, and so a posting, of each number."""
    made = [
        Observation(oid=f"w:{n}", attempt_id=f"a{n:06d}", tenant="acme", flat_cost="0.5")
        for n in numbers
    ]
    add_observations(settings, made)


def reached(settings: Config) -> dict[str, Standing]:
    with closing(open_url(settings.ledger_url, create=False)) as ledger:
        return {each.sink: each for each in sinks.standings(ledger)}


def as_another_process() -> None:
    """What is remembered in memory goes with the process."""
    sinks._couriers.clear()


def test_a_posting_has_one_form() -> None:
    entry = Entry(7, "a1", "acmé", "direct", None, "2026-11", "2026-12", "2026-11-05", "gpt-4o",
                  "USD", -2_500_000_000, 10**19, 1)  # fmt: skip
    assert (
        entry.to_json()
        == (
            '{"bucket":"direct","charge":"10000000.000000000000","cost":"-0.002500000000",'
            '"currency":"USD","day":"2026-11-05","effective_period":"2026-11","event_id":"a1",'
            '"events":1,"model":"gpt-4o","number":7,"owner":"acmé","pool":null,'
            '"posted_period":"2026-12"}'
        ).encode()
    )
    with pytest.raises(AttributeError):
        entry.number = 8  # type: ignore[misc]  # this is what must not work


def test_every_posting_once_and_in_order(settings: Config, plug: Callable[..., None]) -> None:
    sink = Kept()
    plug(sink=sink)
    post(settings, *range(1203))
    sinks.deliver(settings, wait=True)
    assert sink.numbers == list(range(1, 1204))
    assert [each.count(b"\n") for each in sink.batches] == [500, 500, 203]
    assert (reached(settings)["sink"].taken, reached(settings)["sink"].waiting) == (1203, 0)
    sinks.deliver(settings, wait=True)
    as_another_process()
    sinks.deliver(settings, wait=True)
    assert sink.tries == 3


def test_nothing_to_deliver(settings: Config, plug: Callable[..., None]) -> None:
    sink = Kept()
    plug(sink=sink)
    sinks.deliver(settings, wait=True)
    assert not Path(settings.ledger).exists()
    assert sink.tries == 0


def test_a_batch_that_was_not_taken_comes_again_to_the_byte(
    settings: Config, plug: Callable[..., None]
) -> None:
    """Though more was posted meanwhile, and though it is another process that tries again."""
    sink = Kept(fails=1)
    plug(sink=sink)
    post(settings, 1, 2)
    sinks.deliver(settings, wait=True)
    assert reached(settings)["sink"].taken == 0
    post(settings, 3, 4)
    as_another_process()
    sinks.deliver(settings, wait=True)
    assert sink.batches[0] == sink.batches[1]
    assert sink.numbers == [1, 2, 1, 2, 3, 4]
    assert reached(settings)["sink"].taken == 4


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


class Clock:
    """The operating system, but with a clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_ns = 10**12

    def __getattr__(self, name: str) -> Any:
        return getattr(SYSTEM, name)

    def monotonic_ns(self) -> int:
        return self.now_ns


def test_a_sink_that_fails_is_tried_ever_less_often(
    settings: Config, plug: Callable[..., None]
) -> None:
    sink, clock = Kept(fails=12), Clock()
    plug(sink=sink)
    post(settings, 1)
    sinks.deliver(settings, wait=True, files=clock)
    waits = [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    for tries, seconds in enumerate(waits, start=1):
        clock.now_ns += seconds * 10**9 - 1
        sinks.deliver(settings, wait=True, files=clock)
        assert sink.tries == tries, "too early"
        clock.now_ns += 1
        sinks.deliver(settings, wait=True, files=clock)
        assert sink.tries == tries + 1
    clock.now_ns += 300 * 10**9
    sinks.deliver(settings, wait=True, files=clock)
    assert reached(settings)["sink"].taken == 1
    # It went well: the next failure is the first again.
    assert reached(settings)["sink"].last_failure is None


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


def test_a_sink_that_is_gone_is_remembered(settings: Config, plug: Callable[..., None]) -> None:
    plug(gone=Kept())
    post(settings, 1)
    sinks.deliver(settings, wait=True)
    hooks.plugins().unregister(name="gone")
    try:
        post(settings, 2)
        assert reached(settings) == {
            "gone": Standing(
                sink="gone", is_installed=False, taken=1, waiting=1, waits_for_more=False,
                last_failure=None,
            )
        }  # fmt: skip
    finally:
        hooks.plugins().register(ModuleType("gone"), "gone")


def test_the_background_of_a_recording_process_delivers(
    settings: Config, plug: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    came = threading.Event()
    plug(sink=lambda batch: came.set())
    monkeypatch.setattr(runtime, "SYNC_SECONDS", 0.01)
    monkeypatch.setattr(runtime, "DRAIN_SECONDS", 0.01)
    monkeypatch.setattr(runtime, "_process", runtime._Process())
    costspan.configure(ledger=settings.ledger, spool=settings.spool)
    costspan.record({"tenant": "acme", "flat_cost": "0.5"})
    try:
        runtime.recorder().rotate()
        assert came.wait(WAIT_SECONDS)
    finally:
        background = runtime._process.thread
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
