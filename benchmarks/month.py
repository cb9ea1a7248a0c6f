"""A month's end: reconcile, allocate, close and verify, beside one full scan of the events.

    python benchmarks/month.py [--events N] [--json]

Each has a process of its own, which scans first: `of a scan` is processor time as a ratio to that,
`peak MiB` is of the whole process, and `above a scan` what it takes beyond one that only scans.
SQLite keeps up to 64 MiB of a ledger in memory. Exits with 1 if the books do not verify.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
from settle import open_ledger, settle_all
from turns import Line, as_json, show
from workload import DAY_NS, START_NS, attempts

from costspan.cli.progress import progress
from costspan.core.allocate import AllocationRule, allocate_period
from costspan.core.invoices.invoice import Invoice, InvoiceLine
from costspan.core.reconcile import reconcile
from costspan.core.schema import Observation
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import Ledger
from costspan.core.verify import Problem, verify

PERIOD = "2026-02"
MONTHS_END = START_NS + 60 * DAY_NS
OVERHEAD_EVERY = 20
FILL, SCAN = "fill", "scan"
RECONCILE, ALLOCATE, CLOSE, VERIFY = "reconcile", "allocate", "close", "verify"


def work_of_a_month(events: int) -> Iterator[tuple[Observation, Observation]]:
    """Attempts of many tenants; every 20th is a router's, whose pool there is to share out."""
    router = {"cause": "router", "cause_source": "explicit", "initiator": "platform"}
    for number, (start, end) in enumerate(attempts(events, seed=3)):
        if number % OVERHEAD_EVERY:
            yield start, end
        else:
            yield (
                msgspec.structs.replace(start, **router),
                msgspec.structs.replace(end, **router),
            )


def fill(path: Path, events: int) -> None:
    """A month's books and its invoice."""
    with closing(open_ledger(path)) as ledger:
        settle_all(ledger, work_of_a_month(events))
        bill(ledger)


def bill(ledger: Ledger) -> None:
    """The provider's invoice, by day and model: one cent more on the first line."""
    raw = b"benchmark"
    invoice = Invoice(
        id=hashlib.sha256(raw).hexdigest(), source="openai", provider="openai", account="",
        period=PERIOD, version=1, imported_at=MONTHS_END, by="benchmark", currency="USD",
        is_provisional=False,
    )  # fmt: skip
    lines: list[InvoiceLine] = []
    for (day, model), (cost, _, _) in ledger.sums(("day", "model"), period=PERIOD):
        more = 0 if lines else 10**10
        lines.append(
            InvoiceLine(
                invoice=invoice.id, number=len(lines), provider="openai", account="",
                project=None, day=day, model=model, component="", tier=None, category="usage",
                requests=None, quantity=None, unit="", amount=cost + more, currency="USD",
                description=model, is_provisional=False,
            )
        )  # fmt: skip
    ledger.invoices.keep(invoice, lines, raw)


def work(task: str, ledger: Ledger) -> str:
    """One thing that is done at a month's end, and what came of it."""
    if task == RECONCILE:
        with progress(task, "events") as tell:
            found = reconcile(ledger, PERIOD, tell=tell)
        return f"{len(found.variances)} variances"
    if task == ALLOCATE:
        with progress(task, "events") as tell:
            rule = AllocationRule().with_method("activity")
            hand = {"by": "benchmark", "reason": "month's end", "now_ns": MONTHS_END}
            done = allocate_period(ledger, PERIOD, rule, tell=tell, **hand)
        return f"{done.posted} entries"
    if task == CLOSE:
        with progress(task, "postings") as tell:
            close = close_period(ledger, PERIOD, "benchmark", "end", MONTHS_END, tell=tell)
        return f"{close.postings} sealed"
    if task == VERIFY:
        with progress(task, "events") as tell:
            told = verify(ledger, tell=lambda _, done: tell(done))
            problems = [each.what for each in told if isinstance(each, Problem)]
        if problems:
            sys.exit("; ".join(problems[:3]))
        return "verified"
    return "scanned"


def child(task: str, path: Path) -> None:
    """Scan, do the task, and say what each took."""
    with closing(open_ledger(path)) as ledger:
        began = time.process_time()
        events = sum(1 for _ in ledger.events())
        scanned = time.process_time()
        came = work(task, ledger)
        spent = time.process_time() - scanned
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    said = {"events": events, "scan": scanned - began, "spent": spent, "peak": peak, "came": came}
    print(json.dumps(said))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    gc.disable()  # as the commands do
    if asked.task == FILL:
        fill(asked.path, asked.events)
        return
    if asked.task:
        child(asked.task, asked.path)
        return
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "ledger.db"
        # A process of its own too: children start with the peak of their parent.
        command = [sys.executable, __file__, "--path", str(path), "--events", str(asked.events)]
        subprocess.run([*command, "--task", FILL], check=True)
        floor = 0.0
        for task in (SCAN, RECONCILE, ALLOCATE, CLOSE, VERIFY):
            command = [sys.executable, __file__, "--task", task, "--path", str(path)]
            said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            floor = floor or said["peak"]
            spent = said["scan"] if task == SCAN else said["spent"]
            values = {
                "seconds": spent,
                "of a scan": spent / said["scan"],
                "peak MiB": said["peak"],
                "above a scan": said["peak"] - floor,
            }
            lines.append(Line(f"{task}: {said['came']}", values, {}))
    tables = {f"a month of {asked.events:,} events": lines}
    if asked.json:
        print(as_json(tables))
    else:
        show(*next(iter(tables.items())))


if __name__ == "__main__":
    main()
