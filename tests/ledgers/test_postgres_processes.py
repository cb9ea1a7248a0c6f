"""Writers and settlers as processes, killed as they come: nothing is lost, nothing is twice."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from postgres_server import PostgresServer

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.ledger_errors import LedgerError
from costspan.core.money import PICO
from costspan.core.rebuild import nets
from costspan.core.settle.ledger import open_url

WRITERS, RECORDS, KILLS = 4, 400, 12

WRITER = """  # what starts in 2096 is not swept
import sys
from pathlib import Path
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation

writer = Recorder(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    attempt = f"{sys.argv[2]}.{number}"
    told = {"attempt_id": attempt, "tenant": f"t{number % 7}", "started_at": 4 * 10**18 + number}
    writer.record(Observation(phase="start", **told))
    if number % 40 == 9:
        writer.rotate()
    writer.record(Observation(flat_cost="1", provider_result="ok", **told))
    if number % 10 == 7:
        writer.record(Observation(attempt_id=attempt, layer="gateway", feature="seen twice"))
writer.rotate()
"""

SETTLER = """
import sys
from pathlib import Path
from costspan.core import drain
from costspan.core.config import Config
from costspan.core.ledger_errors import LedgerError

drain.RECORDS_PER_SETTLEMENT = 60
while True:
    try:
        drain.drain(
            Config(ledger=sys.argv[1], spool=Path(sys.argv[2])), timeout_seconds=0.2,
            progress=lambda done: print("settled", flush=True),
        )
    except LedgerError as error:
        print(type(error).__name__, flush=True)
"""


class Settlers:
    """Two that never stop by themselves."""

    def __init__(self, url: str, spool: Path) -> None:
        self._command = [sys.executable, "-c", SETTLER, url, str(spool)]
        self.running = [self._start() for _ in range(2)]

    def _start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)

    def kill(self, which: int, after: int) -> None:
        """Kill -9 after it has said so many lines, and start another in its place."""
        settler = self.running[which]
        assert settler.stdout is not None
        for _ in range(after):
            settler.stdout.readline()
        self.end(settler)
        self.running[which] = self._start()

    def end(self, settler: subprocess.Popen[str]) -> None:
        settler.send_signal(signal.SIGKILL)
        settler.wait()
        assert settler.stdout is not None
        settler.stdout.close()

    def __enter__(self) -> Settlers:
        return self

    def __exit__(self, *_: object) -> None:
        for settler in self.running:
            self.end(settler)


@pytest.fixture
def config(url: str, tmp_path: Path) -> Config:
    """A ledger and a spool, and a policy that is in force before anybody settles."""
    found = Config(ledger=url, spool=tmp_path / "spool")
    drain(found)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_racing_settlers_may_be_killed_and_the_server_too(
    postgres: PostgresServer, config: Config, seed: int
) -> None:
    chance = random.Random(seed)
    with ExitStack() as stack:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, str(config.spool), f"a{each}", str(RECORDS)]
            )
            for each in range(WRITERS)
        ]
        for writer in writers:
            stack.callback(writer.wait)
        settlers = stack.enter_context(Settlers(config.ledger_url, config.spool))
        for kill in range(KILLS):
            settlers.kill(chance.randrange(2), chance.randrange(4))
            if kill % 5 == 4:
                postgres.kill()
                postgres.start()
        for writer in writers:
            assert writer.wait() == 0
    drain(config)
    assert list(config.spool.glob("*.seg")) == []
    with closing(open_url(config.ledger_url, create=False)) as ledger:
        counts = ledger.counts()
        assert counts["events"] == WRITERS * RECORDS
        assert counts["observations"] == WRITERS * RECORDS * 21 // 10
        assert (counts["open"], counts["unmatched"], counts["conflict"]) == (0, 0, 0)
        for _, greatest, kept in ledger.writers():
            assert greatest == kept, "a number is missing"
        assert sum(cost for cost, _ in nets(ledger).values()) == WRITERS * RECORDS * PICO
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
