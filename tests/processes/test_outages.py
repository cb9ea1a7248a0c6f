"""The ledger's server is out of reach: killed, stopped, silent, full, read-only, starting.

A host goes on as ever; a try that fails leaves nothing behind in it; no fork and no exit waits for
the server. When that is back, every record is in the books once, and the disk is given back.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="psycopg is not installed")

from calls import IMPATIENT_SECONDS, be_patient
from children import say, start, until
from hosts import has_failed_drains, record
from outages import PostgresServer, Way, a_way_to, outage, server, url_by

import costspan
from costspan.core import background, counters, forks, runtime, upkeep
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal import spool
from costspan.core.ledger_errors import LedgerMissing
from costspan.core.recorder import Ack
from costspan.core.settle.ledger import open_url

__all__ = ["server"]

FAILS = ("killed", "too many", "read only", "starting")
HANGS = ("silent", "mute")
"""Where a try does not fail at once, or not at all."""
TRIES, TRIES_FULL = 15, 80
"""The second is an hour's: one a minute, and those of its first minutes."""
SLACK_SECONDS = 30
CALLS = 100
FORKS = 6
MEMORY_KILOBYTES = 4096


class _Lines(logging.Handler):
    """How many lines the host's log was given."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, line: logging.LogRecord) -> None:
        self.texts.append(line.getMessage())


def _memory_kilobytes() -> int:
    said = Path("/proc/self/statm").read_text().split()
    return int(said[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def part_host(folder: str, url: str) -> None:
    """A host with an impatient background, that does what it is told by lines."""
    upkeep.SYNC_SECONDS = upkeep.DRAIN_SECONDS = IMPATIENT_SECONDS
    background.BACKOFF_SECONDS_MAX = IMPATIENT_SECONDS
    be_patient()
    gc.disable()  # a host may collect garbage rarely: nothing that costs may wait for it
    costspan.configure(ledger=url, spool=Path(folder) / "spool", spool_beside="off")
    lines = _Lines()
    logging.getLogger("costspan").addHandler(lines)
    number = 0

    def calls(many: str) -> int:
        nonlocal number
        for _ in range(int(many)):
            number += 1
            assert isinstance(record(number), Ack)
        runtime.recorder().rotate()
        return number

    def failures(many: str) -> int:
        goal = has_failed_drains() + int(many)
        until(lambda: has_failed_drains() >= goal, "drains to fail")
        return goal

    def cost() -> dict[str, Any]:
        """What a failed try may leave behind in a host: looked at right after one, if any fails."""
        threads = len(os.listdir("/proc/self/task"))
        files = len(os.listdir("/proc/self/fd"))
        names = len(counters.snapshot())
        return {"threads": threads, "files": files, "names": names, "lines": lines.texts,
                "kilobytes": _memory_kilobytes()}  # fmt: skip

    def fork() -> int:
        """Children that record and end; what they recorded waits like all else."""
        nonlocal number
        for _ in range(FORKS):
            number += 1
            if not (child := os.fork()):
                os._exit(not isinstance(record(number), Ack))
            assert os.waitpid(child, 0)[1] == 0
        return number

    told: dict[str, Callable[..., Any]] = {
        "calls": calls, "failures": failures, "cost": cost, "fork": fork
    }  # fmt: skip
    for line in sys.stdin:
        word, *more = line.split()
        say(json.dumps(told[word](*more)))


class Host:
    """A host under way."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def told(self, *words: object) -> Any:
        """What it answers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.said()
        return json.loads(line)

    def said(self) -> str:
        """What it said on its standard error, once it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()


@contextmanager
def hosting(folder: Path, url: str) -> Iterator[Host]:
    with start(part_host, folder, url) as process:
        try:
            yield Host(process)
        finally:
            process.kill()


@pytest.fixture
def way(server: PostgresServer) -> Iterator[Way]:
    with a_way_to(server) as found:
        yield found


def settled(url: str) -> int | None:
    """How many events there are; None if there is no ledger yet."""
    with suppress(LedgerMissing), closing(open_url(url, create=False)) as ledger:
        return ledger.counts("events")["events"]
    return None


def check(url: str, folder: Path, calls: int) -> None:
    """Every record once, in books that add up; and no byte of the spool is left."""
    with closing(open_url(url, create=False)) as ledger:
        assert ledger.counts("events", "observations") == {"events": calls, "observations": calls}
        assert {each.event.id for each in ledger.events()} == {
            f"call-{number:06d}" for number in range(1, calls + 1)
        }
        assert list(ledger.roll_ups()) == list(ledger.added_up())
        assert all(last == kept for _, last, kept in ledger.writers())
    assert spool.segments(folder / "spool") == []


def undisturbed(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Tries that failed left nothing behind in the host."""
    assert after["threads"] == before["threads"]
    assert after["files"] <= before["files"] + 1  # a connection may be under way
    assert after["names"] == before["names"]
    assert after["kilobytes"] < before["kilobytes"] + MEMORY_KILOBYTES
    assert after["lines"] == before["lines"]


def all_settled(url: str, folder: Path, calls: int) -> None:
    """The host itself settles everything, and gives the disk back."""
    until(lambda: settled(url) == calls, "the host to settle all of it")
    until(lambda: spool.segments(folder / "spool") == [], "the disk to be given back")
    check(url, folder, calls)


def test_outages_in_which_every_try_fails(
    server: PostgresServer, way: Way, tmp_path: Path, is_full: bool
) -> None:
    tries = TRIES_FULL if is_full else TRIES
    direct = server.database()
    with hosting(tmp_path, url_by(way, direct)) as host:
        all_settled(direct, tmp_path, host.told("calls", CALLS))
        for number, kind in enumerate(FAILS):
            with outage(kind, server, way, direct):
                host.told("calls", CALLS)
                host.told("failures", 2)
                before = host.told("cost")
                calls = host.told("fork")
                host.told("failures", tries)
                after = host.told("cost")
                calls = host.told("calls", CALLS)
                assert len(spool.segments(tmp_path / "spool")) > FORKS
            print(kind, before, after)
            undisturbed(before, after)
            assert len(after["lines"]) == 2 * number + 1, "once an outage, and of each one's end"
            all_settled(direct, tmp_path, calls)


@pytest.mark.parametrize("kind", HANGS)
def test_a_server_that_says_nothing(
    kind: str, server: PostgresServer, way: Way, tmp_path: Path
) -> None:
    """No record, no fork and no exit waits for it."""
    direct = server.database()
    url = url_by(way, direct)
    with hosting(tmp_path, url) as host:
        all_settled(direct, tmp_path, host.told("calls", CALLS))
        until(lambda: not way.carried, "the drain to end")  # else it freezes in the middle
        with outage(kind, server, way, direct):
            host.told("calls", CALLS)
            until(lambda: way.taken, "a drain to ask in vain")
            if kind == "silent":
                host.told("failures", 1)
            before = host.told("cost")
            calls = in_time(host, "fork", forks.FORK_WAIT_SECONDS)
            if kind == "silent":
                host.told("failures", 4)
            after = host.told("cost")
        print(kind, before, after)
        undisturbed(before, after)
        all_settled(direct, tmp_path, calls)

        until(lambda: not way.carried, "the drain to end")
        way.shut(kind)
        calls = host.told("calls", CALLS)
        until(lambda: way.taken, "a drain to ask in vain")
        assert host.process.stdin is not None
        host.process.stdin.close()
        assert host.process.wait(upkeep.EXIT_SECONDS + SLACK_SECONDS) == 0
        assert "Traceback" not in host.said()
    way.open()
    drain(Config(ledger=url, spool=tmp_path / "spool"))
    check(direct, tmp_path, calls)


def in_time(host: Host, word: str, seconds: float) -> Any:
    """An answer that comes sooner than the first fork that waits would let it."""
    found: list[Any] = []
    asking = threading.Thread(target=lambda: found.append(host.told(word)), daemon=True)
    asking.start()
    asking.join(seconds)
    assert found, "a fork waits for a server that says nothing"
    return found[0]
