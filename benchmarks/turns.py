"""How the benchmarks measure: processor time, subjects taking turns, the best of many short rounds.

The machine may be shared: only the ratios within one run mean something. Short rounds, and many of
them, find the moments in which nobody else had the processor's caches.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass

Work = Callable[[], object]
Call = Callable[[], Awaitable[object]]


def best(subjects: Mapping[str, Work], rounds: int, calls: int) -> dict[str, float]:
    """Microseconds of processor time a call of each subject."""
    found = dict.fromkeys(subjects, float("inf"))
    for work in subjects.values():
        work()
    for _ in range(rounds):
        for name, work in subjects.items():
            began = time.process_time_ns()
            for _ in range(calls):
                work()
            found[name] = min(found[name], (time.process_time_ns() - began) / calls / 1000)
    return found


async def best_async(subjects: Mapping[str, Call], rounds: int, calls: int) -> dict[str, float]:
    """As `best`, of calls that are awaited."""
    found = dict.fromkeys(subjects, float("inf"))
    for call in subjects.values():
        await call()
    for _ in range(rounds):
        for name, call in subjects.items():
            began = time.process_time_ns()
            for _ in range(calls):
                await call()
            found[name] = min(found[name], (time.process_time_ns() - began) / calls / 1000)
    return found


@dataclass(frozen=True)
class Target:
    """What DESIGN.md section 12 asks of a measured value: at most (or at least) so much."""

    what: str
    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g} {self.what}".rstrip()

    def is_met(self, value: float) -> bool:
        """Whether a measured value is within it."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Line:
    """One line of a table: named values, and what is asked of some of them (by the same name)."""

    name: str
    values: Mapping[str, float]
    targets: Mapping[str, Target]

    @property
    def verdict(self) -> str:
        """Each target beside whether it was met; empty without one."""
        return ", ".join(
            f"{target} ({'met' if target.is_met(self.values[name]) else 'MISSED'})"
            for name, target in self.targets.items()
        )


def show(title: str, lines: list[Line]) -> None:
    """Print a table."""
    columns = list(dict.fromkeys(name for line in lines for name in line.values))
    print(f"\n{title:42}" + "".join(f"{column:>12}" for column in columns) + "  target")
    for line in lines:
        values = (line.values.get(column) for column in columns)
        cells = "".join(f"{'' if value is None else format(value, '.2f'):>12}" for value in values)
        print(f"  {line.name:40}{cells}  {line.verdict}")


def as_json(tables: Mapping[str, list[Line]]) -> str:
    """All tables for a program."""
    return json.dumps({title: [asdict(line) for line in lines] for title, lines in tables.items()})
