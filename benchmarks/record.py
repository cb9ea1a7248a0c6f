"""What the caller pays, and what settlement reaches, as ratios within one run.

    python benchmarks/record.py [--attempts N]

Times mean something only beside each other: the machine may be shared. Nothing here is a test.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import costspan
from costspan.adapter import Attempt
from costspan.core import clean, runtime
from costspan.core.journal.records import encode_body

ROUNDS = 5


def best(work: Callable[[], None], times: int) -> float:
    """Seconds per call of `work`, the best of a few rounds."""
    found = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            work()
        found = min(found, (time.perf_counter() - began) / times)
    return found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--attempts", type=int, default=5000)
    attempts: int = parser.parse_args().attempts
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        costspan.configure(ledger=folder / "l.db", spool=folder / "s", background=False)
        fields = {
            "attempt_id": "0" * 31 + "1", "operation_ids": ("litellm:c",), "layer": "gateway",
            "kind": "model", "phase": "end", "tenant": "acme", "tenant_source": "context",
            "session": "s-1", "requested_model": "gpt-4o", "executed_model": "gpt-4o",
            "provider": "openai", "usage": {"input": 100, "output": 10},
            "usage_source": "provider", "provider_result": "ok", "started_at": time.time_ns(),
        }  # fmt: skip
        observation = clean.observation(fields)
        body = encode_body(observation)
        fd = os.open(folder / "raw", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        write = best(lambda: os.write(fd, body) and None, attempts)
        record = best(lambda: runtime.record(observation) and None, attempts)
        cleaned = best(lambda: runtime.record(fields) and None, attempts)

        def call() -> None:
            Attempt.start(layer="gateway", requested_model="gpt-4o", provider="openai").end(
                usage={"input": 100, "output": 10}, executed_model="gpt-4o"
            )

        whole = best(call, attempts)
        costspan.flush()
        for _ in range(attempts):
            call()
        began = time.perf_counter()
        costspan.flush()
        settled = attempts / (time.perf_counter() - began)
        raw = raw_inserts(folder, attempts, body)
        print(f"{'':38}{'us':>9}{'x one write':>13}")
        for name, seconds in (
            ("one os.write of the same size", write),
            ("record() of an observation", record),
            ("record() of fields, cleaned", cleaned),
            ("Attempt.start() and .end()", whole),
        ):
            print(f"{name:38}{seconds * 1e6:9.1f}{seconds / write:13.1f}")
        print(f"{'settled attempts/s, START and END':38}{settled:9.0f}")
        print(f"{'share of raw inserts of as many rows':38}{settled / raw:9.2f}")


def raw_inserts(folder: Path, attempts: int, body: bytes) -> float:
    """Attempts per second of plain inserts: two journal rows, an event, a posting."""
    connection = sqlite3.connect(folder / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE j (id INTEGER PRIMARY KEY, w INT, s INT, b BLOB, UNIQUE(w, s))"
    )
    connection.execute("CREATE TABLE e (id TEXT PRIMARY KEY, b BLOB)")
    connection.execute("CREATE TABLE p (id INTEGER PRIMARY KEY, e TEXT, o TEXT, c INT)")
    connection.execute("CREATE INDEX pe ON p (e)")
    began = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    rows = [(1, n, body) for n in range(2 * attempts)]
    connection.executemany("INSERT INTO j (w, s, b) VALUES (?, ?, ?)", rows)
    ids = [(f"{n:032x}", body) for n in range(attempts)]
    connection.executemany("INSERT INTO e VALUES (?, ?)", ids)
    posted = [(event, "acme", 1) for event, _ in ids]
    connection.executemany("INSERT INTO p (e, o, c) VALUES (?, ?, ?)", posted)
    connection.execute("COMMIT")
    reached = attempts / (time.perf_counter() - began)
    connection.close()
    return reached


if __name__ == "__main__":
    main()
