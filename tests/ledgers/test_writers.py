"""Which machine and process every writer is, in each ledger: also of those that were killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from known_calls import begin, keep

from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal.records import Control, Counts, Opened, Refusals
from costspan.core.read.waiting import waiting
from costspan.core.read.writers import writers_of
from costspan.core.rebuild import copy_books, rebuild
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger, open_url

HOSTS = ("web-1", "web-2.example.org")
_HOST = """
import json, os, sys

host, spool = sys.argv[1:]
here = os.uname()
os.uname = lambda: os.uname_result((here.sysname, host, *here[2:]))

import costspan
from costspan.core import runtime

def record():
    costspan.record({"tenant": "acme", "flat_cost": "1", "provider_result": "ok"})
    os.write(1, f"{json.dumps([runtime.recorder().writer, os.getpid()])}\\n".encode())

costspan.configure(spool=spool, spool_beside="off", background=False)
record()
if (child := os.fork()) == 0:
    record()
    os._exit(0)
os.waitpid(child, 0)
os.write(1, b"done\\n")
sys.stdin.read()
"""


class Machine(NamedTuple):
    """A machine with a spool of its own; writer -> (host, pid) of its processes."""

    spool: Path
    process: subprocess.Popen[bytes]
    said: dict[str, tuple[str, int]]


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty ledger may be."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    found: str = request.getfixturevalue("url")
    return found


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """Two machines; on each a process that lives, and a child of it that is gone."""
    started: list[Machine] = []
    try:
        for host in HOSTS:
            spool = tmp_path / host
            process = subprocess.Popen(
                [sys.executable, "-c", _HOST, host, str(spool)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env={**os.environ, "COSTSPAN_LEDGER": str(tmp_path / "nobody drains.db")},
            )  # fmt: skip
            said: dict[str, tuple[str, int]] = {}
            started.append(Machine(spool, process, said))
            assert process.stdout is not None
            while (line := process.stdout.readline()) != b"done\n":
                writer, pid = json.loads(line)
                said[writer] = (host, pid)
        yield started
    finally:
        for machine in started:
            machine.process.kill()
            machine.process.communicate()


def found(ledger: Ledger | None, *spools: Path) -> dict[str, tuple[str | None, int | None]]:
    writers = writers_of(ledger, map(waiting, spools))
    return {each.writer: (each.host, each.pid) for each in writers}


def test_processes_of_several_machines(
    ledger_url: str, machines: list[Machine], tmp_path: Path
) -> None:
    """In their spools, live and killed; in the ledger; in the books that are made of it."""
    spools = [machine.spool for machine in machines]
    expected = {writer: who for machine in machines for writer, who in machine.said.items()}
    assert len(expected) == 4
    assert found(None, *spools) == expected
    assert sum(waiting(spool).live for spool in spools) == 2
    for machine in machines:
        machine.process.kill()
        machine.process.wait()
    assert found(None, *spools) == expected
    config = Config(ledger=ledger_url, spool=tmp_path / "none")
    drain(config, spools)
    drain(config, spools)
    assert not any(waiting(spool).segments for spool in spools)
    with closing(open_url(ledger_url, create=False)) as ledger:
        assert found(ledger) == expected
        assert list(ledger.damaged()) == []
        with closing(open_url("sqlite:///:memory:", create=True)) as copy:
            copy_books(ledger, copy)
            assert found(copy) == expected
            assert copy.controls() == ledger.controls()
    rebuild(config)
    with closing(open_url(ledger_url, create=False)) as ledger:
        assert found(ledger) == expected


LONGEST = "w" * 256
TOLD: list[Control] = [
    Opened("a", 7, 1, "web-1"),
    Opened("a", 7, 2, "web-1"),
    Opened("old", 8, 1),
    Opened("gone", 2**63 + 1, 1, "\x00\x1b[2J\u202e" + "x" * 3000),
    Opened("nobody", 0, 1, "  "),
    Opened("nobody", -5, 1),
    Opened(LONGEST, 2**32 - 1, 1, "é" * 300),
    Opened("w" * 4000, 9, 1, "web-1"),
    Opened("\x00\n", 9, 1, "web-1"),
    Counts("first", {}, 3, "web-1", 7),
    Counts("counted", {"refused:disk:28": 2}, 3, "web-1", 7),
    Counts("older", {"refused:disk:28": 1}, 3),
    Refusals("oldest", {"disk:28": 1}, 3),
    Opened("two", 5, 1, "web-1"),
    Opened("two", 5, 1, "web-2"),
]


def test_what_is_kept_of_who_wrote(ledger_url: str) -> None:
    """Each once, clean and short; what is no writer of ours, or says nothing, is left out."""
    who: list[Control] = [
        Opened("a", 7, 0, "web-1"),
        Opened("counted", 7, 0, "web-1"),
        Opened("first", 7, 0, "web-1"),
        Opened("gone", 0, 0, "��[2J�" + "x" * 250),
        Opened("old", 8, 0),
        Opened("two", 5, 0, "web-1"),
        Opened("two", 5, 0, "web-2"),
        Opened(LONGEST, 2**32 - 1, 0, "é" * 256),
    ]
    counted: list[Control] = [
        Counts("counted", {"refused:disk:28": 2}, 0),
        Counts("older", {"refused:disk:28": 1}, 0),
        Refusals("oldest", {"disk:28": 1}, 0),
    ]
    with closing(open_url(ledger_url, create=True)) as ledger:
        begin(ledger)
        (policy,) = ledger.controls()
        for told in (TOLD, TOLD[::-1]):
            with ledger.settling(1) as settlement:
                assert settlement.append_control(told) == []
            assert ledger.controls() == [policy, *who, *counted]
        assert ledger.counts("refused") == {"refused": 4}
        assert list(ledger.damaged()) == []
        names = ("a", "two", "old", "nobody")
        keep(ledger, *(Observation(writer=name, seq=1, flat_cost="1") for name in names))
        assert found(ledger) == {
            "a": ("web-1", 7),
            "old": (None, 8),
            "two": (None, None),  # of two minds
            "nobody": (None, None),
            "counted": ("web-1", 7),
            "older": (None, None),
            "oldest": (None, None),
        }
