"""`costspan doctor`: every writer, with its lag, its gaps, its refusals and what waits of it."""

from __future__ import annotations

import time
from typing import Any

from desk import Desk
from doctor_desk import tell

import costspan
from costspan.core import runtime
from costspan.core.journal import records
from costspan.core.ledger_urls import shown_url

HOUR_NS = 3600 * 10**9
OK: dict[str, Any] = {
    "tenant": "acme",
    "executed_model": "gpt-4o",
    "usage": {"input": 1000},
    "provider_result": "ok",
}


def _writers(desk: Desk) -> dict[str, dict[str, Any]]:
    found = desk.run("doctor", "--json", "--quick").json["writers"]
    assert len({each["writer"] for each in found}) == len(found)
    return {each["writer"]: each for each in found}


def test_lag_gaps_and_refusals(empty: Desk) -> None:
    now = time.time_ns()
    old = {**OK, "ended_at": now - 3 * HOUR_NS}
    empty.ingest(
        [
            *({"writer": "full", "seq": n, "attempt_id": f"f{n}", **old} for n in (1, 2)),
            # The last says no time: the one before it does.
            {"writer": "full", "seq": 3, "attempt_id": "f3", **OK},
            *({"writer": "gap", "seq": n, "attempt_id": f"g{n}", **OK} for n in (1, 2, 5)),
            {"writer": "ahead", "seq": 1, "attempt_id": "a", **OK, "ended_at": now + 2 * HOUR_NS},
        ]
    )
    tell(
        empty,
        records.Refusals("gap", {"disk:28": 4}, 0),
        records.Counts("gap", {"refused:disk:28": 3, "refused:too_large": 1, "other": 9}, 0),
        records.Refusals("never", {"disk:28": 1}, 0),
    )
    found = _writers(empty)
    full, gap, never = found["full"], found["gap"], found["never"]
    assert (full["records"], full["missing"], full["refused"]) == (3, 0, {})
    assert 3 * 3600 <= full["lag_seconds"] < 4 * 3600
    assert found["ahead"]["lag_seconds"] == 0
    assert (gap["records"], gap["greatest"], gap["missing"]) == (3, 5, 2)
    assert (gap["lag_seconds"], gap["last_at"]) == (None, None)
    assert gap["refused"] == {"disk:28": 4, "too_large": 1}
    assert (never["records"], never["refused"]) == (0, {"disk:28": 1})
    said = empty.run("doctor").out
    assert "writers: 0 live here, 2 with gaps or refusals" in said
    first, second, third, *_ = said[said.index("last record") :].splitlines()[1:]
    assert {first.split()[0], second.split()[0]} == {"gap", "never"}
    assert third.startswith("ahead")
    assert "3 hours ago" in said


def test_what_a_writer_has_in_the_spool(empty: Desk) -> None:
    costspan.configure(ledger=empty.ledger, spool=empty.spool, spool_beside="off", background=False)
    costspan.record({"tenant": "acme", "flat_cost": "1"})
    name = runtime.recorder().writer
    writer = _writers(empty)[name]
    assert (writer["live"], writer["waiting"], writer["records"]) == (1, 0, 0)
    runtime.recorder().rotate()
    writer = _writers(empty)[name]
    assert (writer["live"], writer["waiting"]) == (0, 1)
    empty.run("drain")
    writer = _writers(empty)[name]
    assert (writer["waiting"], writer["records"]) == (0, 1)


def test_more_writers_than_anybody_reads(empty: Desk) -> None:
    lines = [
        {"writer": f"w{n:03}", "seq": 1, "attempt_id": f"a{n}", **OK, "ended_at": n}
        for n in range(1, 600)
    ]
    empty.ingest([*lines, {"writer": "w000", "seq": 2, "attempt_id": "a0", **OK}])
    assert len(_writers(empty)) == 600
    said = empty.run("doctor", "--quick").out
    assert "600 writers: 0 live here, 1 with gaps or refusals" in said
    assert "and 588 more: doctor --json has them all" in said
    assert "w000" in said
    assert "w599" in said
    assert "w001" not in said


def test_a_ledger_that_is_reached(empty: Desk) -> None:
    assert empty.run("doctor", "--json").json["is_reached"]
    empty.ledger.unlink()
    empty.ledger.mkdir()
    assert not empty.run("doctor", "--json").json["is_reached"]


def test_no_password_is_shown() -> None:
    url = "postgresql://me:se-cret@db/x?sslpassword=se-cret&sslmode=require&schema=s"
    assert shown_url(url) == "postgresql://me@db/x?sslmode=require&schema=s"
    assert shown_url("sqlite:///a/b?c.db") == "sqlite:///a/b?c.db"
    assert "se-cret" not in shown_url("postgresql://me:se-cret@[db/x")
