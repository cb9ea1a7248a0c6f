"""When an open event is swept, and by whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from journals import (
    opened,
)
from msgspec.structs import replace
from sweeping import HOUR, NOW, SECOND, end, keep, start, sweep_all

import costspan
from costspan.adapter import Attempt
from costspan.core import upkeep
from costspan.core.config import Config
from costspan.core.drain import Drained, add_observations, drain
from costspan.core.read.books import Books
from costspan.core.rebuild import rebuild
from costspan.core.recorder import Recorder
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.sweep import BATCH_TTL_SECONDS, Ttl


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(opened()) as made:
        yield made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")


def books_of(config: Config) -> Books:
    return Books(open_url(config.ledger_url, create=False))


def test_a_call_and_a_batch_have_times_of_their_own(ledger: Ledger) -> None:
    keep(
        ledger,
        start(1, started_at=NOW - 2 * HOUR),
        start(2, started_at=NOW - 2 * HOUR + 1),
        start(3, started_at=NOW - 25 * HOUR, cause="batch"),
        start(4, started_at=None, recorded_at=NOW - 3 * HOUR),
        start(5, started_at=NOW + HOUR),
        start(6, started_at=None),
    )
    ttl = Ttl.of_settings(7200)

    def open_now() -> set[str]:
        return {each.event.id for each in ledger.events() if each.event.is_open}

    assert sweep_all(ledger, NOW, ttl) == 3
    assert open_now() == {"a2", "a3", "a5"}
    assert sweep_all(ledger, NOW, ttl) == 0
    assert sweep_all(ledger, NOW + 1, ttl) == 1
    assert sweep_all(ledger, NOW + (BATCH_TTL_SECONDS - 25 * 3600) * SECOND, ttl) == 1
    assert open_now() == {"a5"}


def test_a_longer_time_for_calls_holds_for_batches_too() -> None:
    week = 7 * 24 * 3600
    assert Ttl.of_settings(week) == Ttl.of_everything(week)
    assert Ttl.of_settings(60) == Ttl(60 * SECOND, BATCH_TTL_SECONDS * SECOND)


# --- the drain -----------------------------------------------------------------------------------


def test_a_drain_sweeps_after_all_it_drains(config: Config) -> None:
    """The end is in the last segment: nothing was swept in between."""
    for seen in (start(1), start(2), end(1)):
        writer = Recorder(config.spool)
        writer.record(replace(seen, oid=None))
        writer.rotate()
    done = drain(config, now_ns=NOW)
    assert (done.segments, done.swept) == (3, 1)
    with books_of(config) as books:
        assert {e["event"]: e["outcome"] for e in books.events()} == {"a1": "ok", "a2": "unknown"}
        assert [seen.recorded_at for seen in books.ledger.journal() if seen.source == "sweep"] == [
            NOW
        ]
    assert drain(config, now_ns=NOW).swept == 0


def test_an_end_that_a_live_writer_still_holds_comes_after_all(config: Config) -> None:
    first, other = Recorder(config.spool), Recorder(config.spool)
    first.record(replace(start(1), oid=None))
    first.rotate()
    other.record(replace(end(1), oid=None))
    assert drain(config, now_ns=NOW).swept == 1
    with books_of(config) as books:
        assert books.totals()["totals"]["swept"] == 1
    other.rotate()
    assert drain(config, now_ns=NOW).swept == 0
    with books_of(config) as books:
        (event,) = books.events()
        assert (event["outcome"], books.totals()["totals"]["swept"]) == ("ok", 0)
        before = list(books.ledger.events())
    rebuild(config)
    with books_of(config) as books:
        assert list(books.ledger.events()) == before


def test_settlers_who_race_sweep_once(config: Config) -> None:
    many = 300
    add_observations(config, [start(number) for number in range(many)])
    together = threading.Barrier(3)
    found: list[Drained] = []

    def race() -> None:
        together.wait()
        found.append(drain(config, now_ns=NOW))

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done.swept for done in found) == [0, 0, many]
    with books_of(config) as books:
        assert books.ledger.counts() | {"events": many, "swept": many, "conflict": 0} == (
            books.ledger.counts()
        )
        assert sum(seen.source == "sweep" for seen in books.ledger.journal()) == many


def test_an_operator_may_sweep_earlier(config: Config) -> None:
    add_observations(
        config, [start(1, started_at=NOW - 10), start(2, started_at=NOW - 10, cause="batch")]
    )
    assert drain(config, now_ns=NOW).swept == 0
    assert drain(config, now_ns=NOW, sweep_older_seconds=1).swept == 0
    assert drain(config, now_ns=NOW, sweep_older_seconds=10**12).swept == 0
    assert drain(config, now_ns=NOW, sweep_older_seconds=0).swept == 2


def test_a_process_flushes_and_sweeps(books_at: Path) -> None:
    attempt = Attempt.start(provider="openai", requested_model="gpt-4o")
    assert costspan.flush().swept == 0
    assert costspan.flush(sweep_older=0).swept == 1
    attempt.end(usage={"input": 1})
    assert costspan.flush(sweep_older=0).swept == 0
    with costspan.open_ledger() as books:
        (event,) = books.events()
        assert event["outcome"] == "ok"


def test_a_process_that_records_nothing_any_more_sweeps_too(books_at: Path) -> None:
    Attempt.start(requested_model="gpt-4o", started_at=time.time_ns() - HOUR)
    assert costspan.flush().swept == 0
    ledger, spool = books_at / "ledger.db", books_at / "spool"
    costspan.configure(ledger, spool, open_ttl=60, background=False)
    assert not upkeep.drain_quietly()
    assert upkeep.drain_quietly(even_if_empty=True)
    with costspan.open_ledger() as books:
        assert books.totals()["totals"]["swept"] == 1
