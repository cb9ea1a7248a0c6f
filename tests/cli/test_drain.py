"""`costspan drain` and `costspan rebuild`."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from desk import Desk

import costspan
from costspan.core import runtime
from costspan.core.journal import spool
from costspan.core.journal.frames import MAGIC, OBSERVATION, frame


def _record(desk: Desk, folder: Path, times: int = 1) -> None:
    costspan.configure(ledger=desk.ledger, spool=folder, background=False)
    for _ in range(times):
        costspan.record({"tenant": "acme", "flat_cost": "0.5"})
    runtime.recorder().rotate()


def test_drain(empty: Desk) -> None:
    _record(empty, empty.spool, 3)
    ran = empty.run("drain")
    assert ran.code == 0
    assert "drained 1 segment: 3 new observations, 3 events decided, 3 postings" in ran.out
    assert empty.run("report", "--json").json["totals"]["cost"] == "1.500000000000"
    assert "drained 0 segments" in empty.run("drain").out


def test_several_spools(empty: Desk, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        _record(empty, folder)
    ran = empty.run("drain", "--spool", folders[0], folders[1], "--spool", folders[2], "--json")
    assert ran.json["segments"] == 3
    assert ran.json["settled"]["observations"] == 3
    assert str(empty.ledger) in ran.err
    assert not any(spool.segments(folder) for folder in folders)


def test_a_spool_that_does_not_exist(empty: Desk) -> None:
    ran = empty.run("drain", "--spool", empty.folder / "nowhere")
    assert ran.code == 2
    assert "no such folder" in ran.err
    ran = empty.run("drain", "--spool", empty.ledger)
    assert ran.code == 2
    assert f"{empty.ledger}: it is no folder" in ran.err


def test_a_torn_tail_is_put_aside_and_said(empty: Desk) -> None:
    _record(empty, empty.spool, 2)
    (segment,) = spool.segments(empty.spool)
    with spool.claim(segment) as content:
        assert content is not None
    # What this process counted may come last: it is the second observation that is to be torn.
    seen = [payload for payload in content.payloads if payload[0] == OBSERVATION]
    segment.write_bytes((MAGIC + b"".join(map(frame, seen)))[:-3])
    ran = empty.run("drain")
    assert "1 new observation," in ran.out
    assert "1 torn tail put into quarantine" in ran.out


def test_a_live_writer_keeps_its_segment(empty: Desk) -> None:
    costspan.configure(ledger=empty.ledger, spool=empty.spool, background=False)
    costspan.record({"tenant": "acme", "flat_cost": "0.5"})
    assert "1 segment still held by live writers" in empty.run("drain").out
    runtime.recorder().rotate()


def test_a_ledger_that_somebody_else_settles(empty: Desk) -> None:
    _record(empty, empty.spool)
    other = sqlite3.connect(empty.ledger, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ran = empty.run("drain", "--wait", 0)
    assert ran.code == 4
    assert "being settled by another process" in ran.err
    assert "the records stay in the spool" in ran.err
    assert len(spool.segments(empty.spool)) == 1
    other.execute("ROLLBACK")
    other.close()
    assert "drained 1 segment" in empty.run("drain").out


def test_a_call_that_never_ended_is_swept_and_comes_back(empty: Desk) -> None:
    start: dict[str, Any] = {
        "attempt_id": "a1",
        "phase": "start",
        "requested_model": "gpt-4o",
        "tenant": "acme",
    }
    start["started_at"] = time.time_ns()
    empty.ingest([start])
    assert "swept" not in empty.run("drain", "--sweep-older", 10**6).out
    ran = empty.run("drain", "--sweep-older", 0)
    assert ran.code == 0
    assert "1 swept: started, never ended" in ran.out
    assert "swept: 1 started, never ended (unknown" in empty.run("report").out
    assert empty.run("report", "--json").json["totals"]["swept"] == 1
    assert "nobody saw it end" in empty.run("report", "--unpriced").out
    assert empty.run("drain", "--sweep-older", 0, "--json").json["swept"] == 0
    before = empty.run("report", "--json").json
    assert empty.run("rebuild").code == 0
    assert empty.run("report", "--json").json == before
    empty.ingest([{**start, "phase": "end", "provider_result": "ok", "usage": {"input": 1000}}])
    totals = empty.run("report", "--json").json["totals"]
    assert (totals["swept"], totals["cost"]) == (0, "0.002500000000")


def test_a_time_below_nothing(empty: Desk) -> None:
    ran = empty.run("drain", "--sweep-older", -1)
    assert ran.code == 2
    assert "0 or more seconds" in ran.err


def test_rebuild_gives_the_same_books(shop: Desk) -> None:
    before = shop.run("report", "--json").json
    ran = shop.run("rebuild")
    assert ran.code == 0
    assert "comes to the same sums" in ran.out
    assert shop.run("report", "--json").json == before


def test_rebuild_refuses_books_that_differ(shop: Desk) -> None:
    with sqlite3.connect(shop.ledger) as connection:
        connection.execute("UPDATE lines SET cost_usd = cost_usd + 1 WHERE owner = 'globex'")
    connection.close()
    ran = shop.run("rebuild")
    assert ran.code == 1
    assert "globex direct 2026-10: was (1007000000000, 7000000000)" in ran.out
    assert "The old books stay" in ran.out
    assert shop.run("doctor").code == 1


def test_rebuild_without_a_ledger(desk: Desk) -> None:
    ran = desk.run("rebuild")
    assert ran.code == 3
    assert not desk.ledger.exists()
