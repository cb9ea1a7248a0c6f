"""Writers and settlers as processes, killed as they come: nothing is lost, nothing is twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from killing import Killing
from postgres_server import PostgresServer

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerError
from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.settle.ledger import open_url

RECORDS, KILLS = 100, 13
SECONDS = float(os.environ.get("COSTSPAN_TEST_SECONDS", "0"))
SEEDS = [int(each) for each in os.environ.get("COSTSPAN_TEST_SEEDS", "1,2").split(",")]


@pytest.fixture
def config(url: str, tmp_path: Path) -> Config:
    """A ledger and a spool, and a policy that is in force before anybody settles."""
    found = Config(ledger=url, spool=tmp_path / "spool")
    drain(found)
    return found


@pytest.mark.timeout(300 + 3 * SECONDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_whoever_is_killed_loses_nothing_and_doubles_nothing(
    postgres: PostgresServer, config: Config, tmp_path: Path, seed: int
) -> None:
    """Four write, two settle; writers, settlers and the server are killed as the seed says.

    COSTSPAN_TEST_SECONDS=300 COSTSPAN_TEST_SEEDS=7 pytest -s -k whoever: for as long, by hand.
    """
    killing = Killing(config.ledger_url, tmp_path, seed, RECORDS)
    until = time.monotonic() + SECONDS
    try:
        while sum(killing.killed.values()) < KILLS or time.monotonic() < until:
            killing.kill_one(postgres)
        killing.finish()
    finally:
        killing.stop()
    drain(config)
    assert list(config.spool.glob("*.seg")) == []
    acknowledged, held = killing.answered("Ack"), killing.answered("Held")
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        sums: Counter[str] = Counter()
        for _, posting in ledger.postings_after(0, -1):
            sums[posting.event_id] += posting.amount.cost
        lost = acknowledged - sums.keys()
        doubled = {each for each, cost in sums.items() if cost != PICO}
        print(
            f"seed {seed}: {len(acknowledged)} acknowledged, {len(held)} held, {len(sums)} posted,"
            f" {dict(killing.killed)} killed, {len(lost)} lost, {len(doubled)} doubled"
        )
        assert (lost, doubled) == (set(), set())
        counts = ledger.counts()
        # What nobody was told: the last call of a life that was killed, and what memory held.
        silent = killing.killed["writer"] + len(held)
        assert counts["events"] - len(sums) == counts["open"] <= silent
        assert len(sums) - len(acknowledged) <= silent
        assert (counts["unmatched"], counts["conflict"]) == (0, 0)
        for _, greatest, kept in ledger.writers():
            assert greatest == kept, "a number is missing"
        assert sum(cost for cost, _ in nets(ledger).values()) == len(sums) * PICO
        assert list(ledger.roll_ups()) == list(ledger.added_up())
        numbers = [number for number, _ in ledger.postings_after(0, -1)]
        assert len(numbers) == len(set(numbers))


def test_a_settler_that_waits_is_next_when_the_other_is_killed(config: Config) -> None:
    holds = """
import sys
from costspan.core.settle.ledger import open_url
with open_url(sys.argv[1], create=True).settling(5):
    print("holds", flush=True)
    sys.stdin.read()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", holds, config.ledger_url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdin is not None
    with closing(open_url(config.ledger_url, create=True)) as ledger:
        assert holder.stdout.readline() == "holds\n"
        with pytest.raises(LedgerError, match="settled by another"), ledger.settling(0.01):
            pytest.fail("two settlers")
        holder.kill()
        with ledger.settling(30):
            pass
    holder.wait()
    holder.stdout.close()
    holder.stdin.close()


def test_a_child_does_not_keep_the_lease_of_a_dead_parent(config: Config) -> None:
    """It inherits the parent's socket: the server must not believe the parent alive for that."""
    parent = """
import os, sys
from costspan.core.settle.ledger import open_url
ledger = open_url(sys.argv[1], create=True)
settling = ledger.settling(5)
settling.__enter__()
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
os._exit(0)
"""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", parent, config.ledger_url], stdin=subprocess.PIPE
    )
    process.wait()
    with closing(open_url(config.ledger_url, create=True)) as ledger, ledger.settling(30):
        pass
    assert process.stdin is not None
    process.stdin.close()


def test_a_child_that_was_forked_while_connecting_does_not_keep_it_either(
    postgres: PostgresServer, config: Config
) -> None:
    """A server that is slow to answer, a host that forks meanwhile, settles, and is killed."""
    parent = """
import os, signal, sys, threading
from costspan.core.settle.ledger import open_url
server, url = int(sys.argv[1]), sys.argv[2]
open_url(url, create=True).close()
os.kill(server, signal.SIGSTOP)
opened = []
connects = threading.Thread(target=lambda: opened.append(open_url(url, create=True)))
before = len(os.listdir("/proc/self/fd"))
connects.start()
while len(os.listdir("/proc/self/fd")) == before:
    pass
if os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
os.kill(server, signal.SIGCONT)
connects.join()
opened[0].settling(5).__enter__()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-W", "ignore", "-c", parent, str(postgres.pid), config.ledger_url]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    process.wait()
    with closing(open_url(config.ledger_url, create=True)) as ledger, ledger.settling(30):
        pass
    assert process.stdin is not None
    process.stdin.close()
