"""How much memory everything takes against the number of events, and of tenants.

    python benchmarks/memory.py [--events N ...] [--tenants N ...] [--json]

Peak resident memory (MiB) of processes that each do one thing: drain a spool, rebuild, report from
the roll-up and by a scan, explain, make a statement. SQLite keeps up to 64 MiB of a ledger
in memory, a smaller one whole. Growth is without that.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from read import PERIOD, busy
from turns import Line, Target, as_json, show
from workload import attempts

from costspan.core import config
from costspan.core.config import Config
from costspan.core.drain import drain
from costspan.core.journal.records import encode_body
from costspan.core.read.books import Books
from costspan.core.rebuild import rebuild
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import open_url

EVENTS = (10_000, 100_000)
TENANTS = (100, 10_000)
OF_TENANTS = 20_000
CACHE_MIB = 64
SEGMENT_RECORDS = 10_000
FLAT = Target("times", 1.25)

NOTHING, RECORDER, DRAIN, REBUILD = "nothing but imports", "record", "drain", "rebuild"
LEDGERS_OPEN = {NOTHING: 0, RECORDER: 0, REBUILD: 2}
READERS = ("report by owner", "report by feature", "explain", "statement", "is_balanced")


def record(settings: Config, events: int, tenants: int | None) -> None:
    """START and END of attempts in a spool."""
    recorder = Recorder(settings.spool)
    pairs = busy(events) if tenants is None else attempts(events, seed=2, tenants=tenants)
    for number, pair in enumerate(pairs):
        for seen in pair:
            if seen is not None:
                recorder.append_body(encode_body(seen))
        if number % SEGMENT_RECORDS == 0:
            recorder.rotate()
    recorder.rotate()


def work(task: str, settings: Config) -> None:
    """One thing that a process of costspan does."""
    if task == DRAIN:
        gc.disable()  # as the commands do
        drain(settings)
    elif task == REBUILD:
        gc.disable()
        rebuild(settings)
    elif task in READERS:
        with closing(open_url(settings.ledger_url, create=False)) as ledger:
            read(task, Books(ledger))


def read(task: str, books: Books) -> None:
    """One thing that a reader does."""
    if task == "explain":
        first = next(iter(books.ledger.events()))
        books.explain(first.event.facts.session or first.event.id)
    elif task == "statement":
        books.statement("tenant-0", PERIOD)
    elif task == "is_balanced":
        assert books.is_balanced()
    else:
        books.totals(task.removeprefix("report by "))


def settings_of(folder: Path) -> Config:
    return config.load({"ledger": folder / "ledger.db", "spool": folder / "spool"})


def peak_mib(task: str, folder: Path, *arguments: str) -> float:
    """The peak of a process of its own that does this."""
    command = [sys.executable, __file__, "--task", task, "--folder", str(folder), *arguments]
    return float(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def measure(folder: Path, events: int, tenants: int | None) -> dict[str, float]:
    """MiB of each task on so many events."""
    folder.mkdir()
    numbers = ["--events", str(events)]
    if tenants is not None:
        numbers += ["--tenants", str(tenants)]
    found = {NOTHING: peak_mib(NOTHING, folder)}
    found[RECORDER] = peak_mib(RECORDER, folder, *numbers)
    for task in (DRAIN, *READERS, REBUILD):
        found[task] = peak_mib(task, folder)
    return found


def table(found: dict[int, dict[str, float]], unit: str) -> list[Line]:
    """One line for each task: MiB at each size, and the growth beyond the cache, if any."""
    least, most = min(found), max(found)
    lines: list[Line] = []
    for task in found[least]:
        values = {f"{size:.0e} {unit}".replace("e+0", "e"): found[size][task] for size in found}
        cache = CACHE_MIB * LEDGERS_OPEN.get(task, 1)
        values["growth"] = max(1, found[most][task] / (found[least][task] + cache))
        lines.append(Line(task, values, {"growth": FLAT}))
    return lines


def child(asked: argparse.Namespace) -> None:
    """Do the task, and say what it took."""
    settings = settings_of(asked.folder)
    if asked.task == RECORDER:
        record(settings, asked.events[0], asked.tenants[0] if asked.tenants else None)
    else:
        work(asked.task, settings)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, nargs="+", default=EVENTS)
    parser.add_argument("--tenants", type=int, nargs="+")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.task:
        child(asked)
        return
    tables: dict[str, list[Line]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        by_events = {
            events: measure(Path(scratch) / f"events-{events}", events, None)
            for events in asked.events
        }
        tables["peak MiB against events"] = table(by_events, "ev")
        by_tenants = {
            tenants: measure(Path(scratch) / f"tenants-{tenants}", OF_TENANTS, tenants)
            for tenants in asked.tenants or TENANTS
        }
        title = f"peak MiB against tenants, {OF_TENANTS:,} events"
        tables[title] = table(by_tenants, "tenants")
    if asked.json:
        print(as_json(tables))
        return
    for title, lines in tables.items():
        show(title, lines)


if __name__ == "__main__":
    main()
