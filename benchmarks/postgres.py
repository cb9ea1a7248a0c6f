"""What settlement into PostgreSQL reaches, beside SQLite and beside a raw COPY of the same rows.

    python benchmarks/postgres.py [--attempts N] [--prior N ...] [--json]

As `settle.py`: every attempt's START and its END come in different batches; what is there already
came together, which leaves the same books in half the time. The three take turns, batch by batch,
so that what else this machine does falls on all of them: SQLite settles, PostgreSQL settles, and
the rows that this left go by binary COPY into a copy of the database as it was before, which has
the same rows and indexes. Rates are by the clock, since the server works beside us; the last two
columns are the same ratios by processor time, ours and the server's (Linux): they hold on a
machine that is busy.

The server is one of our own, with the settings that are printed; SQLite syncs each commit, and it
syncs none. Nothing is kept. A million prior events take about 10 minutes and 10 GB.
"""

# ruff: noqa: S608 -- names of our own tables

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict
from workload import attempts

from costspan.conformance.ledgers.server import PostgresServer
from costspan.core import config, drain
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

BATCH = 5000
TELL_SECONDS = 10
PARENT, USER, SYSTEM = 1, 11, 12
"""Fields of /proc/PID/stat after the name of the program."""
NUMBERED_BY = {
    "journal": "id", "events": "n", "places": "n", "keys": "event", "lines": "id", "postings": "id"
}  # fmt: skip
SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}
SHOWN = (
    "server_version", *SETTINGS, "fsync", "full_page_writes", "synchronous_commit", "wal_level"
)  # fmt: skip

Pairs = list[tuple[Observation, Observation]]
Tell = Callable[[str], None]


class Spent(NamedTuple):
    """Seconds: by the clock, and of the processors."""

    clock: float = 0.0
    processor: float = 0.0

    def and_of(self, other: Spent) -> Spent:
        """Both."""
        return Spent(self.clock + other.clock, self.processor + other.processor)


class Rows(NamedTuple):
    """Rows of a table, and the types of its columns."""

    table: str
    types: list[str]
    rows: list[tuple[object, ...]]


def batches(pairs: Iterator[tuple[Observation, Observation]]) -> Iterator[Pairs]:
    while batch := list(islice(pairs, BATCH)):
        yield batch


def settle_batch(ledger: Ledger, *parts: list[Observation]) -> None:
    """Settle these, one after the other."""
    for part in parts:
        with ledger.settling(30) as settlement:
            settle(settlement, part)


def timed(server: PostgresServer, work: Callable[[], None]) -> Spent:
    """What this takes here and in the server."""
    clock, processor = time.perf_counter(), time.process_time() + served(server)
    work()
    return Spent(time.perf_counter() - clock, time.process_time() + served(server) - processor)


def served(server: PostgresServer) -> float:
    """Processor seconds of the server's processes; 0 where nobody says."""
    if not Path("/proc/self/stat").exists():
        return 0.0
    first = (server.folder / "data" / "postmaster.pid").read_text().split()[0]
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            fields = stat.read_text().rpartition(")")[2].split()
            if first in (fields[PARENT], stat.parent.name):
                ticks += int(fields[USER]) + int(fields[SYSTEM])
    return ticks / os.sysconf("SC_CLK_TCK")


def begun(url: str, folder: Path) -> Ledger:
    settings = config.load({"ledger": url, "spool": folder})
    ledger = open_url(settings.ledger_url, create=True)
    drain.bring_policy(ledger, settings, 30)
    return ledger


def fill(name: str, ledger: Ledger, prior: int, tell: Tell) -> None:
    """Settle what is there already, and say how that goes."""
    done, began, told = 0, time.monotonic(), 0.0
    for batch in batches(attempts(prior, seed=2)):
        settle_batch(ledger, [each for pair in batch for each in pair])
        done += len(batch)
        spent = time.monotonic() - began
        if spent - told > TELL_SECONDS or done == prior:
            told = spent
            tell(f"{name}: {done:,} of {prior:,} prior events, {done / spent:,.0f}/s")


class Plain:
    """A copy of the database, into which the rows go that a settlement leaves in the other."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        name = conninfo_to_dict(url)["dbname"]
        self.url = server.url(f"plain_{name}")
        with psycopg.connect(server.url("postgres"), autocommit=True) as db:
            copied = f"CREATE DATABASE plain_{name} TEMPLATE {name} STRATEGY file_copy"
            db.execute(copied.encode())
        self._source = psycopg.connect(url, autocommit=True)
        self._target = psycopg.connect(self.url, autocommit=True)
        for db in (self._source, self._target):
            db.execute("SET search_path = costspan")
        self._last: dict[str, int] = {}
        self.fresh()

    def fresh(self) -> list[Rows]:
        """What was written since the last call."""
        found: list[Rows] = []
        for table, number in NUMBERED_BY.items():
            order = "ctid" if table == "keys" else number
            sql = f"SELECT * FROM {table} WHERE {number} > %s ORDER BY {order}"
            with self._source.cursor(binary=True) as cursor:
                if table in self._last:
                    cursor.execute(sql.encode(), [self._last[table]])
                    types = [
                        self._source.adapters.types[each.type_code].name
                        for each in cursor.description or []
                    ]
                    found.append(Rows(table, types, cursor.fetchall()))
                cursor.execute(f"SELECT coalesce(max({number}), 0) FROM {table}".encode())
                self._last[table] = (cursor.fetchone() or (0,))[0]
        return found

    def copy(self, found: list[Rows]) -> None:
        """COPY them, in one transaction."""
        with self._target.transaction():
            for table, types, rows in found:
                sql = f"COPY {table} FROM STDIN (FORMAT BINARY)".encode()
                with self._target.cursor() as cursor, cursor.copy(sql) as copy:
                    copy.set_types(types)
                    for row in rows:
                        copy.write_row(row)

    def close(self) -> None:
        """Let go of both databases."""
        self._source.close()
        self._target.close()


def measure(
    server: PostgresServer, folder: Path, prior: int, count: int, tell: Tell
) -> dict[str, float]:
    url = server.database()
    urls = {"sqlite": f"sqlite:///{folder}/{prior}.db", "postgres": url}
    for name, at in urls.items():
        with closing(begun(at, folder)) as ledger:
            fill(name, ledger, prior, tell)
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("VACUUM ANALYZE")
        db.execute("CHECKPOINT")
    plain = Plain(server, url)
    spent = dict.fromkeys((*urls, "copy"), Spent())
    with (
        closing(plain),
        closing(begun(urls["sqlite"], folder)) as sqlite,
        closing(begun(url, folder)) as postgres,
    ):
        warm = [each for pair in attempts(100, seed=9, after=prior) for each in pair]
        for ledger in (sqlite, postgres):  # the price books are read once a process
            settle_batch(ledger, warm)
        plain.copy(plain.fresh())
        for batch in batches(attempts(count, seed=3, after=prior)):
            parts = [start for start, _ in batch], [end for _, end in batch]
            for name, ledger in (("sqlite", sqlite), ("postgres", postgres)):
                took = timed(server, partial(settle_batch, ledger, *parts))
                spent[name] = spent[name].and_of(took)
            took = timed(server, partial(plain.copy, plain.fresh()))
            spent["copy"] = spent["copy"].and_of(took)
            tell("  ".join(f"{name} {each.clock:.1f} s" for name, each in spent.items()))
    server.drop(plain.url)
    server.drop(url)
    rates = {name: count / each.clock for name, each in spent.items()}
    work = {f"{name}_processor": count / each.processor for name, each in spent.items()}
    return {"prior": prior, "attempts": count, **rates, **work}


def settings_of(server: PostgresServer) -> dict[str, str]:
    with psycopg.connect(server.url("postgres")) as db:
        shown = {name: db.execute(f"SHOW {name}".encode()).fetchone() for name in SHOWN}
    return {name: str(row and row[0]) for name, row in shown.items()}


def main() -> None:
    """Print one table; how it goes is said on stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--attempts", type=int, default=20_000)
    parser.add_argument("--prior", type=int, nargs="*", default=[0])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    gc.disable()  # as `costspan drain` does

    def tell(text: str) -> None:
        print(f"  {text}", file=sys.stderr, flush=True)

    with PostgresServer(**SETTINGS) as server:
        settings = settings_of(server)
        with tempfile.TemporaryDirectory() as scratch:
            found = [
                measure(server, Path(scratch), prior, asked.attempts, tell) for prior in asked.prior
            ]
    if asked.json:
        print(json.dumps({"settings": settings, "found": found}))
        return
    print("  ".join(f"{name}={value}" for name, value in settings.items()))
    print(
        f"{'prior events':>14}{'PostgreSQL/s':>14}{'SQLite/s':>10}{'COPY/s':>10}"
        f"{'of SQLite':>11}{'of COPY':>9}{'by processor: of SQLite':>25}{'of COPY':>9}"
    )
    for each in found:
        ratios = [
            each["postgres" + kind] / each[name + kind]
            for kind in ("", "_processor")
            for name in ("sqlite", "copy")
        ]
        print(
            f"{each['prior']:14,.0f}{each['postgres']:14,.0f}{each['sqlite']:10,.0f}"
            f"{each['copy']:10,.0f}{ratios[0]:11.2f}{ratios[1]:9.2f}{ratios[2]:25.2f}"
            f"{ratios[3]:9.2f}"
        )


if __name__ == "__main__":
    main()
