"""What settlement into SQLite reaches, beside raw inserts of the very same rows.

    python benchmarks/settle.py [--attempts N] [--prior N ...] [--json]

Every attempt's START and its END come in different batches, as in production. The raw inserts are
one `executemany` a table of what the settlement left there, into the same tables and indexes, in as
many transactions as there were batches of ENDs. Times mean something only beside each other.
"""

from __future__ import annotations

import argparse
import gc
import json
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from workload import attempts

from costspan.core import config, drain
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

BATCH = 5000
TABLES = ("journal", "events", "keys", "lines", "postings")
TARGET_PER_SECOND = 10_000
TARGET_RATIO = 0.35

Pairs = list[tuple[Observation, Observation]]


def batches(pairs: Iterator[tuple[Observation, Observation]]) -> Iterator[Pairs]:
    while batch := list(islice(pairs, BATCH)):
        yield batch


def settle_all(ledger: Ledger, pairs: Iterator[tuple[Observation, Observation]]) -> float:
    """Processor seconds that the settlement took, without making the observations."""
    spent = 0.0
    for batch in batches(pairs):
        began = time.process_time()
        with ledger.settling(30) as settlement:
            settle(settlement, [start for start, _ in batch])
        with ledger.settling(30) as settlement:
            settle(settlement, [end for _, end in batch])
        spent += time.process_time() - began
    return spent


def open_ledger(path: Path) -> Ledger:
    settings = config.load({"ledger": path, "spool": path.parent})
    ledger = open_url(settings.ledger_url, create=True)
    drain.bring_policy(ledger, settings, 30)
    return ledger


def raw(before: Path, after: Path, scratch: Path, transactions: int) -> float:
    """Processor seconds to insert what `after` has and `before` has not."""
    shutil.copy(before, scratch)
    spent = 0.0
    with (
        closing(sqlite3.connect(after)) as source,
        closing(open_url(f"sqlite:///{scratch}", create=True)) as ledger,
    ):
        target: sqlite3.Connection = ledger.connection  # type: ignore[attr-defined]
        rows: dict[str, list[tuple[object, ...]]] = {}
        source.execute("ATTACH ? AS old", (str(before),))
        for table in TABLES:
            if table == "keys":
                sql = "SELECT * FROM keys EXCEPT SELECT * FROM old.keys"
            else:
                key = "n" if table == "events" else "id"
                new = f"SELECT {key} FROM {table} EXCEPT SELECT {key} FROM old.{table}"  # noqa: S608
                sql = f"SELECT * FROM {table} WHERE {key} IN ({new}) ORDER BY {key}"  # noqa: S608
            rows[table] = source.execute(sql).fetchall()
        marks = {table: ",".join("?" * len(found[0])) for table, found in rows.items() if found}
        for part in range(transactions):
            began = time.process_time()
            target.execute("BEGIN IMMEDIATE")
            for table, found in rows.items():
                if found:
                    first, last = (len(found) * each // transactions for each in (part, part + 1))
                    # Keys are digests: they come in no order, whatever order they are read in.
                    share = found[part::transactions] if table == "keys" else found[first:last]
                    into = f"INSERT INTO {table} VALUES ({marks[table]})"  # noqa: S608
                    target.executemany(into, share)
            target.execute("COMMIT")
            spent += time.process_time() - began
    return spent


def measure(folder: Path, prior: int, count: int, tell: Callable[[str], None]) -> dict[str, float]:
    path, before = folder / "ledger.db", folder / "before.db"
    for each in folder.glob("*.db*"):
        each.unlink()
    with closing(open_ledger(path)) as ledger:
        warm = attempts(100, seed=9)
        settle_all(ledger, warm)  # the price books are read once a process
        if prior:
            tell(f"filling {prior:,} attempts")
            fill = settle_all(ledger, attempts(prior, seed=2))
            tell(f"filled at {prior / fill:,.0f} attempts/s")
    shutil.copy(path, before)
    with closing(open_ledger(path)) as ledger:
        spent = settle_all(ledger, attempts(count, seed=3, after=prior))
    tell("raw inserts")
    plain = raw(before, path, folder / "raw.db", -(-count // BATCH))
    return {
        "prior": prior,
        "attempts": count,
        "settled_per_second": count / spent,
        "raw_per_second": count / plain,
        "ratio": plain / spent,
        "bytes_per_attempt": (path.stat().st_size - before.stat().st_size) / count,
    }


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--prior", type=int, nargs="*", default=[0])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.disable()  # as `costspan drain` does
    tell = (lambda _: None) if asked.json else (lambda text: print(f"  {text} …", flush=True))
    with tempfile.TemporaryDirectory() as scratch:
        found = [measure(Path(scratch), prior, asked.attempts, tell) for prior in asked.prior]
    if asked.json:
        print(json.dumps(found))
        return
    print(
        f"{'prior events':>14}{'attempts/s':>12}{'raw inserts/s':>15}{'ratio':>8}{'B/attempt':>11}"
    )
    for each in found:
        print(
            f"{each['prior']:14,.0f}{each['settled_per_second']:12,.0f}"
            f"{each['raw_per_second']:15,.0f}{each['ratio']:8.2f}{each['bytes_per_attempt']:11,.0f}"
        )
    print(f"target: {TARGET_PER_SECOND:,} attempts/s and {TARGET_RATIO} on 1,000,000 prior events")


if __name__ == "__main__":
    main()
