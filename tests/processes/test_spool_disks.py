"""Disks that are full or take no writes, under the spool: the host sees no error.

What was acknowledged is in the books once; what was held in memory is, once there is room again;
what was refused is counted, and `costspan doctor` says how much that was.
"""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest
from books_check import costspan_said, doctor
from calls import configure
from children import start, until
from disks import small_disk
from hosts import Host, Told, check_told, wait_to_be_told

from costspan.core import counters, runtime

RECORDS = 1500
RING = 10_000
RECORDS_OVER_THE_RING = 11_500
AFTERWARDS = 50
MIB = 1024 * 1024


def part_full_spool(folder: str, beside: bool, records: int, limit: int | None) -> dict[str, Any]:
    """Record until the disk is full and on; and when there is room again."""
    configure(folder, beside=beside)
    told = Told()
    told.record(AFTERWARDS)  # a segment is open
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    told.record(records)
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    wait_to_be_told("full")
    runtime.recorder().rotate()  # what is held is tried now, not after a pause
    until(lambda: is_taken_by_the_spool(told), "the spool to be tried again")
    told.record(AFTERWARDS)
    return told.plain()


def is_taken_by_the_spool(told: Told) -> bool:
    """Whether one more record goes where all should."""
    names = ("ladder:beside", "ladder:held")
    before = [counters.snapshot().get(name) for name in names]
    told.record(1)
    return before == [counters.snapshot().get(name) for name in names]


@pytest.mark.parametrize("beside", [True, False], ids=["a folder beside", "memory alone"])
def test_a_full_disk_under_the_spool(folder: Path, beside: bool) -> None:
    records = RECORDS if beside else RECORDS_OVER_THE_RING
    with small_disk(folder / "spool", "8m") as disk:
        disk.reserve(8 * MIB - MIB // 8)
        with start(part_full_spool, folder, beside, records, None) as process:
            host = Host(process)
            host.reaches("full")
            places = costspan_said(folder, "doctor", codes=(0, 1))["spools"]
            disk.free()
            host.go_on()
            told = host.answer()
        print({kind: len(told[kind]) for kind in ("Ack", "Held", "Refused")}, told["counters"])
        found = check_told(folder, told)
    live = {Path(each["folder"]).name: each["live"] for each in places}
    assert found["breaker"]["severity"] == "warning"
    if beside:
        assert live == {"spool": 1, "beside": 1}
        assert told["Held"] == told["Refused"] == []
        assert found["ladder_beside"]["count"] == told["counters"]["ladder:beside"] > 0
    else:
        assert len(told["Held"]) == found["ladder_held"]["count"] >= RING
        assert len(told["Refused"]) > 0
        assert set(told["reasons"]) == {"disk:28"}
    last = told["Ack"][-1]
    assert told["Ack"][-AFTERWARDS:] == list(range(last - AFTERWARDS + 1, last + 1))
    assert last > records


def test_doctor_sees_that_the_disk_is_full(folder: Path) -> None:
    with small_disk(folder / "spool", "256k") as disk:
        disk.fill()
        found = doctor(folder)
        assert any("room" in each["what"] or "full" in each["what"] for each in found.values())


@pytest.mark.parametrize("beside", [True, False], ids=["a folder beside", "memory alone"])
def test_a_limit_on_the_size_of_files(folder: Path, beside: bool) -> None:
    with start(part_full_spool, folder, beside, RECORDS, 20) as process:
        host = Host(process)
        host.reaches("full")
        host.go_on()
        told = host.answer()
    check_told(folder, told)
    assert len(told["Held"]) == RECORDS
    assert set(told["reasons"]) == {"disk:27"}


def part_read_only(folder: str, beside: bool) -> dict[str, Any]:
    """Record into a folder that takes no file, from the first record on."""
    configure(folder, beside=beside)
    told = Told()
    told.record(RECORDS)
    wait_to_be_told("recorded")
    runtime.recorder().rotate()
    told.record(AFTERWARDS)
    return told.plain()


@pytest.mark.parametrize("beside", [True, False], ids=["a folder beside", "memory alone"])
def test_a_spool_on_a_read_only_disk(folder: Path, beside: bool) -> None:
    with small_disk(folder / "spool", "1m") as disk:
        disk.make_read_only()
        with start(part_read_only, folder, beside) as process:
            host = Host(process)
            host.reaches("recorded")
            found = doctor(folder)
            disk.make_read_only(is_read_only=False)
            host.go_on()
            told = host.answer()
        assert found["spool_unusable"]["severity"] == "error"
        check_told(folder, told)
    assert len(told["Ack"]) == AFTERWARDS + RECORDS * beside
    assert len(told["Held"]) == RECORDS * (not beside)
    assert set(told["reasons"]) == set() if beside else {"disk:30"}
