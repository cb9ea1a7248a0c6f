"""A ledger that cannot be written: recording goes on, and all is settled once it can be."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from books_check import doctor
from calls import configure
from children import run, start, until
from disks import SmallDisk, small_disk
from hosts import Host, Told, check_told, has_failed_drains, wait_to_be_told

import costspan
from costspan.core import runtime
from costspan.core.journal import spool
from costspan.core.ledger_errors import LedgerError

RECORDS = 1000
AFTERWARDS = 50


def part_ledger_in_trouble(folder: str) -> dict[str, Any]:
    """Record beside a ledger that takes nothing, and settle in the background when it does."""
    configure(folder, background=True)
    told = Told()
    wait_to_be_told("no room")
    told.record(RECORDS)
    until(has_failed_drains, "a drain to fail")
    try:
        costspan.flush(timeout=1.0)
    except LedgerError as error:
        raised = str(error)
    wait_to_be_told("failed")
    told.record(AFTERWARDS)
    runtime.recorder().rotate()
    until(lambda: not spool.segments(runtime.settings().spool), "the background to settle")
    return {**told.plain(), "raised": raised}


def part_limited(folder: str) -> dict[str, Any]:
    """The same, of a process that may write no file as large as the ledger."""
    configure(folder)
    told = Told()
    costspan.flush()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    size_bytes = (Path(folder) / "ledger.db").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes // 2, hard))
    told.record(RECORDS)
    try:
        costspan.flush()
    except LedgerError as error:
        raised = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    told.record(AFTERWARDS)
    return {**told.plain(), "raised": raised}


def test_a_limit_on_the_size_of_files(folder: Path) -> None:
    told = run(part_limited, folder)
    assert len(told["Ack"]) == RECORDS + AFTERWARDS
    assert "ledger" in told["raised"]
    check_told(folder, told)


def _damage(disk: SmallDisk, ledger: Path) -> Callable[[], object]:
    whole = ledger.read_bytes()
    ledger.write_bytes(bytes(100) + whole[100:])
    return lambda: ledger.write_bytes(whole)


def _fill(disk: SmallDisk, _: Path) -> Callable[[], object]:
    disk.fill()
    return disk.free


def _make_read_only(disk: SmallDisk, _: Path) -> Callable[[], object]:
    disk.make_read_only()
    return lambda: disk.make_read_only(is_read_only=False)


@pytest.mark.parametrize("make_trouble", [_fill, _make_read_only, _damage])
def test_a_ledger_that_cannot_be_written(
    folder: Path, make_trouble: Callable[[SmallDisk, Path], Callable[[], object]]
) -> None:
    with small_disk(folder / "disk", "24m") as disk:
        ledger = disk.at / "ledger.db"
        shutil.move(folder / "ledger.db", ledger)
        (folder / "ledger.db").symlink_to(ledger)
        with start(part_ledger_in_trouble, folder) as process:
            host = Host(process)
            host.reaches("no room")
            mend = make_trouble(disk, ledger)
            host.go_on()
            host.reaches("failed")
            found = doctor(folder)
            mend()
            host.go_on()
            told = host.answer()
        assert len(told["Ack"]) == RECORDS + AFTERWARDS, "the spool takes everything"
        assert "the ledger" in told["raised"]
        assert found["undrained"]["count"] >= 1
        assert found["ledger_unusable"]["severity"] == "error"
        check_told(folder, told)
