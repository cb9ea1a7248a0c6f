"""SIGKILL, again and again: what was acknowledged is in the books exactly once.

A process with nothing but costspan forks what is killed, so that a kill costs no import.
`--kills 200` plays the long run; each cell prints a line of the table (`-rA` or `-s` shows it).
"""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from books_check import check
from calls import call, configure, cost_of
from children import run

import costspan
from costspan.core import runtime
from costspan.core.drain import Drained, drain
from costspan.core.journal import spool
from costspan.core.ledger_errors import LedgerError
from costspan.core.recorder import Ack, Recorder
from costspan.core.schema import Observation

Work = Callable[[int], None]

LINGER_SECONDS_MAX = 0.08
"""A kill comes so long after the first sign of life at most: at any point of a settlement."""
DRAINERS = 4
SEGMENTS_A_ROUND = 12
RECORDS_A_SEGMENT = 20


def fork(work: Work) -> tuple[int, int]:
    """(pid, a pipe to read) of a child that writes lines about its work."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(read)
        try:
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    return pid, read


def said_before_kill(workers: list[tuple[int, int]], linger: float) -> tuple[list[str], int]:
    """Kill the workers so long after one of them gave a sign of life; (their lines, kills)."""
    said = {pipe: b"" for _, pipe in workers}
    open_pipes = set(said)
    given_up: float | None = None
    while open_pipes and (given_up is None or time.monotonic() < given_up):
        wait = None if given_up is None else max(0.0, given_up - time.monotonic())
        for pipe in select.select(list(open_pipes), [], [], wait)[0]:
            more = os.read(pipe, 65536)
            said[pipe] += more
            if not more:
                open_pipes.discard(pipe)
            elif given_up is None:
                given_up = time.monotonic() + linger
    for pid, _ in workers:
        os.kill(pid, signal.SIGKILL)
    kills = sum(os.WIFSIGNALED(os.waitpid(pid, 0)[1]) for pid, _ in workers)
    for pipe in said:
        while more := os.read(pipe, 65536):
            said[pipe] += more
        os.close(pipe)
    return [line for text in said.values() for line in text.decode().split("\n")[:-1]], kills


def record_for_ever(pipe: int) -> None:
    """Calls through the public door; a line for each acknowledged one, and a rotation at times."""
    number = os.getpid()
    chance = random.Random(number)
    while True:
        number += 1
        if said := call(number):
            os.write(pipe, f"{said}\n".encode())
        if chance.randrange(50) == 0:
            runtime.recorder().rotate()


def record_and_drain_for_ever(pipe: int) -> None:
    """The same, while a thread of this process settles without a pause."""

    def settle() -> None:
        while True:
            costspan.flush()

    threading.Thread(target=settle, daemon=True).start()
    number = os.getpid()
    while True:
        number += 1
        if said := call(number):
            os.write(pipe, f"{said}\n".encode())
        time.sleep(0.0005)  # as a host does that waits for its provider: the drain has its turn


WRITERS: dict[str, Work] = {
    "recording": record_for_ever,
    "draining": record_and_drain_for_ever,
}


def prepare(folder: Path) -> list[str]:
    """A ledger with its policy and price lists, which is not what is killed here: its one call."""
    configure(folder)
    first = call(0)
    costspan.flush()
    return [str(first)]


def part_writers(cell: str, folder: str, kills: int) -> dict[str, Any]:
    acked = prepare(Path(folder))
    chance = random.Random(7)
    for _ in range(kills):
        linger = chance.uniform(0, LINGER_SECONDS_MAX)
        acked += said_before_kill([fork(WRITERS[cell])], linger)[0]
    return {"acked": acked, "kills": kills, "settled": settled(Path(folder))}


def settled(folder: Path) -> int:
    with costspan.open_ledger(folder / "ledger.db") as books:
        return books.ledger.counts()["events"]


def write_segments(folder: Path, round_: int) -> list[str]:
    """Whole segments with one record in two a duplicate; `OID COST` of each."""
    acked: list[str] = []
    for segment in range(SEGMENTS_A_ROUND):
        writer = Recorder(folder / "spool")
        for number in range(RECORDS_A_SEGMENT):
            one = number // 2
            name, cost = f"call-{round_}-{segment}", cost_of(round_ * 1000 + segment * 50 + one)
            seen = Observation(
                oid=f"{name}:{one + 1}", attempt_id=f"{name}-{one}", phase="end", tenant="acme",
                provider_result="ok", flat_cost=cost, usage={"input": 7},
            )  # fmt: skip
            ack = writer.record(seen)
            assert isinstance(ack, Ack), ack
            acked += [f"{ack.oid} {cost}"] * (number % 2)
        writer.rotate()
        writer.sync()  # which lets go of the last descriptor
    return acked


def drain_all(pipe: int) -> None:
    """Settle whatever nobody holds, as long as there is something."""

    def tell(_: Drained) -> None:
        os.write(pipe, b"settled\n")

    folder = runtime.settings().spool
    while spool.segments(folder):
        try:
            drain(runtime.settings(), timeout_seconds=5, progress=tell)
        except LedgerError:
            os.write(pipe, b"busy\n")


def part_drainers(folder: str, kills: int) -> dict[str, Any]:
    acked = prepare(Path(folder))
    chance = random.Random(11)
    killed = round_ = settlements = 0
    while killed < kills:
        acked += write_segments(Path(folder), round_)
        drainers = [fork(drain_all) for _ in range(DRAINERS)]
        said, many = said_before_kill(drainers, chance.uniform(0, LINGER_SECONDS_MAX))
        settlements += said.count("settled")
        killed += many
        round_ += 1
    return {"acked": acked, "kills": killed, "settled": settlements}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("cell", [*WRITERS, "four drainers"])
def test_what_was_acknowledged_is_in_the_books_once(folder: Path, cell: str, kills: int) -> None:
    if cell in WRITERS:
        said = run(part_writers, cell, folder, kills, seconds=3000)
        assert (said["settled"] > 1) == (cell == "draining"), "killed while settlements went on"
    else:
        said = run(part_drainers, folder, kills, seconds=3000)
        assert said["settled"] > 0, "killed after settlements began"
    assert said["kills"] >= kills
    assert len(said["acked"]) >= kills
    found = check(folder, said["acked"], gaps=cell in WRITERS)
    print(found.row(cell, said["kills"]))
    assert found.problems == []
    assert found.lost == found.doubled == 0
