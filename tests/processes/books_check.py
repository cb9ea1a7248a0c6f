"""Drain a folder as an operator would, and hold its books against what was acknowledged."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from children import environment

import costspan
from costspan.core.money import parse_usd
from costspan.core.settle.entries import Posting
from costspan.core.settle.ledger import Ledger

_POSTINGS_A_PAGE = 5000


class Found(NamedTuple):
    """What the books hold of the acknowledged calls; `problems` is empty if all is exact.

    `unacked` ends are in the books and were not acknowledged before their process was killed.
    """

    acked: int
    lost: int
    doubled: int
    unacked: int
    problems: list[str]

    def row(self, cell: str, kills: int) -> str:
        """A line of the table."""
        python = ".".join(map(str, sys.version_info[:2]))
        return (
            f"{python:<5} {cell:<26} kills {kills:>4}  acked {self.acked:>7,}  lost {self.lost}"
            f"  doubled {self.doubled}  durable but unacked {self.unacked:,}"
        )


def environment_of(folder: Path) -> dict[str, str]:
    """The settings of this folder's books, as a command is given them."""
    return {
        "COSTSPAN_LEDGER": str(folder / "ledger.db"),
        "COSTSPAN_SPOOL": str(folder / "spool"),
        "COSTSPAN_SPOOL_BESIDE": str(folder / "beside"),
    }


def costspan_said(folder: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
    """The JSON that a `costspan` command prints about this folder's books."""
    done = subprocess.run(
        [sys.executable, "-m", "costspan", *arguments, "--json"],
        capture_output=True, env=environment(**environment_of(folder)), timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode in codes, (done.returncode, done.stdout, done.stderr.decode())
    return json.loads(done.stdout)


def doctor(folder: Path) -> dict[str, dict[str, Any]]:
    """What `costspan doctor` finds, by check; the mount is this machine's own affair."""
    said = costspan_said(folder, "doctor", codes=(0, 1, 3))
    return {each["check"]: each for each in said["findings"] if each["check"] != "mount"}


def check(folder: Path, acked: Iterable[str], *, gaps: bool = True) -> Found:
    """Drain, then compare. `acked` are lines `OID COST`; `gaps`: whether a gap is a problem."""
    costspan_said(folder, "drain")
    claimed = dict(line.split(" ") for line in acked)
    with costspan.open_ledger(folder / "ledger.db") as books:
        found = _compare(books.ledger, claimed)
        problems = [*found.problems, *_sums(books.ledger), *_left(folder)]
        if gaps:
            numbered = books.ledger.writers()
            problems += [f"a gap: {each}" for each in numbered if each[1] != each[2]]
        if not books.is_balanced():
            problems.append("not balanced")
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        if (said := connection.execute("PRAGMA integrity_check").fetchone()) != ("ok",):
            problems.append(f"integrity: {said}")
    return found._replace(problems=problems)


def _compare(ledger: Ledger, claimed: dict[str, str]) -> Found:
    """The journal and the events against the acknowledged ends."""
    kept: Counter[str] = Counter()
    cost: dict[str, str] = {}
    ends: Counter[str] = Counter()
    for seen in ledger.journal():
        kept[str(seen.oid)] += 1
        if seen.flat_cost is not None:
            cost[str(seen.oid)] = str(seen.flat_cost)
            ends[str(seen.attempt_id)] += 1
    lost = [oid for oid in claimed if oid not in kept]
    doubled = [oid for oid, times in kept.items() if times > 1]
    doubled += [attempt for attempt, times in ends.items() if times > 1]
    problems = [f"lost: {oid}" for oid in lost[:5]] + [f"doubled: {oid}" for oid in doubled[:5]]
    problems += [
        f"{oid} cost {claimed[oid]}, the books say {cost.get(oid)}"
        for oid in claimed
        if oid in kept and _pico(cost.get(oid)) != _pico(claimed[oid])
    ]
    problems += [f"problem listed: {each}" for each in ledger.problems()[:5]]
    rolled = sum(each.cost for each in ledger.roll_ups())
    if rolled != (whole := sum(_pico(each) for each in cost.values())):
        problems.append(f"the books hold {rolled} pico-USD, the calls cost {whole}")
    return Found(len(claimed), len(lost), len(doubled), len(cost.keys() - claimed), problems)


def _pico(usd: str | None) -> int:
    return 0 if usd is None else parse_usd(usd)


def _sums(ledger: Ledger) -> Iterator[str]:
    """Roll-ups as recomputed from the postings; the postings of an event as it was decided."""
    lines: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
    events: Counter[str] = Counter()
    for each in _postings(ledger):
        amounts = (each.amount.cost, each.amount.charge, each.events)
        sums = lines[each.line, each.posted_period]
        lines[each.line, each.posted_period] = [a + b for a, b in zip(sums, amounts, strict=True)]
        events[each.event_id] += each.amount.cost
    rolled = {
        (each.line, each.posted_period): [each.cost, each.charge, each.events]
        for each in ledger.roll_ups()
    }
    if rolled != {line: sums for line, sums in lines.items() if any(sums)}:
        yield "the roll-up differs from the postings"
    for event in ledger.events():
        if event.decision is not None and (event.decision.cost or 0) != events[event.event.id]:
            yield f"{event.event.id}: decided {event.decision.cost}, posted otherwise"


def _postings(ledger: Ledger) -> Iterator[Posting]:
    number = 0
    while page := ledger.postings_after(number, _POSTINGS_A_PAGE):
        for number, posting in page:  # noqa: B007 (the last one is where the next page begins)
            yield posting


def _left(folder: Path) -> list[str]:
    waiting = (path for place in ("spool", "beside") for path in (folder / place).glob("*.seg"))
    return [f"left to be drained: {path}" for path in waiting]
