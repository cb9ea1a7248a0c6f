"""A host that records and is told when to go on: its side of the talk, and the test's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from books_check import costspan_said, doctor
from children import say

import costspan
from costspan.core import counters
from costspan.core.recorder import Ack, Held, Refused

COST = "0.001"


def record(number: int) -> Ack | Held | Refused:
    """A whole call in one record, with an identity of its own whatever becomes of it."""
    return costspan.record(
        {
            "attempt_id": f"call-{number:06d}",
            "phase": "end",
            "tenant": "acme",
            "tenant_source": "context",
            "provider_result": "ok",
            "flat_cost": COST,
            "usage": {"input": 7},
        }
    )


class Told:
    """What a host was told of its records, by kind."""

    def __init__(self) -> None:
        self.calls: dict[str, list[int]] = {"Ack": [], "Held": [], "Refused": []}
        self.reasons: Counter[str] = Counter()
        self._number = 0

    def record(self, many: int) -> None:
        """Record so many more calls."""
        for _ in range(many):
            self._number += 1
            said = record(self._number)
            self.calls[type(said).__name__].append(self._number)
            if not isinstance(said, Ack):
                self.reasons[said.reason] += 1

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {**self.calls, "reasons": self.reasons, "counters": counters.snapshot()}


def wait_to_be_told(word: str) -> None:
    """Say where we are, and go on when the test says so."""
    say(word)
    sys.stdin.readline()


def has_failed_drains() -> int:
    """How many drains of this process's background did not succeed."""
    named = counters.snapshot().items()
    return sum(times for name, times in named if name.startswith("drain_failed"))


class Host:
    """A part under way that is told when to go on."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def reaches(self, word: str) -> list[str]:
        """Wait until it says this word; the lines that it said before."""
        assert self._process.stdout is not None
        before: list[str] = []
        for line in self._process.stdout:
            if (said := line.decode().rstrip("\n")) == word:
                return before
            before.append(said)
        raise AssertionError(self._error())

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go on\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """What it answered; it ended well."""
        assert self._process.stdout is not None
        said = self._process.stdout.read().decode().split("\n")
        assert self._process.wait() == 0, self._error()
        return json.loads(said[-2])

    def _error(self) -> str:
        assert self._process.stderr is not None
        return self._process.stderr.read().decode()


def check_told(folder: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Drain: kept is what was acknowledged or held, once, and `doctor` counts what was refused."""
    costspan_said(folder, "drain")
    kept = {f"call-{number:06d}" for number in (*told["Ack"], *told["Held"])}
    with costspan.open_ledger(folder / "ledger.db") as books:
        assert {each.event.id for each in books.ledger.events()} == kept
        seen = [each.attempt_id for each in books.ledger.journal()]
        assert len(seen) == len(kept)
        assert sum(each.cost for each in books.ledger.roll_ups()) == len(kept) * 10**9
        assert all(last == many for _, last, many in books.ledger.writers())
    found = doctor(folder)
    refused = found.get("refused", {"count": 0})
    assert refused["count"] == len(told["Refused"])
    assert not found.keys() & {"gaps", "quarantined", "quarantined_damage", "spool_unusable"}
    return found
