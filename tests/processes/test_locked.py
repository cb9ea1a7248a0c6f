"""A ledger that cannot be had: locked by another, no ledger at all, behind a dead sink.

Recording goes on as ever, nothing grows but the spool, and in the end all is settled.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from books_check import check, costspan_said, doctor
from calls import call, configure
from children import peak_kilobytes, run, say, start, until
from hosts import Host, has_failed_drains, wait_to_be_told

import costspan
from costspan.core import counters, runtime
from costspan.core.journal import spool

LOCKED_SECONDS_FULL = 30
CALLS = 200


def part_host(folder: str) -> dict[str, Any]:
    """A host with an impatient background, told by lines when to go on.

    It records while the ledger is locked until the drain has failed, and then until it is told
    that the ledger is free; then it waits for its own background to settle everything.
    """
    configure(folder, background=True)
    say("recording")
    number = failed = 0
    while not failed:
        say(call(number := number + 1))
        time.sleep(0.001)
        failed = has_failed_drains()
    wait_to_be_told("failed")
    for _ in range(CALLS):
        say(call(number := number + 1))
    wait_to_be_told("free")
    runtime.recorder().rotate()
    until(lambda: not spool.segments(Path(folder) / "spool"), "the background to settle")
    return {"failed_drains": has_failed_drains(), "counters": counters.snapshot()}


@pytest.mark.timeout(300)
def test_a_ledger_that_another_process_locks(tmp_path: Path, is_full: bool) -> None:
    configure(tmp_path)
    acked = [str(call(0))]
    costspan.flush()
    # This process is the one that holds the lock: the host is another.
    with closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        locked_at = time.monotonic()
        with start(part_host, tmp_path) as process:
            host = Host(process)
            host.reaches("recording")
            acked += host.reaches("failed")
            if is_full:
                until(lambda: time.monotonic() - locked_at > LOCKED_SECONDS_FULL, "the time")
            host.go_on()
            acked += host.reaches("free")
            assert holder.execute("SELECT count(*) FROM events").fetchone() == (1,)
            holder.execute("ROLLBACK")
            host.go_on()
            answer = host.answer()
    print(answer)
    assert not any(name.startswith(("refused", "held")) for name in answer["counters"])
    assert len(acked) > CALLS
    with costspan.open_ledger(tmp_path / "ledger.db") as books:
        settled = books.ledger.counts()["events"]
    assert settled == len(acked), "settled by the host itself, before anybody else drained"
    assert check(tmp_path, acked).problems == []


def part_no_ledger(folder: str, events: int) -> dict[str, Any]:
    """Record so many calls beside a ledger that cannot be opened; how much memory that took."""
    configure(folder, background=True)
    acked = sum(call(number) is not None for number in range(events))
    until(lambda: has_failed_drains() > 0, "a drain to fail")
    return {"acked": acked, "memory": peak_kilobytes(), "counters": counters.snapshot()}


@pytest.mark.timeout(3600)
def test_a_ledger_that_cannot_be_opened(tmp_path: Path, is_full: bool) -> None:
    events = 500_000 if is_full else 12_000  # a call is two records
    said = {}
    for part in (1, 4):
        folder = tmp_path / str(part)
        folder.mkdir()
        (folder / "ledger.db").write_bytes(b"no books " * 1000)
        said[part] = run(part_no_ledger, folder, events * part // 4, seconds=1800)
        assert said[part]["acked"] == events * part // 4
        assert not any(name.startswith("refused") for name in said[part]["counters"])
    print({part: each["memory"] for part, each in said.items()}, said[4]["counters"])
    assert said[4]["memory"] < 1.3 * said[1]["memory"], "memory follows the events"
    folder = tmp_path / ("4" if is_full else "1")
    found = doctor(folder)
    assert found["ledger_unusable"]["severity"] == "error"
    assert found["undrained"]["count"] == len(spool.segments(folder / "spool"))
    (folder / "ledger.db").unlink()
    drained = costspan_said(folder, "drain")
    calls = said[int(folder.name)]["acked"]
    assert drained["settled"]["observations"] == 2 * calls
    with costspan.open_ledger(folder / "ledger.db") as books:
        counts = books.ledger.counts()
        assert (counts["events"], counts["open"]) == (calls, 0)
        assert books.is_balanced()
        assert all(last == kept for _, last, kept in books.ledger.writers())
    assert spool.segments(folder / "spool") == []
