"""The thread of a process that records: it goes on whatever is raised in it, and backs off."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costspan
from costspan.core import background, counters, upkeep
from costspan.core.background import Background, backoff_seconds
from costspan.core.ledger_errors import LedgerBusy
from costspan.core.process import Process
from costspan.core.recorder import Ack, Held


def test_waits_grow_to_a_minute_and_are_not_all_alike() -> None:
    for failures, seconds in ((1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (10_000, 60)):
        waits = {backoff_seconds(failures) for _ in range(50)}
        assert all(seconds / 2 <= each <= seconds for each in waits)
        assert len(waits) > 10


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "BACKOFF_SECONDS_MAX", 0.001)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("error", [LedgerBusy("locked"), ValueError("broken"), SystemExit(1)])
def test_it_goes_on_after_what_a_drain_raises(error: BaseException) -> None:
    seen: list[int] = []
    done = threading.Event()
    outcomes: Iterator[BaseException | None] = iter([error, error, error, None, error])

    def drain(even_if_empty: bool) -> bool:
        outcome = next(outcomes, None)
        if len(seen) == 4:
            done.set()
        if outcome is not None:
            raise outcome
        return True

    thread = Background(
        lambda: None, drain, lambda raised, times: seen.append(times),
        sync_seconds=0.001, drain_seconds=0.001, sweep_seconds=60,
    )  # fmt: skip
    thread.start()
    assert done.wait(60)
    thread.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert seen == [1, 2, 3, 1], "a drain that works ends the row"


def test_a_drain_that_hangs_holds_up_no_sync() -> None:
    hangs, goes_on, synced = threading.Event(), threading.Event(), threading.Event()
    syncs: list[bool] = []

    def sync() -> None:
        syncs.append(hangs.is_set())
        if sum(syncs) > 2:
            synced.set()

    def drain(even_if_empty: bool) -> bool:
        hangs.set()
        return goes_on.wait()

    thread = Background(
        sync, drain, lambda *_: None, sync_seconds=0.001, drain_seconds=0.001, sweep_seconds=60
    )
    thread.start()
    assert synced.wait(20)
    assert not thread.finish(0.01), "the end waits for a drain no longer than it is told"
    goes_on.set()
    thread.join(60)
    assert thread.finish(0)


@pytest.mark.parametrize(
    ("error", "drains"), [(None, 2), (LedgerBusy("locked"), 2), (ValueError("broken"), 1)]
)
def test_the_last_drain(
    error: Exception | None, drains: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried at a ledger that was out of reach just now: the exit would wait for it."""
    monkeypatch.setattr(background, "BACKOFF_SECONDS_MIN", 3600)
    monkeypatch.setattr(background, "BACKOFF_SECONDS_MAX", 3600)
    calls: list[bool] = []
    told = threading.Event()

    def drain(even_if_empty: bool) -> bool:
        calls.append(even_if_empty)
        if error is not None:
            raise error
        told.set()
        return True

    def failed(raised: BaseException, times: int) -> None:
        told.set()

    thread = Background(
        lambda: None, drain, failed, sync_seconds=60, drain_seconds=0.001, sweep_seconds=60
    )
    thread.start()
    assert told.wait(60)
    assert thread.finish(60)
    assert len(calls) >= drains
    assert error is None or len(calls) == drains


def test_a_sync_that_raises_ends_nothing() -> None:
    again = threading.Event()
    times = iter(range(10**6))

    def sync() -> None:
        if next(times):
            again.set()
        raise OSError(5, "Input/output error")

    thread = Background(
        sync, lambda _: True, lambda *_: None,
        sync_seconds=0.001, drain_seconds=60, sweep_seconds=60,
    )  # fmt: skip
    thread.start()
    assert again.wait(60)
    thread.stop()
    thread.join(60)


@pytest.fixture
def process(new_process: Process, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A process that has done nothing yet."""
    monkeypatch.setenv("COSTSPAN_SPOOL_BESIDE", str(tmp_path / "beside"))
    return tmp_path


def test_a_process_that_can_start_no_thread_goes_on(
    process: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Background, "start", cannot)
    costspan.configure(ledger=process / "ledger.db", spool=process / "spool")
    before = counters.snapshot().get("no_thread", 0)
    assert isinstance(costspan.record({"attempt_id": "a"}), Ack)
    assert counters.snapshot()["no_thread"] == before + 1
    upkeep.at_exit()
    with costspan.open_ledger(process / "ledger.db") as books:
        assert [each.attempt_id for each in books.ledger.journal()] == ["a"]


def test_what_a_former_recorder_holds_is_written_when_it_can_be(process: Path) -> None:
    """`configure` with another folder loses nothing that waits in memory."""
    (process / "one").write_text("in the way")
    costspan.configure(
        ledger=process / "ledger.db", spool=process / "one", spool_beside="off", background=False
    )
    assert isinstance(costspan.record({"attempt_id": "a"}), Held)
    costspan.configure(ledger=process / "ledger.db", spool=process / "two", background=False)
    assert isinstance(costspan.record({"attempt_id": "b"}), Ack)
    (process / "one").unlink()
    costspan.flush()
    assert len(list((process / "one").iterdir())) == 1
    costspan.configure(ledger=process / "ledger.db", spool=process / "one", background=False)
    costspan.flush()
    with costspan.open_ledger(process / "ledger.db") as books:
        assert sorted(str(each.attempt_id) for each in books.ledger.journal()) == ["a", "b"]


def test_the_log_is_told_of_the_end_of_an_outage_and_of_the_next(
    process: Path, caplog: pytest.LogCaptureFixture
) -> None:
    costspan.configure(ledger=process / "ledger.db", background=False)
    for outage in range(1, 3):
        upkeep.drain_failed(ValueError("broken"))
        upkeep.drain_failed(ValueError("broken"))
        for attempt in range(2):
            assert isinstance(costspan.record({"attempt_id": f"a{outage}{attempt}"}), Ack)
            upkeep.drain_quietly()
        assert caplog.messages == [
            "the books are not up to date: broken", "the books are up to date again"
        ] * outage  # fmt: skip


def test_the_log_is_told_once_and_of_a_busy_ledger_late(
    process: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for times in range(1, upkeep.BUSY_TIMES):
        upkeep.drain_failed(LedgerBusy("locked"), times)
    assert caplog.messages == []
    for times in range(upkeep.BUSY_TIMES, 20):
        upkeep.drain_failed(LedgerBusy("locked"), times)
    assert len(caplog.messages) == 1
    for _ in range(3):
        upkeep.drain_failed(ValueError("broken"))
    assert len(caplog.messages) == 2
