"""Sums from the roll-up are those from every event, whatever the books hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import FEBRUARY, JANUARY, MARCH, Journal, journals, settled
from shelf import at, call, close_month, keep, shelf

from costspan.conformance.scenario import ScenarioFile
from costspan.core.decide import load_profile
from costspan.core.journal.records import Assignment, Policy, SessionOwner
from costspan.core.read.books import Books
from costspan.core.read.grouping import LINE_FIELDS, Grouping, Selection
from costspan.core.read.sheet import of_events, of_lines, sheet_of
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger, open_url

DAY = 86_400 * 10**9
EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "120"))
EVERY_BY = [by for n in range(4) for by in combinations(LINE_FIELDS, n)] + [LINE_FIELDS]


def both(ledger: Ledger, by: tuple[str, ...], selection: Selection) -> tuple[Any, Any]:
    """(rows, totals) from the lines, and from the events."""
    grouping = Grouping(by)
    found: list[Any] = []
    for way in (of_lines, of_events):
        groups, sums = way(ledger, grouping, selection)
        found.append((list(grouping.rows(groups)), sums))
    return found[0], found[1]


_moments = st.sampled_from([JANUARY, FEBRUARY, MARCH]).map(lambda ns: ns - ns % DAY)
_spans = st.tuples(st.none() | _moments, st.none() | _moments.map(lambda day: day + DAY))
_selections = st.builds(
    lambda period, span: Selection(period, *span),
    st.none() | st.sampled_from(["2026-01", "2026-02", "2026-03", "2020-01"]),
    _spans,
)


@settings(
    max_examples=EXAMPLES,
)
@given(journals(most=14), st.lists(_selections, min_size=3, max_size=3), st.data())
def test_any_journal_gives_the_same_sheet_both_ways(
    journal: Journal, selections: list[Selection], data: st.DataObject
) -> None:
    with closing(settled(journal)) as ledger:
        assert Books(ledger).is_balanced()
        for selection in [Selection(), *selections]:
            for by in data.draw(st.lists(st.sampled_from(EVERY_BY), min_size=4, max_size=4)):
                rolled_up, scanned = both(ledger, by, selection)
                assert rolled_up == scanned, (by, selection)
                assert rolled_up[1].is_balanced


def _golden() -> Iterator[Any]:
    here = Path(__file__).parent.parent
    for path in chain(sorted((here / "golden").glob("*.json")), [here / "settle/scenarios.json"]):
        scenario_file = ScenarioFile.load(path)
        for scenario in scenario_file.scenarios:
            yield pytest.param(scenario_file, scenario, id=f"{path.stem}-{scenario['id']}")


def _books_of(scenario_file: ScenarioFile, scenario: dict[str, Any]) -> Ledger:
    ledger = open_url("sqlite:///:memory:", create=True)
    with ledger.settling(0) as settlement:
        rules = load_profile(scenario.get("profile", "billing"))
        settlement.keep_rule_set(rules)
        for book in scenario_file.books:
            settlement.keep_price_book(book)
        hashes = tuple(book.sha256 for book in scenario_file.books)
        sessions = (scenario.get("sessions") or {}).items()
        owners = [SessionOwner(session, tenant, "golden", 0) for session, tenant in sessions]
        settle(settlement, [], [Policy(rules.sha256, hashes, 0, "golden"), *owners])
        settle(
            settlement,
            scenario_file.deliveries(scenario),
            gateways=tuple(scenario.get("gateways") or ()),
        )
    return ledger


@pytest.mark.parametrize(("scenario_file", "scenario"), list(_golden()))
def test_the_golden_books_both_ways(scenario_file: ScenarioFile, scenario: dict[str, Any]) -> None:
    with closing(_books_of(scenario_file, scenario)) as ledger:
        for by in EVERY_BY:
            rolled_up, scanned = both(ledger, by, Selection())
            assert rolled_up == scanned, by
        assert Books(ledger).is_balanced()
        wanted = scenario["expected"]["totals"]
        if not scenario.get("adjustments"):
            totals = Books(ledger).totals()["totals"]
            assert {name: totals[name] for name in ("cost", "charge")} == {
                name: wanted[name] for name in ("cost", "charge")
            }


def test_an_event_among_several_owners_is_one_event_of_their_day() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1, members={"acme": 1, "globex": 2, "initech": 3}), call(2))
        (by_day,) = Books(ledger).totals("day")["rows"]
        assert (by_day["events"], by_day["cost"]) == (2, "2.000000000000")
        assert [row["events"] for row in Books(ledger).totals("owner")["rows"]] == [2, 1, 1]
        rolled_up, scanned = both(ledger, ("day", "period"), Selection())
        assert rolled_up == scanned


def test_a_batch_is_of_the_moment_it_was_completed() -> None:
    """In the roll-up, in a scan, and while nobody knows what it cost."""
    late = {"started_at": at("2026-10-31T23:00:00"), "ended_at": at("2026-11-01T01:00:00")}
    batch: dict[str, Any] = {"cause": "batch", "initiator": "user", **late}
    with closing(shelf()) as ledger:
        keep(ledger, call(1, **batch), call(2, **batch, flat_cost=None, usage={"holograms": 1}))
        keep(ledger, call(3, day="2026-10-31T23:30:00"))
        books = Books(ledger)
        for selection in (
            Selection("2026-11"),
            Selection(None, at("2026-11-01"), None),
            Selection(None, at("2026-11-01"), at("2026-11-02")),
        ):
            rolled_up, scanned = both(ledger, ("owner",), selection)
            assert rolled_up == scanned
            ((row, unpriced),) = rolled_up[0]
            assert (row["events"], unpriced) == (1, 1)
        assert len(list(books.events(since=at("2026-11-01T00:30:00")))) == 2
        noon = books.totals("feature", since=at("2026-10-31T23:15:00"))["rows"]
        assert [row["events"] for row in noon] == [2]


def test_what_lines_do_not_tell_is_counted_both_ways() -> None:
    start: dict[str, Any] = {"phase": "start", "provider_result": None, "flat_cost": None}
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1),
            call(2, **start),
            call(3, flat_cost=None),
            call(4, flat_cost=None, usage={"holograms": 1}),
            call(5, **start, started_at=None),
        )
        for swept in (False, True):
            if swept:
                keep(ledger, call(6, **start), _sweep("a000006"), _sweep("a000002"))
            rolled_up, scanned = both(ledger, ("owner", "bucket"), Selection("2026-11"))
            assert rolled_up == scanned
        sums = rolled_up[1]
        assert (sums.open, sums.swept, sums.unpriced) == (0, 2, 4)
        assert Books(ledger).totals()["totals"]["open"] == 1


def test_what_was_swept_and_costs_something_or_is_no_money() -> None:
    start: dict[str, Any] = {"phase": "start", "provider_result": None}
    with closing(shelf()) as ledger:
        keep(ledger, call(1, **start), call(2, **start, kind="request", flat_cost=None))
        keep(ledger, _sweep("a000001"), _sweep("a000002"))
        rolled_up, scanned = both(ledger, ("owner",), Selection())
        assert rolled_up == scanned
        assert (rolled_up[1].swept, rolled_up[1].unpriced) == (2, 0)


def _sweep(attempt: str) -> Observation:
    """As the sweeper records that nobody saw an attempt end."""
    return Observation(
        oid=f"{attempt}:sweep",
        attempt_id=attempt,
        source="sweep",
        phase="end",
        provider_result="unknown",
        usage_source="missing",
    )


def test_late_truth_after_a_close_sums_up_to_nothing_twice() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2))
        close_month(ledger, "2026-11")
        keep(ledger, Assignment("a000001", "globex", "ann", "mistaken", 1))
        for by in EVERY_BY:
            rolled_up, scanned = both(ledger, by, Selection())
            assert rolled_up == scanned
            assert rolled_up[1].is_balanced
        rows = Books(ledger).totals("owner", period="2026-11")["rows"]
        assert {row["owner"]: (row["cost"], row["events"]) for row in rows} == {
            "acme": ("1.000000000000", 1),
            "globex": ("1.000000000000", 1),
        }


@pytest.mark.parametrize(
    ("by", "span", "is_rolled_up"),
    [
        (("owner", "bucket"), (None, None), True),
        (("tenant", "period", "pool", "model"), (at("2026-11-01"), None), True),
        (("owner",), (at("2026-11-01"), at("2026-11-05T12:00:00")), False),
        (("owner",), (-DAY, None), False),
        (("owner",), (None, 10**30), False),
        (("owner", "feature"), (None, None), False),
        (("label:team",), (None, None), False),
    ],
)
def test_events_are_read_only_where_lines_cannot_tell(
    by: tuple[str, ...], span: tuple[int | None, int | None], is_rolled_up: bool
) -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1))
        found = sheet_of(ledger, Grouping(by), Selection(None, *span))
        assert found.is_rolled_up is is_rolled_up
        assert [row["cost"] for row in found.rows] == ["1.000000000000"]


def test_sums_beyond_what_an_integer_holds() -> None:
    """40 events of 8.9 million USD each: the roll-up of SQLite adds up in parts."""
    with closing(shelf()) as ledger:
        keep(ledger, *(call(n, flat_cost="8999999.999999999999") for n in range(1, 41)))
        rolled_up, scanned = both(ledger, ("owner",), Selection())
        assert rolled_up == scanned
        assert rolled_up[1].cost == 40 * 8_999_999_999_999_999_999
        assert Books(ledger).is_balanced()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE lines SET cost_pico = cost_pico + 1 WHERE owner = 'acme'",
        "UPDATE lines SET charge_pico = charge_pico + 1, cost_pico = cost_pico",
        "UPDATE lines SET events = events + 1",
        "DELETE FROM lines WHERE owner = 'globex'",
        "INSERT INTO postings SELECT NULL, event_id, line, 1, 0, 0 FROM postings LIMIT 1",
        "UPDATE lines SET cost_pico = cost_pico + CASE owner WHEN 'acme' THEN 1 ELSE -1 END",
        "DELETE FROM events WHERE id = 'a000002'",
    ],
)
def test_what_the_full_comparison_finds(damage: str) -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, tenant="globex"))
        books = Books(ledger)
        assert books.is_balanced()
        ledger.connection.execute(damage)  # type: ignore[attr-defined]  # somebody's hand
        assert not books.is_balanced()


def test_a_decision_that_was_not_posted_is_found() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2))
        (event,) = ledger.events(["a000001"])
        assert event.decision is not None
        for changed in ({"charge": 1}, {"cost": 1, "charge": 1}, {"cost": None, "charge": None}):
            decision = msgspec.structs.replace(event.decision, **changed)
            with ledger.settling(1) as settlement:
                settlement.settled(["a000001"])
                settlement.save([msgspec.structs.replace(event, decision=decision)], [])
            assert not Books(ledger).is_balanced()


def test_an_amount_that_no_event_stands_for_is_not_balanced() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1))
        ledger.connection.execute("UPDATE lines SET events = 0")  # type: ignore[attr-defined]
        assert Books(ledger).totals()["balanced"] is False


def test_a_drain_in_the_middle_of_a_report_is_not_seen(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with closing(shelf(path)) as writer:
        keep(writer, call(1))
        with closing(open_url(f"sqlite:///{path}", create=False)) as reader:
            with reader.snapshot():
                before = list(reader.roll_ups())
                keep(writer, call(2))
                assert list(reader.roll_ups()) == before
                assert len(list(reader.events())) == 1
            assert Books(reader).totals()["totals"]["cost"] == "2.000000000000"
            assert Books(reader).is_balanced()
