"""One journal, two ledgers: whatever is asked of either, the answer is the same, and is right."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from everything import begin, differences, everything, fill
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from journals import GATEWAY, POLICIES, Journal, journal_pairs, journals
from oracle import settle_all
from postgres_server import PostgresServer

from costspan.conformance.scenario import ScenarioFile
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle import Report
from costspan.core.settle.ledger import Ledger, open_url

EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "300")) // 20
TESTS = Path(__file__).parents[1]
FILES = [*sorted((TESTS / "golden").glob("*.json")), TESTS / "settle" / "scenarios.json"]
proving = settings(
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    # Two ledgers an example: to shrink one would take minutes.
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)


@pytest.fixture(scope="module")
def place(postgres: PostgresServer) -> Iterator[str]:
    """A database whose schemas are an example's own each."""
    found = postgres.database()
    yield found
    postgres.drop(found)


@contextmanager
def on_postgres(place: str, schema: str = "one") -> Iterator[Ledger]:
    """A ledger without a row. What no ledger lets anybody do, the owner of its tables may."""
    at = f"{place}&schema={schema}"
    with suppress(psycopg.errors.InvalidSchemaName), psycopg.connect(place) as connection:
        sql = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
        tables = {row[0] for row in connection.execute(sql, [schema])} - {"meta"}
        guarded = ("postings", "documents", "invoices", "invoice_lines", "reviews")
        off = "".join(f"ALTER TABLE {name} DISABLE TRIGGER USER;" for name in guarded)
        connection.execute(
            f"SET search_path = {schema}; {off}"
            f" TRUNCATE {', '.join(tables)} RESTART IDENTITY;"
            f" {off.replace('DISABLE', 'ENABLE')}".encode()
        )
    with closing(open_url(at, create=True)) as ledger:
        yield ledger


def on_sqlite() -> closing[Ledger]:
    return closing(open_url("sqlite:///:memory:", create=True))


@proving
@given(journal=journals())
def test_both_ledgers_answer_alike(place: str, journal: Journal) -> None:
    with on_sqlite() as one, on_postgres(place) as other:
        assert (
            differences(
                everything(fill(begin(one), journal)), everything(fill(begin(other), journal))
            )
            == []
        )


@proving
@given(journal=journals())
def test_incremental_settlement_equals_the_naive_one(place: str, journal: Journal) -> None:
    full = settle_all(journal.observations, POLICIES, journal.directory, (GATEWAY,))
    with on_postgres(place) as ledger:
        fill(begin(ledger), journal)
        assert {each.event.id: each.event for each in ledger.events()} == full.events
        assert {each.event.id: each.decision for each in ledger.events()} == full.decisions
        assert set(ledger.problems()) == full.problems
        assert list(ledger.roll_ups()) == list(ledger.added_up())
        sums = {key: sum_ for key, sum_ in ledger.sums(("owner", "bucket")) if any(sum_)}
        assert {key: (each.cost, each.charge) for key, each in sums.items()} == {
            key: amounts for key, amounts in full.ledger.items() if any(amounts) or key in sums
        }


@proving
@given(pair=journal_pairs())
def test_any_order_batching_and_ledger_gives_the_same_books(
    place: str, pair: tuple[Journal, Journal]
) -> None:
    """Invariants 4, 5 and 19: copied from one kind into the other, too."""
    with on_postgres(place) as first, on_postgres(place, "two") as second, on_sqlite() as copy:
        fill(begin(first), pair[0])
        fill(begin(second), pair[1])
        copy_books(first, copy, (GATEWAY,))
        assert list(first.events()) == list(second.events()) == list(copy.events())
        assert nets(first) == nets(second) == nets(copy)
        assert first.problems() == second.problems() == copy.problems()


@settings(proving, max_examples=max(1, EXAMPLES // 3))
@given(journal=journals(), data=st.data())
def test_a_rebuild_in_place_changes_no_answer(
    place: str, journal: Journal, data: st.DataObject
) -> None:
    with on_postgres(place) as ledger:
        cut = data.draw(st.integers(0, len(journal.batches)))
        fill(begin(ledger), Journal(journal.batches[:cut]))
        other = open_url(f"{place}&schema=one", create=True)
        before = (nets(ledger), list(ledger.events()), ledger.problems(), ledger.writers())
        with closing(other), other.rebuilding() as fresh:
            copy_books(other, fresh, (GATEWAY,))
        assert before == (
            nets(ledger), list(ledger.events()), ledger.problems(), ledger.writers()
        )  # fmt: skip
        fill(ledger, Journal(journal.batches[cut:]))
        with on_sqlite() as one:
            assert list(fill(begin(one), journal).events()) == list(ledger.events())
            assert nets(one) == nets(ledger)
        assert list(ledger.roll_ups()) == list(ledger.added_up())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_has_the_same_books_in_both(place: str, path: Path) -> None:
    """Those of SQLite are held against what was worked out by hand in tests/settle."""
    file = ScenarioFile.load(path)
    for scenario in file.scenarios:
        deliveries = file.deliveries(scenario)
        batches = [deliveries[::2], deliveries[1::2], deliveries[:3]]
        with on_sqlite() as one, on_postgres(place) as other:
            for ledger in (one, other):
                file.settle_into(ledger, scenario, batches)
            assert differences(everything(one), everything(other)) == [], scenario["id"]


def test_a_payload_that_lost_before_is_a_duplicate_in_both(place: str) -> None:
    said = [Observation(oid="w0:1", attempt_id="a0", feature=each) for each in ("x", "y", "z")]
    reports: list[list[Report]] = []
    for opened in (on_sqlite(), on_postgres(place)):
        with opened as ledger:
            told: list[Report] = []
            fill(begin(ledger), Journal(((*said, *said), tuple(said))), told)
            reports.append(told)
            assert len(list(ledger.journal())) == len(said)
    assert reports[0] == reports[1]
    assert [(each.duplicates, each.conflicts) for each in reports[0]] == [(3, 2), (3, 0)]
