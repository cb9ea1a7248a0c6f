"""Forks at the worst moments: nothing hangs, nothing is lost, nothing is there twice.

Every part runs in a process of its own, which may be forked among its threads.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import sys
import threading
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import pytest
from books_check import check, doctor
from calls import begin, call, configure, end
from children import lines, run, say

import costspan
from costspan.core import runtime
from costspan.core.drain import bring_policy
from costspan.core.ledger_errors import LedgerError
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url

THREADS = 3
EVENTS = 20
HUNG_SECONDS = 25


def child(number: int, *, flush: bool) -> None:
    """A forked child's work; says what hung, if it does."""
    faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
    for event in range(EVENTS):
        say(call(number * 100 + event))
    if flush:
        costspan.flush(timeout=HUNG_SECONDS - 5)


def part_busy_threads(folder: str, forks: int, settles: bool) -> dict[str, Any]:
    """Threads record without a pause, one may settle, and the process forks again and again."""
    configure(folder)
    done = threading.Event()

    def record(thread: int) -> None:
        number = 1_000_000 * thread
        while not done.is_set():
            number += 1
            say(call(number))
            done.wait(0.001)

    def flush() -> None:
        while not done.wait(0.01):  # the children have their turn
            costspan.flush()

    threads = [threading.Thread(target=record, args=(n,)) for n in range(1, THREADS + 1)]
    threads += [threading.Thread(target=flush)] if settles else []
    for thread in threads:
        thread.start()
    failed = 0
    for number in range(forks):
        if (pid := os.fork()) == 0:
            try:
                child(number, flush=settles)
                if number % 2:
                    sys.exit(0)
            finally:
                os._exit(0 if sys.exc_info()[0] in (None, SystemExit) else 1)
        if failed := os.waitpid(pid, 0)[1]:
            break
    done.set()
    for thread in threads:
        thread.join()
    return {"failed": failed}


@pytest.mark.parametrize("settles", [False, True], ids=["recording", "settling"])
def test_forks_among_busy_threads(folder: Path, settles: bool, is_full: bool) -> None:
    forks = 150 if is_full else 25
    *acked, answer = lines(part_busy_threads, folder, forks, settles, seconds=900)
    assert json.loads(answer) == {"failed": 0}
    found = check(folder, acked)
    print(found.row(f"forks, {'settling' if settles else 'recording'}", forks))
    assert found.problems == []
    assert found.acked > forks * EVENTS


def part_in_a_transaction(folder: str, exits: str) -> dict[str, Any]:
    """Fork while this process holds the settler's lease with rows not yet committed."""
    configure(folder)
    say(call(0))
    costspan.flush()
    ledger = open_url(runtime.settings().ledger_url, create=False)
    bring_policy(ledger, runtime.settings(), 5.0)
    with ledger.settling(5.0) as settlement:
        settle(settlement, [imported(n) for n in range(2000)])
        if (pid := os.fork()) == 0:
            faulthandler.dump_traceback_later(HUNG_SECONDS, exit=True)
            try:
                ledger.counts()
            except LedgerError:
                say("refused")
            for number in range(EVENTS):
                say(call(number))
            say(flushed())
            if exits == "os._exit":
                os._exit(0)
            ledger.close()
            sys.exit(0)  # and every inherited object is collected
        _, status = os.waitpid(pid, 0)
        settle(settlement, [imported(n) for n in range(2000, 4000)])
    for number in range(EVENTS):
        say(call(100 + number))
    return {"status": status, "events": ledger.counts()["events"]}


def flushed() -> str:
    """What becomes of a settlement by a child that SQLite cannot be used in."""
    try:
        return f"settled {costspan.flush(timeout=0.0)}"
    except LedgerError as error:
        return type(error).__name__


def imported(number: int) -> Observation:
    return Observation(
        oid=f"import:{number + 1}", attempt_id=f"import-{number}", phase="end", tenant="acme",
        provider_result="ok", flat_cost="0.001", usage={"input": 7},
    )  # fmt: skip


@pytest.mark.parametrize("exits", ["os._exit", "sys.exit"])
def test_a_fork_in_the_middle_of_a_settlement(folder: Path, exits: str) -> None:
    *said, answer = lines(part_in_a_transaction, folder, exits)
    assert json.loads(answer) == {"status": 0, "events": 4001}
    assert said.count("refused") == said.count("LedgerError") == 1
    acked = [line for line in said if " " in line]
    found = check(folder, [*acked, *(f"import:{n + 1} 0.001" for n in range(4000))])
    assert found.problems == []
    assert found.acked == 4000 + 1 + 2 * EVENTS


def part_beside_a_reader(folder: str) -> None:
    """Fork while this process reads its books: the child leaves its records to others."""
    configure(folder)
    say(call(0))
    costspan.flush()
    with costspan.open_ledger() as books:
        events = books.ledger.events()
        next(events)
        if (pid := os.fork()) == 0:
            for number in range(EVENTS):
                say(call(100 + number))
            say(flushed())
            sys.exit(0)
        os.waitpid(pid, 0)
        for number in range(EVENTS):
            say(call(200 + number))
        costspan.flush()
        say(f"{books.ledger.counts()['events']} events")


def test_a_fork_beside_a_reader(folder: Path) -> None:
    said = lines(part_beside_a_reader, folder)
    assert said.count("LedgerError") == 1
    assert said[-1] == f"{2 * EVENTS + 1} events", "the parent settled what its child left"
    acked = [line for line in said[:-1] if " " in line]
    found = check(folder, acked)
    assert found.problems == []
    assert found.acked == 2 * EVENTS + 1


def part_pool(folder: str, method: str) -> list[str | None]:
    """A pool of processes records while its parent does, and is ended the rough way."""
    configure(folder, background=True)
    mine = [call(n) for n in range(EVENTS)]
    with multiprocessing.get_context(method).Pool(3, _in_the_pool, (folder, method)) as pool:
        theirs = _calls(pool)
    return [*mine, *theirs, *(call(n) for n in range(EVENTS))]


def _calls(pool: Pool) -> list[str | None]:
    return pool.map(call, range(1000, 1200), chunksize=5)


def _in_the_pool(folder: str, method: str) -> None:
    if method != "fork":  # a forked one inherits the settings
        configure(folder, background=True)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_pools_of_processes(folder: Path, method: str) -> None:
    acked = run(part_pool, folder, method)
    assert len(set(acked)) == 200 + 2 * EVENTS
    assert None not in acked
    assert check(folder, acked).problems == []


def part_held(folder: str) -> dict[str, Any]:
    """Fork while the ring in memory holds records that no folder takes."""
    configure(folder, beside=False)
    place = Path(folder) / "spool"
    place.write_text("in the way")
    said = [type(end(begin(n), n)).__name__ for n in range(5)]
    held = [type(begin(n).end(flat_cost="0.001", usage={"input": 7})).__name__ for n in range(5)]
    if (pid := os.fork()) == 0:
        begin(7).end(flat_cost="0.002", usage={"input": 7})
        place.unlink()
        costspan.flush()  # what is held is tried now, not after a pause
        say(call(8))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    runtime.recorder().rotate()
    say(call(9))
    return {"status": status, "said": said, "held": held}


def test_a_fork_while_records_are_held_in_memory(folder: Path) -> None:
    *acked, answer = lines(part_held, folder)
    said = json.loads(answer)
    assert said["status"] == 0
    assert set(said["held"]) == {"Held"}
    found = check(folder, acked)
    assert found.problems == []
    with costspan.open_ledger(folder / "ledger.db") as books:
        costs = sorted(str(each.flat_cost) for each in books.ledger.journal() if each.flat_cost)
    # The parent's ten, its last one, the child's two: each from the process that held it.
    assert len(costs) == 13
    assert costs.count("0.001") == 5
    assert costs.count("0.002") == 1
    assert "refused" not in doctor(folder)
