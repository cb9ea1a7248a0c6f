"""What settlement into PostgreSQL reaches, beside SQLite and beside a raw COPY of the same rows.

    python benchmarks/postgres.py [--attempts N] [--prior N ...] [--json]

As `settle.py`: every attempt's START and its END come in different batches. Times are of the clock,
since the server works beside us; all of one run. The server is the one of the tests: on this
machine, its files not synced, as SQLite's are not in `settle.py`'s processor time.
"""

# ruff: noqa: S608 -- names of our own tables

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import psycopg
from workload import attempts

from costspan.core import config, drain
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "ledgers"))

from postgres_server import PostgresServer

BATCH = 5000
TABLES = {"journal": "id", "events": "n", "keys": "key", "lines": "id", "postings": "id"}

Pairs = list[tuple[Observation, Observation]]


def batches(pairs: Iterator[tuple[Observation, Observation]]) -> Iterator[Pairs]:
    while batch := list(islice(pairs, BATCH)):
        yield batch


def settle_all(ledger: Ledger, pairs: Iterator[tuple[Observation, Observation]]) -> float:
    """Seconds that the settlement took, without making the observations."""
    spent = 0.0
    for batch in batches(pairs):
        began = time.perf_counter()
        for part in ([start for start, _ in batch], [end for _, end in batch]):
            with ledger.settling(30) as settlement:
                settle(settlement, part)
        spent += time.perf_counter() - began
    return spent


def begun(url: str, folder: Path) -> Ledger:
    settings = config.load({"ledger": url, "spool": folder})
    ledger = open_url(settings.ledger_url, create=True)
    drain.bring_policy(ledger, settings, 30)
    return ledger


def raw(url: str, prior: dict[str, int], transactions: int) -> float:
    """Seconds to COPY what was settled after `prior` rows of each table into tables like those."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE SCHEMA plain")
        rows: dict[str, list[tuple[object, ...]]] = {}
        kinds: dict[str, list[str]] = {}
        for table, key in TABLES.items():
            db.execute(
                f"CREATE TABLE plain.{table} (LIKE costspan.{table} INCLUDING INDEXES)".encode()
            )
            with db.cursor(binary=True) as cursor:
                order = "ctid" if table == "keys" else key
                new = f"SELECT * FROM costspan.{table} ORDER BY {order} OFFSET {prior[table]}"
                cursor.execute(new.encode())
                rows[table] = cursor.fetchall()
            cursor = db.execute(f"SELECT * FROM costspan.{table} LIMIT 0".encode())
            described = cursor.description or []
            kinds[table] = [db.adapters.types[each.type_code].name for each in described]
            db.execute(
                f"INSERT INTO plain.{table} SELECT * FROM costspan.{table}"
                f" ORDER BY {order} LIMIT {prior[table]}".encode()
            )
        spent = 0.0
        for part in range(transactions):
            began = time.perf_counter()
            with db.transaction():
                for table, found in rows.items():
                    first, last = (len(found) * each // transactions for each in (part, part + 1))
                    sql = f"COPY plain.{table} FROM STDIN (FORMAT BINARY)".encode()
                    with db.cursor() as cursor, cursor.copy(sql) as copy:
                        copy.set_types(kinds[table])
                        for row in found[first:last]:
                            copy.write_row(row)
            spent += time.perf_counter() - began
        db.execute("DROP SCHEMA plain CASCADE")
    return spent


def measure(
    server: PostgresServer, folder: Path, prior: int, count: int, tell: Callable[[str], None]
) -> dict[str, float]:
    url = server.database()
    found: dict[str, float] = {"prior": prior, "attempts": count}
    for name, at in (("sqlite", f"sqlite:///{folder}/{prior}.db"), ("postgres", url)):
        with closing(begun(at, folder)) as ledger:
            settle_all(ledger, attempts(100, seed=9))  # the price books are read once a process
            if prior:
                tell(f"{name}: filling {prior:,} attempts")
                fill = settle_all(ledger, attempts(prior, seed=2))
                tell(f"filled at {prior / fill:,.0f} attempts/s")
            if name == "postgres":
                with psycopg.connect(url, autocommit=True) as db:
                    db.execute("VACUUM ANALYZE")
                    before = {
                        table: db.execute(
                            f"SELECT count(*) FROM costspan.{table}".encode()
                        ).fetchone()[0]  # type: ignore[index]
                        for table in TABLES
                    }
            tell(f"{name}: settling {count:,}")
            found[name] = count / settle_all(ledger, attempts(count, seed=3, after=prior))
    tell("raw COPY")
    found["copy"] = count / raw(url, before, -(-count // BATCH))
    server.drop(url)
    return found


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--prior", type=int, nargs="*", default=[0])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.disable()  # as `costspan drain` does
    tell = (lambda _: None) if asked.json else (lambda text: print(f"  {text} …", flush=True))
    server = PostgresServer()
    try:
        server.start()
        with tempfile.TemporaryDirectory() as scratch:
            found = [
                measure(server, Path(scratch), prior, asked.attempts, tell) for prior in asked.prior
            ]
    finally:
        server.stop()
    if asked.json:
        print(json.dumps(found))
        return
    print(
        f"{'prior events':>14}{'PostgreSQL/s':>14}{'SQLite/s':>10}{'COPY/s':>10}"
        f"{'of SQLite':>11}{'of COPY':>9}"
    )
    for each in found:
        print(
            f"{each['prior']:14,.0f}{each['postgres']:14,.0f}{each['sqlite']:10,.0f}"
            f"{each['copy']:10,.0f}{each['postgres'] / each['sqlite']:11.2f}"
            f"{each['postgres'] / each['copy']:9.2f}"
        )


if __name__ == "__main__":
    main()
