"""The sweeper: what nobody saw end becomes a visible unknown; any real end beats it, ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from journals import (
    ATTEMPTS,
    GATEWAY,
    JANUARY,
    OPERATIONS,
    POLICIES,
    RESPONSES,
    Journal,
    arrivals,
    journals,
    observations,
    opened,
    policy_record,
    said,
    settled,
    some,
)
from msgspec.structs import replace
from oracle import settle_all
from test_properties import decisions, proving

import costspan
from costspan.adapter import Attempt
from costspan.core import runtime
from costspan.core.config import Config
from costspan.core.drain import Drained, add_observations, drain
from costspan.core.join import Event
from costspan.core.journal.records import SessionOwner
from costspan.core.money import PICO
from costspan.core.read.books import Books
from costspan.core.rebuild import copy_books, nets, rebuild
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.sweep import BATCH_TTL_SECONDS, Ttl, sweep

LATER = 2**62
"""Long after everything in the journals."""
SECOND = 10**9
HOUR = 3600 * SECOND
NOW = 1_800_000_000 * SECOND


def sweep_all(ledger: Ledger, now_ns: int = LATER, ttl: Ttl | None = None) -> int:
    """How many were swept."""
    with ledger.settling(0) as settlement:
        everything = Ttl.of_everything(0)
        return sweep(settlement, now_ns, ttl or everything, 100, (GATEWAY,)).observations


def settled_and_swept(journal: Journal, sweeps: list[bool]) -> Ledger:
    """As `settled`, with sweeps of everything that is open in between."""
    ledger = opened()
    for at, batch in enumerate(journal.batches):
        seen = [each for each in batch if isinstance(each, Observation)]
        controls = [each for each in batch if not isinstance(each, Observation)]
        with ledger.settling(0) as settlement:
            settle(settlement, seen, controls, (GATEWAY,))
        if sweeps[at % len(sweeps)]:
            sweep_all(ledger)
    return ledger


def without_oids(event: Event) -> Event:
    """An event without who saw it: a sweep that lost is still known to `explain`."""
    return replace(event, oid_names=())


# --- properties ----------------------------------------------------------------------------------


_sweeps = st.lists(st.booleans() | st.just(True), min_size=1, max_size=5)
_operations = st.lists(some(*OPERATIONS), min_size=1, max_size=2, unique=True).map(tuple)
_attempt = {"attempt_id": some(*ATTEMPTS)}
_named = st.one_of(
    said(_attempt, operation_ids=_operations, response_id=some(*RESPONSES)),
    said({"operation_ids": _operations}),
)
_told = said(
    {"layer": some("gateway", "framework", "manual")},
    tenant=some("acme", "globex"),
    parent=some(*ATTEMPTS, *OPERATIONS),
    cause=some("step", "batch"),
    started_at=some(JANUARY),
    flat_cost=some("0.01"),
)
_ended = st.one_of(
    said({"usage": st.just({"input": 1000}), "executed_model": st.just("gpt-4o")}),
    said({"provider_result": some("ok", "failed", "unknown")}, delivery=some("blocked")),
    said({"delivery": some("blocked", "cancelled_by_user")}),
)
_calls = st.lists(
    st.one_of(
        st.tuples(st.just({"phase": "start"}), _named, _told),
        st.tuples(st.just({"phase": "end"}), _named, _told, _ended),
    ),
    min_size=2,
    max_size=7,
)


@st.composite
def lost_and_found(draw: st.DrawFn) -> Journal:
    """Calls whose ends come early, late or never; and a few of anything."""
    records: list[Any] = []
    for number, call in enumerate(draw(_calls)):
        fields: dict[str, Any] = {}
        for group in call:
            fields.update(group)
        records.append(Observation(oid=f"w9:{number}", **fields))
    records += draw(st.lists(observations(), max_size=2))
    order = [*draw(st.permutations(records)), policy_record(POLICIES[1])]
    if draw(st.booleans()):
        return Journal(tuple((each,) for each in order))
    return draw(arrivals(order))


_either = journals() | lost_and_found() | lost_and_found() | lost_and_found()


@proving
@given(_either, _sweeps)
def test_a_sweep_changes_nothing_that_anybody_saw_end(journal: Journal, sweeps: list[bool]) -> None:
    """However sweeps and ends are interleaved: what has ended is as if never swept."""
    with closing(settled(journal)) as plain, closing(settled_and_swept(journal, sweeps)) as swept:
        before = {each.event.id: each for each in plain.events()}
        after = {each.event.id: each for each in swept.events()}
        assert before.keys() == after.keys()
        for event_id, each in before.items():
            found = after[event_id]
            if each.event.is_open:
                check_unended(each, found)
            else:
                assert not found.event.is_swept
                assert without_oids(found.event) == without_oids(each.event)
                assert (found.decision, found.posted) == (each.decision, each.posted)
        assert set(swept.problems()) == set(plain.problems())


def check_unended(each: Settled, found: Settled) -> None:
    """An event that nobody saw end: open, or swept; and known for what it was."""
    assert found.event.is_open != found.event.is_swept
    if found.event.is_swept:
        told = found.event.facts
        assert told == replace(
            each.event.facts,
            flags=told.flags,
            provider_result=told.provider_result,
            usage_source=told.usage_source,
        )
        assert "swept" in told.flags
        assert found.decision is not None
        assert found.decision.outcome != "ok" or each.event.facts.provider_result == "ok"


@proving
@given(_either, _sweeps, st.data())
def test_swept_books_follow_from_the_journal(
    journal: Journal, sweeps: list[bool], data: st.DataObject
) -> None:
    """Invariants 5, 19 and 23, sweeps being records like any other; and 7."""
    with closing(settled_and_swept(journal, sweeps)) as ledger:
        sweep_all(ledger)
        assert sweep_all(ledger) == 0, "once is enough"
        events = list(ledger.events())
        full = settle_all(ledger.journal(), POLICIES, journal.directory, (GATEWAY,))
        assert decisions(ledger) == full.decisions
        with closing(opened(POLICIES[:1])) as rebuilt:
            copy_books(ledger, rebuilt, (GATEWAY,))
            assert list(rebuilt.events()) == events
            assert nets(rebuilt) == nets(ledger)
        records: list[Any] = [*ledger.journal(), policy_record(POLICIES[1])]
        records += [each for each in ledger.controls() if isinstance(each, SessionOwner)]
        with closing(settled(data.draw(arrivals(records)))) as other:
            assert list(other.events()) == events
            assert nets(other) == nets(ledger)
        for each in events:
            named = each.event.facts.attempt_id or each.event.id in each.event.operation_names
            assert not (each.event.is_open and named), "it could have been swept"
        counts = ledger.counts()
        seen_to_end = sum(not (e.event.is_open or e.event.is_swept) for e in events)
        assert counts["events"] == seen_to_end + counts["open"] + counts["swept"]


# --- one event -----------------------------------------------------------------------------------


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(opened()) as made:
        yield made


def keep(ledger: Ledger, *observations: Observation) -> None:
    with ledger.settling(0) as settlement:
        settle(settlement, observations)


def start(number: int, **facts: Any) -> Observation:
    usual: dict[str, Any] = {
        "attempt_id": f"a{number}", "kind": "model", "requested_model": "gpt-4o",
        "tenant": "acme", "tenant_source": "context", "started_at": JANUARY, "layer": "gateway",
        "source": "test",
    }  # fmt: skip
    return Observation(oid=f"w:{number}", phase="start", **{**usual, **facts})


def end(number: int, **facts: Any) -> Observation:
    usual = {"provider_result": "ok", "usage": {"input": 1000}, "executed_model": "gpt-4o"}
    return replace(start(number), oid=f"w:{100 + number}", phase="end", **{**usual, **facts})


def only(ledger: Ledger) -> Settled:
    (each,) = ledger.events()
    return each


def test_what_nobody_saw_end_is_unknown_and_counted_apart(ledger: Ledger) -> None:
    keep(ledger, start(1))
    assert (ledger.counts()["open"], ledger.counts()["swept"]) == (1, 0)
    assert sweep_all(ledger) == 1
    each = only(ledger)
    assert each.decision is not None
    assert (each.event.outcome, each.event.is_open, each.event.is_swept) == ("unknown", False, True)
    assert (each.decision.cost_rule, each.decision.cost, each.decision.charge) == ("K6", None, None)
    assert (each.decision.owner, each.decision.bucket) == ("acme", "direct")
    assert each.decision.flags == ("swept", "unmeasured")
    assert each.posted == ()
    assert (each.event.facts.started_at, each.event.facts.recorded_at) == (JANUARY, None)
    counts = ledger.counts()
    assert (counts["open"], counts["swept"], counts["unmeasured"]) == (0, 1, 1)
    totals = Books(ledger).totals()["totals"]
    assert (totals["open"], totals["swept"], totals["unpriced_events"]) == (0, 1, 1)


@pytest.mark.parametrize(
    "facts",
    [
        {"layer": "manual"},
        {"layer": "framework", "provider_result": "failed", "usage": None},
        {"provider_result": "unknown", "usage": None},
        {"provider_result": None, "usage": None, "usage_source": "missing"},
        {"provider_result": None, "usage": None, "error_type": "Timeout"},
        {"attempt_id": None, "operation_ids": ("run:1",)},
        {"attempt_id": None, "operation_ids": (), "response_id": "r1"},
    ],
)
def test_any_real_end_beats_it_whatever_it_says(facts: dict[str, Any]) -> None:
    started = start(1, operation_ids=("run:1",), response_id="r1")
    with closing(opened()) as never, closing(opened()) as swept:
        for books in (never, swept):
            keep(books, started)
            if books is swept:
                assert sweep_all(books) == 1
            keep(books, end(1, **facts))
        expected, found = only(never), only(swept)
        assert without_oids(found.event) == without_oids(expected.event)
        assert (found.decision, found.posted) == (expected.decision, expected.posted)
        assert swept.counts()["swept"] == 0
        (root,) = Books(swept).explain("a1").roots
        (plain,) = Books(never).explain("a1").roots
        assert root.disagreements == plain.disagreements
        assert [seen.source for seen in root.witnesses if seen.oid == "a1:sweep"] == ["sweep"]


def test_a_price_known_from_the_start_is_a_cost_and_nobodys_charge(ledger: Ledger) -> None:
    keep(ledger, start(1, kind="tool", requested_model=None, flat_cost="0.01"))
    sweep_all(ledger)
    each = only(ledger)
    assert each.decision is not None
    assert (each.decision.cost, each.decision.charge) == (PICO // 100, 0)
    assert "C1" in each.decision.rules
    assert ledger.counts()["swept"] == 1


def test_a_verdict_is_no_end_but_stays(ledger: Ledger) -> None:
    keep(ledger, start(1), Observation(oid="w:9", attempt_id="a1", delivery="cancelled_by_user"))
    assert sweep_all(ledger) == 1
    assert (only(ledger).event.outcome, only(ledger).event.is_swept) == ("cancelled_by_user", True)


def test_an_operation_is_swept_as_itself_only(ledger: Ledger) -> None:
    """Its sweep closes no attempt that turns up below it later, and is no evidence there."""
    keep(ledger, start(1, attempt_id=None, operation_ids=("run:1", "run:2")))
    assert sweep_all(ledger) == 1
    assert (only(ledger).event.id, only(ledger).event.is_swept) == ("run:1", True)
    keep(ledger, start(2, operation_ids=("run:1",)))
    each = only(ledger)
    assert (each.event.id, each.event.is_open, each.event.is_swept) == ("a2", True, False)
    keep(ledger, end(2, operation_ids=("run:1",)))
    assert only(ledger).event.outcome == "ok"
    keep(ledger, start(3, operation_ids=("run:2",)))
    assert {e.event.id: e.event.is_open for e in ledger.events()} == {"a2": False, "a3": True}


def test_what_says_more_than_a_sweep_is_none(ledger: Ledger) -> None:
    """Another instrument may be called `sweep`: what it measured is not lost."""
    keep(ledger, start(1), end(1, source="sweep", provider_result="unknown"))
    each = only(ledger)
    assert each.decision is not None
    assert each.decision.cost is not None
    assert not each.event.is_swept


def test_a_sweep_makes_no_event(ledger: Ledger) -> None:
    lone = Observation(oid="x", attempt_id="a1", source="sweep", provider_result="unknown")
    keep(ledger, lone, replace(lone, oid="y", attempt_id=None, operation_ids=("run:1",)))
    assert list(ledger.events()) == []
    keep(ledger, start(1))
    assert only(ledger).event.is_swept


def test_a_start_that_names_nothing_cannot_be_ended_and_stays_open(ledger: Ledger) -> None:
    keep(ledger, start(1, attempt_id=None))
    assert sweep_all(ledger) == 0
    assert ledger.counts()["open"] == 1


def test_numbers_in_a_name_are_no_writers_numbers(ledger: Ledger) -> None:
    """Else doctor would miss the sweeps before `batch:7`."""
    keep(ledger, start(1, attempt_id=None, operation_ids=("batch:7",)), start(2, attempt_id="12"))
    sweep_all(ledger)
    assert ledger.writers() == [("w", 2, 2)]


# --- when ----------------------------------------------------------------------------------------


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


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")


def books_of(config: Config) -> Books:
    return Books(open_url(config.ledger_url, create=False))


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
    assert not runtime._drain_quietly()
    assert runtime._drain_quietly(even_if_empty=True)
    with costspan.open_ledger() as books:
        assert books.totals()["totals"]["swept"] == 1
