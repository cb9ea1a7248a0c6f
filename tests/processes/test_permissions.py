"""Folders that the host's user may not write: records are held, or go beside, and none is lost."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from books_check import environment_of
from calls import call, configure
from children import start
from hosts import Host, Told, check_told, wait_to_be_told

import costspan
from costspan import cli
from costspan.core import runtime
from costspan.core.ledger_errors import LedgerError

RECORDS = 200
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        for place in ("", "spool", "beside", "warm"):
            (Path(name) / place).mkdir(exist_ok=True)
            (Path(name) / place).chmod(0o777)
        yield Path(name)


def part_of_another_user(folder: str, beside: bool) -> dict[str, Any]:
    """Record, settle and examine as a user who may not write the spool, nor beside the ledger."""
    # Whatever is imported late is imported now: the interpreter may be out of that user's reach.
    configure(Path(folder) / "warm", beside=False)
    call(0)
    costspan.flush()
    doctor()
    configure(folder, beside=beside)
    os.environ |= environment_of(Path(folder))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    told = Told()
    told.record(RECORDS)
    raised = ""
    try:
        costspan.flush()
    except LedgerError as error:
        raised = str(error)
    found = doctor()
    wait_to_be_told("recorded")
    runtime.recorder().rotate()
    told.record(RECORDS)
    return {**told.plain(), "raised": raised, "doctor": found}


def doctor() -> dict[str, str]:
    """Check -> severity, as `costspan doctor` finds it in this process."""
    said, wrong = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(wrong):
        code = cli.main(["doctor", "--json"])
    assert said.getvalue(), (code, wrong.getvalue())
    return {each["check"]: each["severity"] for each in json.loads(said.getvalue())["findings"]}


@pytest.mark.parametrize("beside", [True, False], ids=["a folder beside", "memory alone"])
def test_folders_of_another_user(folder: Path, beside: bool) -> None:
    for place in (folder, folder / "spool"):
        place.chmod(0o555)
    with start(part_of_another_user, folder, beside) as process:
        host = Host(process)
        host.reaches("recorded")
        for place in (folder, folder / "spool"):
            place.chmod(0o777)
        host.go_on()
        told = host.answer()
    assert "cannot be opened" in told["raised"]
    assert told["doctor"]["spool_unusable"] == "error"
    assert told["doctor"]["no_ledger"] == "error"
    assert len(told["Held"]) == RECORDS * (not beside)
    assert len(told["Ack"]) == RECORDS + RECORDS * beside
    assert not beside or told["counters"]["ladder:beside"] >= RECORDS
    check_told(folder, told)
