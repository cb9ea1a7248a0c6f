"""The sweeper: what nobody saw end becomes a visible unknown; any real end beats it, ever."""

from __future__ import annotations

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
from sweeping import end, keep, start, sweep_all
from test_properties import decisions, proving

from costspan.core.config import Config
from costspan.core.join import Event
from costspan.core.journal.records import SessionOwner
from costspan.core.money import PICO
from costspan.core.read.books import Books
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger, open_url

"""Long after everything in the journals."""


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


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path / "spool")


def books_of(config: Config) -> Books:
    return Books(open_url(config.ledger_url, create=False))
