"""Servers that are stopped in the middle of traffic: every request answered is in the books."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from books_check import check
from calls import CALLS_A_REQUEST
from children import until
from servers import CLIENTS, SERVERS, Traffic, serving

import costspan

for _needed in ("gunicorn", "uvicorn", "uvicorn_worker"):
    pytest.importorskip(_needed)

ANSWERS = 25
ANSWERS_FULL = 500
KILLED = ("uvicorn, 2 workers", "gunicorn sync, preload", "gunicorn uvicorn, preload")


def cells(names: Iterable[str]) -> list[Any]:
    """The servers by name."""
    return [pytest.param(name) for name in names]


def check_traffic(folder: Path, traffic: Traffic, cell: str) -> None:
    """Every call that an answer names is in the books once."""
    assert traffic.statuses == {200}
    found = check(folder, traffic.calls)
    print(f"{found.row(cell, 1)}  answers {traffic.answers:,}  cut off {traffic.cut_off}")
    assert found.problems == []
    assert found.acked >= traffic.answers * CALLS_A_REQUEST


def counted(folder: Path) -> dict[str, int]:
    """What the books hold by now."""
    with costspan.open_ledger(folder / "ledger.db") as books:
        return books.ledger.counts()


@pytest.mark.parametrize("name", cells(SERVERS))
def test_sigterm_in_the_middle_of_traffic(folder: Path, name: str, is_full: bool) -> None:
    with serving(name, folder) as server:
        traffic = Traffic(server.port())
        try:
            traffic.until_answers(ANSWERS_FULL if is_full else ANSWERS)
            until(lambda: counted(folder)["events"], "the workers to settle as they go")
            server.process.terminate()
            code = server.stopped()
        finally:
            traffic.stop()
    assert code in (0, -signal.SIGTERM), server.log
    check_traffic(folder, traffic, name)
    with costspan.open_ledger(folder / "ledger.db") as books:
        requests = {each.event.id for each in books.ledger.events(traffic.requests)}
    assert requests == traffic.requests, "a request that was answered is recorded itself"
    assert bool(requests) == ("sync" not in name)


@pytest.mark.parametrize("name", cells(KILLED))
def test_sigkill_of_a_worker_in_the_middle_of_traffic(folder: Path, name: str) -> None:
    with serving(name, folder) as server:
        traffic = Traffic(server.port())
        try:
            traffic.until_answers(ANSWERS)
            before = set(traffic.pids)
            assert server.process.pid not in before
            os.kill(min(before), signal.SIGKILL)
            until(lambda: traffic.pids - before, "a worker in place of the killed one")
            traffic.until_answers(CLIENTS)
            server.process.terminate()
            server.stopped()
        finally:
            traffic.stop()
    assert len(traffic.pids) > len(before)
    check_traffic(folder, traffic, name)
