"""Processes that write and processes that settle, killed in an order that a seed says."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from postgres_server import PostgresServer

_WRITER = """  # what starts in 2096 is not swept
import os, sys
from pathlib import Path
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation

spool, name, records = sys.argv[1:]
writer = Recorder(Path(spool))
for number in range(int(records)):
    attempt = f"{name}.{number}"
    told = {"attempt_id": attempt, "tenant": f"t{number % 7}", "started_at": 4 * 10**18 + number}
    writer.record(Observation(phase="start", **told))
    if number % 40 == 9:
        writer.rotate()
    said = writer.record(Observation(flat_cost="1", provider_result="ok", **told))
    os.write(1, f"{type(said).__name__} {attempt}\\n".encode())  # an Ack may not be lost
    if number % 10 == 7:
        writer.record(Observation(attempt_id=attempt, layer="gateway", feature="seen twice"))
writer.rotate()
os.write(1, b"done\\n")
sys.stdin.read()
"""
_SETTLER = """
import os, sys
from pathlib import Path
from costspan.core import drain
from costspan.core.config import Config
from costspan.core.ledger_errors import LedgerError

drain.RECORDS_PER_SETTLEMENT = 60
while True:
    try:
        drain.drain(
            Config(ledger=sys.argv[1], spool=Path(sys.argv[2])), timeout_seconds=0.2,
            progress=lambda done: os.write(1, b"settled\\n"),
        )
    except LedgerError as error:
        os.write(1, f"{type(error).__name__}\\n".encode())
"""
_KINDS = ("writer",) * 4 + ("settler",) * 5 + ("server",) * 2
"""How often each is killed: so many times of eleven."""


class Life:
    """A process, and the file that it says its lines into."""

    def __init__(self, said: Path, *command: str) -> None:
        self.said = said
        with said.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", *command], stdin=subprocess.PIPE, stdout=output
            )

    def lines(self) -> list[str]:
        """What it has said by now; half a line is not said."""
        return self.said.read_text().split("\n")[:-1]

    def await_lines(self, more: int, until: float) -> None:
        """Wait until it has said so many lines more, or has nothing left to say."""
        lines = self.lines()
        wanted = len(lines) + more
        while len(lines) < wanted and "done" not in lines and time.monotonic() < until:
            time.sleep(0.001)
            lines = self.lines()

    def kill(self) -> None:
        """Kill -9."""
        self._process.send_signal(signal.SIGKILL)
        self._wait()

    def finish(self) -> None:
        """Let it come to its end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._wait()
        assert self._process.returncode == 0

    def _wait(self) -> None:
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


class Killing:
    """Writers and settlers at one ledger: whoever is killed is followed by another."""

    def __init__(self, url: str, folder: Path, seed: int, records: int) -> None:
        self.spool, self._folder, self._url = folder / "spool", folder, url
        self._chance = random.Random(seed)
        self._records = records
        self._lives: list[Life] = []
        self.killed: Counter[str] = Counter()
        self.written: list[Life] = []
        """Every life of a writer."""
        self._running = {
            "writer": [self._start("writer") for _ in range(4)],
            "settler": [self._start("settler") for _ in range(2)],
        }

    def _start(self, kind: str) -> Life:
        name = f"{kind}{len(self._lives)}"
        if kind == "writer":
            more = [_WRITER, str(self.spool), name, str(self._records)]
        else:
            more = [_SETTLER, self._url, str(self.spool)]
        life = Life(self._folder / name, *more)
        self._lives.append(life)
        if kind == "writer":
            self.written.append(life)
        return life

    def kill_one(self, server: PostgresServer) -> None:
        """Kill somebody who has just done something, or the server, and start it again."""
        kind = self._chance.choice(_KINDS)
        self.killed[kind] += 1
        watched = self._running["settler" if kind == "server" else kind]
        which = self._chance.randrange(len(watched))
        most = self._records // 2 if kind == "writer" else 4
        watched[which].await_lines(self._chance.randrange(most), time.monotonic() + 10)
        if kind == "server":
            server.kill()
            server.start()
        else:
            watched[which].kill()
            watched[which] = self._start(kind)

    def finish(self) -> None:
        """Writers come to their end; settlers have none."""
        for each in self._running["writer"]:
            each.finish()
        for each in self._running["settler"]:
            each.kill()

    def stop(self) -> None:
        """Nothing of it runs any more."""
        for each in self._lives:
            each.kill()

    def answered(self, answer: str) -> set[str]:
        """The calls whose end was answered so: what is held in memory dies with its process."""
        lines = (line.split() for life in self.written for line in life.lines())
        return {words[1] for words in lines if words[0] == answer}
