"""How long readers take, and how much longer on a hundred times as many events.

    python benchmarks/read.py [--events N ...] [--calls N] [--keep FOLDER] [--json]

Statements, reports, explanations and `costspan doctor` on ledgers of so many events. A ledger in
the FOLDER that is kept is filled once. Processor time of one call, p50 and p99 of many; a scan of
every event is called twice. Times mean something only beside each other, in one run.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from itertools import cycle
from pathlib import Path

import msgspec
from settle import batches, open_ledger
from turns import Line, Target, as_json, show
from workload import attempts

from costspan import cli
from costspan.core.read.books import Books
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url

EVENTS = (10_000, 100_000)
PERIOD = "2026-02"
BIGGEST = "tenant-0"
STATEMENT = Target("ms", 2)
SCANS = 2

Read = Callable[[], object]


def busy(count: int) -> Iterator[tuple[Observation, Observation | None]]:
    """(START, END) of attempts; of every 200 one has no price, one is shared, one never ends."""
    for number, (start, end) in enumerate(attempts(count, seed=2)):
        if number % 200 == 50:
            model = "a-model-that-nobody-prices"
            yield start, msgspec.structs.replace(end, executed_model=model, requested_model=model)
        elif number % 200 == 100:
            yield start, msgspec.structs.replace(end, members={"tenant-1": 2, "tenant-2": 1})
        else:
            yield start, None if number % 200 == 150 else end


def fill(path: Path, count: int) -> None:
    """A ledger of so many events."""
    with closing(open_ledger(path)) as ledger:
        for batch in batches(busy(count)):
            with ledger.settling(30) as settlement:
                settle(settlement, [start for start, _ in batch])
            with ledger.settling(30) as settlement:
                settle(settlement, [end for _, end in batch if end is not None])


def reads(books: Books, calls: int) -> dict[str, tuple[Read, int]]:
    """What is read, and how often."""
    sql = "SELECT id, request_id, session FROM events WHERE n % ? = 1 ORDER BY n LIMIT 200"
    connection = books.ledger.connection  # type: ignore[attr-defined]
    step = max(1, books.ledger.counts("events")["events"] // 200)
    events, requests, sessions = zip(*connection.execute(sql, (step,)), strict=True)
    facts = [next(books.ledger.events([each])).event.facts for each in events]
    operations = [name for each in facts for name in each.operation_ids]
    responses = [each.response_id or "" for each in facts if each.response_id]

    def explain(names: list[str]) -> tuple[Read, int]:
        turn = cycle(names)
        return lambda: books.explain(next(turn)), max(1, calls // 5)

    unpriced = "SELECT id FROM events WHERE status = 'unpriced' LIMIT 1"
    (unknown,) = connection.execute(unpriced).fetchone()
    tenant = cycle([f"tenant-{number}" for number in range(0, 500, 7)])
    return {
        "statement of the biggest tenant": (lambda: books.statement(BIGGEST, PERIOD), calls),
        "statement of any tenant": (lambda: books.statement(next(tenant), PERIOD), calls),
        "explain an unpriced event, the first": (lambda: books.explain(unknown), 1),
        "explain an event": explain(list(events)),
        "explain a request": explain(list(requests)),
        "explain a session": explain(list(sessions)),
        "explain an operation": explain(operations),
        "explain a response": explain(responses),
        "report by owner, bucket": (books.totals, max(1, calls // 20)),
        "report of a month": (lambda: books.totals(period=PERIOD), max(1, calls // 20)),
        "report by day": (lambda: books.totals("day"), max(1, calls // 20)),
        "report by feature: every event": (lambda: books.totals("feature"), SCANS),
        "Books.is_balanced: every posting": (books.is_balanced, SCANS),
        "costspan doctor: every event": (_doctor, 1),
    }


def _doctor() -> None:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        cli.main(["doctor", "--json"])


def timed(read: Read, calls: int) -> dict[str, float]:
    """Milliseconds a call: processor p50 and p99, and p50 of the wall clock."""
    if calls > SCANS:
        read()
    spent: list[int] = []
    waited: list[int] = []
    for _ in range(calls):
        wall, began = time.perf_counter_ns(), time.process_time_ns()
        read()
        spent.append(time.process_time_ns() - began)
        waited.append(time.perf_counter_ns() - wall)
    spent.sort()
    waited.sort()
    return {
        "p50": spent[len(spent) // 2] / 10**6,
        "p99": spent[len(spent) * 99 // 100] / 10**6,
        "wall": waited[len(waited) // 2] / 10**6,
    }


def measure(path: Path, calls: int) -> dict[str, dict[str, float]]:
    """What is read of one ledger -> its times."""
    os.environ["COSTSPAN_LEDGER"] = str(path)
    os.environ["COSTSPAN_SPOOL"] = str(path.parent / "spool")
    with closing(open_url(f"sqlite:///{path}", create=False)) as ledger:
        return {
            name: timed(read, many) for name, (read, many) in reads(Books(ledger), calls).items()
        }


def table(found: dict[int, dict[str, dict[str, float]]]) -> list[Line]:
    """One line for each read: its times on each ledger, and how they grew."""
    least, most = min(found), max(found)
    lines: list[Line] = []
    for name in found[least]:
        values = {
            f"{kind} {_power(events)}": times[name][kind]
            for events, times in found.items()
            for kind in ("p50", "p99", "wall")
        }
        values["growth"] = found[most][name]["p50"] / found[least][name]["p50"]
        is_statement = name.startswith("statement")
        lines.append(Line(name, values, {f"p50 {_power(most)}": STATEMENT} if is_statement else {}))
    return lines


def _power(events: int) -> str:
    return f"{events:.0e}".replace("e+0", "e")


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, nargs="+", default=EVENTS)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="a folder for the ledgers, filled once")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.disable()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[int, dict[str, dict[str, float]]] = {}
        for events in asked.events:
            path = folder / f"{events}.db"
            if not path.exists():
                fill(path, events)
            found[events] = measure(path, asked.calls)
    title = f"ms a call; growth of p50 from {min(found):,} to {max(found):,} events"
    lines = table(found)
    if asked.json:
        print(as_json({title: lines}))
    else:
        show(title, lines)


if __name__ == "__main__":
    main()
