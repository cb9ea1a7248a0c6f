"""Freeze the tables of this version, with books in them, for the tests of every later one.

    python tests/ledgers/freeze.py            # at a release: what is frozen already stays
    python tests/ledgers/freeze.py --again    # before it: the tables were changed in place

Writes released/KIND-VERSION.sql, which makes the ledger, and KIND-VERSION.json, what its readers
are answered. PostgreSQL's is made by pg_dump of the older of the servers that pip installs: its
statements are understood by all that costspan supports. A version that was released is never
frozen again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "verify"))
os.environ.setdefault("COSTSPAN_TEST_POSTGRES", "16")

from full_books import full

from costspan.conformance.ledgers.server import PostgresServer
from costspan.core.rebuild import nets
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers.postgres import migrations
from costspan.plugins.ledgers.sqlite import store

FOLDER = Path(__file__).parent / "released"
VERSIONS = {"postgres": migrations.SCHEMA_VERSION, "sqlite": int(store.SCHEMA_VERSION)}
"""Those of today."""
_ONLY_NEWER = ("SET transaction_timeout",)


def answers(ledger: Ledger) -> dict[str, Any]:
    """What later versions must answer, whatever they keep it in."""
    return {
        "nets": sorted([*key, *amounts] for key, amounts in nets(ledger).items()),
        "counts": ledger.counts(),
        "events": [
            [
                each.event.id,
                *sorted([line.owner, line.bucket, sum_.cost] for line, sum_ in each.posted),
            ]
            for each in ledger.events()
        ],
        "observations": sorted(each.oid or "" for each in ledger.journal()),
        "closes": [close.period for close in ledger.closes()],
        "controls": len(ledger.controls()),
        "problems": sorted(map(list, ledger.problems())),
        "cursors": ledger.cursors(),
        "writers": [list(each) for each in ledger.writers()],
        "invoices": [each.id for each in ledger.invoices.invoices()],
    }


def of_postgres(folder: Path) -> tuple[str, dict[str, Any]]:
    """(statements, answers) of a ledger in the schema `costspan`."""
    with PostgresServer() as server:
        url = server.database()
        with closing(full(url)) as ledger:  # type: ignore[arg-type]
            said = answers(ledger)
        command = [
            server.program("pg_dump"), "--inserts", "--no-owner",
            "--no-privileges", "--no-comments", "--schema=costspan", url,
        ]  # fmt: skip
        dumped = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return "\n".join(_portable(dumped)), said


def _portable(dumped: str) -> Iterator[str]:
    """Without what psql alone understands, nor what says which server it was."""
    for line in dumped.splitlines():
        if line and not line.startswith(("--", "\\", *_ONLY_NEWER)):
            yield line


def of_sqlite(folder: Path) -> tuple[str, dict[str, Any]]:
    """(statements, answers) of a ledger in a file."""
    path = folder / "books.db"
    with closing(full(path)) as ledger:
        said = answers(ledger)
    with closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump()), said


def main(arguments: list[str]) -> int:
    """Freeze both kinds."""
    FOLDER.mkdir(exist_ok=True)
    for kind, made in (("postgres", of_postgres), ("sqlite", of_sqlite)):
        name = f"{kind}-{VERSIONS[kind]:04}"
        path = FOLDER / f"{name}.sql"
        if path.exists() and "--again" not in arguments:
            print(f"{path} is frozen")
            continue
        with tempfile.TemporaryDirectory() as folder:
            statements, said = made(Path(folder))
        path.write_text(statements + "\n", encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        print(f"froze {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
