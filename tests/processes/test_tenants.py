"""As many tenants as there are: memory follows neither them nor their events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from books_check import costspan_said, doctor
from calls import configure
from children import peak_kilobytes, run

import costspan
from costspan.core import runtime
from costspan.core.journal import spool
from costspan.core.recorder import Ack

RATIO_MAX = 1.2
CACHE_BYTES_MAX = 64 * 1024 * 1024
"""SQLite keeps so much of a ledger in memory at most; a small one whole."""
RECORDS_A_SEGMENT = 1500


def part_record_and_settle(folder: str, tenants: int) -> dict[str, Any]:
    """One call for each of so many tenants, and a settlement of them all."""
    configure(folder)
    acked = 0
    for number in range(tenants):
        said = costspan.record(
            {
                "attempt_id": f"call-{number:08d}",
                "phase": "end",
                "tenant": f"tenant-{number:08d}",
                "tenant_source": "context",
                "provider_result": "ok",
                "flat_cost": "0.001",
                "usage": {"input": 7},
            }
        )
        acked += isinstance(said, Ack)
        if number % RECORDS_A_SEGMENT == 0:
            runtime.recorder().rotate()  # a segment is read whole: of two runs, alike
    recorded = peak_kilobytes()
    costspan.flush()
    return {"acked": acked, "recorded": recorded, "settled": peak_kilobytes()}


@pytest.mark.timeout(7200)
def test_memory_does_not_follow_the_tenants(tmp_path: Path, is_full: bool) -> None:
    tenants = 1_000_000 if is_full else 24_000
    said = {}
    for part in (1, 4):
        folder = tmp_path / str(part)
        folder.mkdir()
        said[part] = run(part_record_and_settle, folder, tenants * part // 4, seconds=7200)
        assert said[part]["acked"] == tenants * part // 4
        said[part]["cached"] = min(CACHE_BYTES_MAX, (folder / "ledger.db").stat().st_size) // 1024
    print(said)
    assert said[4]["recorded"] < RATIO_MAX * said[1]["recorded"]
    cached = said[4]["cached"] - said[1]["cached"]
    assert said[4]["settled"] < RATIO_MAX * said[1]["settled"] + cached
    folder = tmp_path / "4"
    assert spool.segments(folder / "spool") == []
    with costspan.open_ledger(folder / "ledger.db") as books:
        rolled = {each.line.owner: (each.cost, each.events) for each in books.ledger.roll_ups()}
        assert len(rolled) == tenants
        assert set(rolled.values()) == {(10**9, 1)}
        assert books.is_balanced()
    assert "not_balanced" not in doctor(folder)
    report = costspan_said(folder, "report", "--by", "tenant")
    assert len(report["rows"]) == tenants
