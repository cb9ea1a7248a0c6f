"""kill -9, again and again: what was acknowledged is in the books exactly once.

Runs as `python test_kill.py PART FOLDER`: a process with nothing but costspan forks what is killed,
so that a kill costs no import.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import costspan
from costspan.adapter import Attempt
from costspan.core import runtime
from costspan.core.drain import Drained, drain
from costspan.core.journal import spool
from costspan.core.recorder import Ack, Recorder
from costspan.core.schema import Observation

KILLS = 50
PICO_EACH = 10**9  # every attempt has a flat cost of 0.001 USD


def run(part: str, folder: Path) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, __file__, part, str(folder)],
        capture_output=True, env=environment, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def configure(folder: Path, *, background: bool) -> None:
    costspan.configure(
        ledger=folder / "ledger.db",
        spool=folder / "spool",
        spool_beside=folder / "beside",
        background=background,
    )


def killed(work: Callable[[int], None], after_lines: int) -> list[str]:
    """Fork `work`, which writes lines to a pipe; kill it at the n-th; all lines it wrote."""
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        os.close(read)
        try:
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    said = b""
    while said.count(b"\n") < after_lines and (more := os.read(read, 65536)):
        said += more
    os.kill(pid, signal.SIGKILL)
    while more := os.read(read, 65536):
        said += more
    os.close(read)
    os.waitpid(pid, 0)
    return said.decode().split("\n")[:-1]


def record_for_ever(pipe: int) -> None:
    """Record attempts through the public API; a line for each acknowledged END."""
    while True:
        time.sleep(0.0002)  # as a host does that waits for its provider: the drain has its turn
        attempt = Attempt.start(layer="sdk", provider="openai", requested_model="gpt-4o")
        ack = attempt.end(flat_cost="0.001", usage={"input": 7})
        if isinstance(ack, Ack):
            os.write(pipe, f"{ack.oid}\n".encode())


def part_writers(folder: Path, *, background: bool) -> list[str]:
    configure(folder, background=False)
    Attempt.start(layer="sdk").end(flat_cost="0.001")
    costspan.flush()  # the ledger, its policy and the price lists: not what is killed here
    configure(folder, background=background)
    runtime.SYNC_SECONDS = runtime.DRAIN_SECONDS = 0.001
    chance = random.Random(7)
    acked: list[str] = []
    for _ in range(KILLS):
        acked += killed(record_for_ever, chance.randrange(1, 400))
    return acked


def part_drainers(folder: Path) -> list[str]:
    """Segments with duplicates in them, drained by four processes that are killed at random."""
    configure(folder, background=False)
    Attempt.start(layer="sdk").end(flat_cost="0.001")
    costspan.flush()
    oids: list[str] = []
    for segment in range(40):
        writer = Recorder(folder / "spool")
        for number in range(25):
            call = Observation(
                oid=f"call-{segment}:{number // 2 * 2 + 1}", attempt_id=f"a{segment}-{number // 2}",
                provider_result="ok", flat_cost="0.001", usage={"input": 7},
            )  # fmt: skip
            ack = writer.record(call)  # every one but the last twice
            oids += [ack.oid] if isinstance(ack, Ack) else []
        writer.rotate()

    def drain_all(pipe: int) -> None:
        def settled(_: Drained) -> None:
            os.write(pipe, b"settled\n")

        while spool.segments(folder / "spool"):
            drain(runtime.settings(), timeout_seconds=5, progress=settled)

    chance = random.Random(11)
    while spool.segments(folder / "spool"):
        race(drain_all, chance.randrange(1, 9), chance.randrange(60_000))
    return sorted(set(oids))


def race(work: Callable[[int], None], after_lines: int, spins: int) -> None:
    """Four at once, all killed a moment after the n-th line that any of them writes."""
    read, write = os.pipe()
    pids: list[int] = []
    for _ in range(4):
        if (pid := os.fork()) == 0:
            os.close(read)
            try:
                work(write)
            finally:
                os._exit(0)
        pids.append(pid)
    os.close(write)
    said = b""
    while said.count(b"\n") < after_lines and (more := os.read(read, 4096)):
        said += more
    for _ in range(spins):  # a moment that falls anywhere in the next settlement
        pass
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(read)


def check_books(folder: Path, acked: list[str]) -> None:
    """Every acknowledged record once; sums as recomputed; the file whole."""
    run("flush", folder)
    assert spool.segments(folder / "spool") == []
    with costspan.open_ledger(folder / "ledger.db") as books:
        kept = Counter(str(seen.oid) for seen in books.ledger.journal())
        assert set(kept.values()) == {1}
        assert set(acked) <= set(kept)
        events = list(books.ledger.events())
        ended = [each for each in events if each.decision is not None]
        assert len(ended) >= len(set(acked))
        totals: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
        for each in events:
            for posting in books.ledger.postings(each.event.id):
                sums = totals[posting.line, posting.posted_period]
                for at, amount in enumerate((*_amounts(posting), posting.events)):
                    sums[at] += amount
        rolled = {
            (each.line, each.posted_period): [each.cost, each.charge, each.events]
            for each in books.ledger.roll_ups()
        }
        assert rolled == dict(totals)
        assert sum(sums[0] for sums in rolled.values()) == PICO_EACH * len(ended)
        assert sum(sums[2] for sums in rolled.values()) == len(ended)
        for writer, greatest, records in books.ledger.writers():
            assert writer.startswith("call-") or greatest == records, "a gap"
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _amounts(posting: Any) -> tuple[int, int]:
    return posting.amount.cost, posting.amount.charge


@pytest.mark.parametrize("part", ["writers", "draining_writers"])
def test_killed_writers_lose_nothing_they_acknowledged(tmp_path: Path, part: str) -> None:
    acked = run(part, tmp_path)
    assert len(acked) >= KILLS
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        (drained,) = connection.execute("SELECT count(*) FROM journal").fetchone()
    assert (drained > 2) == (part == "draining_writers"), "the writers drain as they go"
    check_books(tmp_path, acked)


def test_killed_drainers_lose_and_double_nothing(tmp_path: Path) -> None:
    oids = run("drainers", tmp_path)
    assert len(oids) == 40 * 13
    check_books(tmp_path, oids)


def part_flush(folder: Path) -> str:
    configure(folder, background=False)
    return repr(costspan.flush())


PARTS: dict[str, Callable[[Path], Any]] = {
    "writers": lambda folder: part_writers(folder, background=False),
    "draining_writers": lambda folder: part_writers(folder, background=True),
    "drainers": part_drainers,
    "flush": part_flush,
}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]](Path(sys.argv[2]))))
