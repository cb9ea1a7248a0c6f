"""`costspan doctor`: every writer, with its lag, its gaps, its refusals and what waits of it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from doctor_desk import findings_of, tell

import costspan
from costspan.core import runtime
from costspan.core.journal import records
from costspan.core.ledger_urls import shown_url

OLDER = next((Path(__file__).parents[1] / "journal" / "golden").glob("*.seg"))
"""A segment of a version that did not tell its host."""
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


def test_where_a_writer_runs(empty: Desk) -> None:
    """From its first record on: in the spool, in the ledger, where it counted nothing."""
    costspan.configure(ledger=empty.ledger, spool=empty.spool, spool_beside="off", background=False)
    costspan.record({"tenant": "acme", "flat_cost": "1"})
    name = runtime.recorder().writer
    here = (os.uname().nodename, os.getpid())
    for step in ("live", "waiting", "drained"):
        writer = _writers(empty)[name]
        assert (writer["host"], writer["pid"]) == here, step
        line = _line(empty, name)
        assert line[1:3] == [here[0], str(here[1])], step
        if step == "live":
            runtime.recorder().rotate()
        elif step == "waiting":
            empty.run("drain")


def test_a_gap_names_its_machine(empty: Desk) -> None:
    empty.ingest([{"writer": "gap", "seq": n, "attempt_id": f"g{n}", **OK} for n in (1, 2, 5)])
    assert _where(_writers(empty)["gap"]) == (None, None)
    assert _line(empty, "gap")[1:3] == ["unknown", "unknown"]
    assert "most of gap (host unknown, pid unknown): 2" in findings_of(empty)["gaps"]["what"]
    tell(empty, records.Opened("gap", 4242, 1, "web-7\x1b[2J"))
    assert _where(_writers(empty)["gap"]) == ("web-7�[2J", 4242)
    assert _line(empty, "gap")[1:3] == ["web-7�[2J", "4242"]
    assert "most of gap (host web-7�[2J, pid 4242): 2" in findings_of(empty)["gaps"]["what"]
    checks = findings_of(empty)
    assert "refused" not in checks
    assert "counted" not in checks


def test_a_writer_of_an_older_version(empty: Desk) -> None:
    """It said its pid and no host, while it waited; it is no refusal, and nothing is guessed."""
    empty.spool.mkdir()
    name = OLDER.name.split("-")[1]
    shutil.copy(OLDER, empty.spool / f"{OLDER.name.removesuffix('.v1.seg')}.seg")
    for _ in ("waiting", "drained"):
        assert _where(_writers(empty)[name]) == (None, 4242)
        assert _line(empty, name)[1:3] == ["unknown", "4242"]
        empty.run("drain")
    assert _writers(empty)[name]["refused"] == {"disk:28": 3}


def test_on_a_narrow_terminal(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a column says of nobody needs no room, so that the id and the host have it."""
    writer, host = "0123456789abcdef" * 2, "checkout-7d9f8b"
    empty.ingest([{"writer": writer, "seq": 1, "attempt_id": "a", **OK}])
    tell(empty, records.Opened(writer, 4242, 1, host))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    said = empty.run("doctor", "--quick").out
    heads = next(line for line in said.splitlines() if line.startswith("writer "))
    assert heads.split() == ["writer", "host", "pid", "last", "record", "records"]
    assert next(line.split()[1:3] for line in said.splitlines() if writer in line) == [host, "4242"]


def _where(writer: dict[str, Any]) -> tuple[str | None, int | None]:
    return writer["host"], writer["pid"]


def _line(desk: Desk, writer: str) -> list[str]:
    """The cells of a writer's line."""
    lines = desk.run("doctor", "--quick").out.splitlines()
    return next(line.split() for line in lines if line.startswith(writer))


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
