"""Many rows, twice, in any order, in pieces, interrupted: the same books, on every ledger.

`COSTSPAN_BACKFILL_ROWS=100000` makes it the long run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from desk import Desk
from exports import books, causes_of, ndjson
from table import fill

from costspan.core.config import load
from costspan.core.ledger_errors import LedgerError
from costspan.core.settle.ledger import open_url

Row = dict[str, Any]
ROWS = int(os.environ.get("COSTSPAN_BACKFILL_ROWS", "1000"))
_KILLED_ROWS = 800
_BIT_BY_BIT = """
import sys
from costspan.cli import backfill, main
backfill.RECORDS_PER_SETTLEMENT = 100
sys.exit(main(sys.argv[1:]))
"""
_MEGABYTES_MAX = 300
_MEASURED = """
import re, sys
from pathlib import Path
from costspan.cli import main
code = main(sys.argv[1:])
status = Path("/proc/self/status")  # getrusage would count what the parent had at the fork
peak = re.search(r"VmHWM:\\s*(\\d+)", status.read_text()) if status.exists() else None
print(int(peak[1]) // 1024 if peak else 0, file=sys.stderr)
sys.exit(code)
"""


def many(rows: list[Row], number_of: int = ROWS) -> list[Row]:
    """LiteLLM's own rows again and again, with ids, teams, times and amounts of their own."""
    random = Random(6)
    began = datetime(2025, 11, 1, tzinfo=UTC)
    made: list[Row] = []
    for number in range(number_of):
        row = dict(random.choice(rows[:-1]))  # the last is no call: the proxy refused it
        metadata = json.loads(row["metadata"])
        # As it was; as versions that lost it recorded it; and with a margin.
        row["spend"] *= random.choice([1, 1, 0, 1.5])
        started = began + timedelta(seconds=random.randrange(365 * 86_400))
        made.append(
            row
            | {
                "request_id": f"chatcmpl-{number}",
                "litellm_call_id": f"call-{number}" if number % 3 else None,
                "team_id": random.choice(["acme", "globex", "initech", ""]),
                "startTime": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "endTime": (started + timedelta(seconds=1)).isoformat(timespec="milliseconds"),
                "completionStartTime": None,
                "metadata": json.dumps({**metadata, "litellm_call_id": None}),
            }
        )
    return made


def ingest(desk: Desk, source: object, *options: object) -> Any:
    ran = desk.run("ingest", "litellm-spendlogs", source, "--json", *options)
    assert ran.code == 0, ran.err
    return ran.json


def pico(amount: str) -> int:
    return int(amount.replace(".", ""))


def test_twice_is_once_and_the_causes_are_the_whole_difference(desk: Desk, rows: list[Row]) -> None:
    path = ndjson(desk.folder / "many.ndjson", many(rows))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "ingest", "litellm-spendlogs", str(path), "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    first = json.loads(done.stdout)
    assert (first["rows"], first["new"], first["rejected"]) == (ROWS, ROWS, [])
    # However many rows: what a run holds is a settlement's worth.
    assert int(done.stderr.split()[-1]) < _MEGABYTES_MAX
    assert first["unmatched"] == []
    before = books(desk)
    again = ingest(desk, path)
    assert (again["new"], again["duplicates"], again["conflicts"]) == (0, ROWS, 0)
    assert again["settled"]["postings"] == 0
    told = ("differences", "owners", "places", "unattributed", "totals")
    assert [again[each] for each in told] == [first[each] for each in told]
    assert books(desk) == before
    for parts in ("differences", "owners"):
        for name in ("theirs", "ours", "difference"):
            whole = pico(first["totals"][name])
            assert sum(pico(each[name]) for each in first[parts]) == whole, (parts, name)
        assert sum(each["rows"] for each in first[parts]) == ROWS
    assert "price" not in causes_of(first)  # nothing is left that has no cause of its own
    said = desk.run("ingest", "litellm-spendlogs", path).out
    assert f"nothing new: {ROWS:,} in the ledger already" in said


def test_any_order_and_any_pieces_are_the_same_books(
    any_ledger: Desk, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, made = any_ledger, many(rows, 600)
    whole = ingest(desk, ndjson(tmp_path / "whole.ndjson", made))
    before = books(desk)
    # Other books: in another order, in three pieces that overlap.
    monkeypatch.setenv("COSTSPAN_LEDGER", str(tmp_path / "pieces.db"))
    shuffled = Random(7).sample(made, len(made))
    new = [
        ingest(desk, ndjson(tmp_path / "piece.ndjson", shuffled[start:end]))["new"]
        for start, end in ((300, 600), (0, 350), (200, 600))
    ]
    assert new == [300, 300, 0]
    assert books(desk) == before
    last = ingest(desk, ndjson(tmp_path / "again.ndjson", shuffled))
    told = ("differences", "owners", "unattributed", "totals")
    assert [last[each] for each in told] == [whole[each] for each in told]


def test_killed_in_the_middle_and_started_again(
    any_ledger: Desk, rows: list[Row], tmp_path: Path
) -> None:
    made = many(rows, _KILLED_ROWS)
    path = ndjson(tmp_path / "whole.ndjson", made)
    command = [sys.executable, "-c", _BIT_BY_BIT, "ingest", "litellm-spendlogs", str(path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not _events():
        time.sleep(0.02)  # until the first settlement is in the books
    process.kill()
    assert process.wait() == -signal.SIGKILL
    ran = ingest(any_ledger, path)
    assert ran["new"] + ran["duplicates"] == _KILLED_ROWS
    assert ran["new"] > 0
    assert ran["duplicates"] > 0
    again = ingest(any_ledger, path)
    assert again["new"] == 0
    assert again["totals"] == ran["totals"]
    assert sum(each["rows"] for each in again["differences"]) == _KILLED_ROWS


def _events() -> int:
    """How many events the books have; none while there are no books."""
    try:
        ledger = open_url(load().ledger_url, create=False)
    except LedgerError:
        return 0
    try:
        return ledger.counts("events")["events"]
    finally:
        ledger.close()


def test_from_its_own_table_into_its_own_database(
    desk: Desk, rows: list[Row], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = many(rows, min(ROWS, 500))
    url = server.database()
    fill(url, made)
    assert ingest(desk, url)["new"] == len(made)
    before = books(desk)
    monkeypatch.setenv("COSTSPAN_LEDGER", f"{url}&schema=books")
    assert ingest(desk, url)["new"] == len(made)
    assert books(desk) == before
    server.drop(url)
