"""The same records and the same hands: the same answers as SQLite's ledger gives."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from costspan.conformance.ledgers.answers import everything, whole_books
from costspan.conformance.ledgers.books import (
    MARCH,
    NOW,
    SECOND,
    alike,
    begin,
    keep,
    same,
    whole,
)  # fmt: skip
from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.ledgers.journals import Batch, arrivals, journal
from costspan.conformance.scenario import ScenarioFile
from costspan.conformance.scenario import differences as differences_of_books
from costspan.core.journal.records import FreeLine
from costspan.core.money import PICO
from costspan.core.rebuild import copy_books, nets
from costspan.core.restate import Hand, Target, restate
from costspan.core.schema import Observation
from costspan.core.settle.close import close_period
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger, open_url

JOURNALS = 16
"""So many are drawn, each from its number."""
GOLDEN = ("merge", "ownership", "settlement")

NewLedger = Callable[[], Ledger]


def in_memory() -> closing[Ledger]:
    """SQLite's, what others are held against."""
    return closing(open_url("sqlite:///:memory:", create=True))


def fill(ledger: Ledger, batches: list[Batch]) -> Ledger:
    """Settle every batch."""
    for batch in batches:
        keep(ledger, batch)
    return ledger


def hands(ledger: Ledger, seed: int) -> None:
    """What people do to books: months closed, restated and taken back, amounts by hand."""
    chance = random.Random(f"hands {seed}")

    def close(period: str) -> Callable[[], object]:
        return lambda: close_period(ledger, period, "ann", "over", NOW, timeout_seconds=30)

    def restated(at: int, undo: bool) -> Callable[[], object]:
        target, hand = Target(None, "2026-02"), Hand("ann", "the contract", at)
        prices = None if undo else SECOND
        return lambda: restate(ledger, target, hand, prices=prices, undo=undo)

    lines = (
        FreeLine("acme", "adjustment", None, "", "", 0, -PICO // 3),
        FreeLine("globex", "adjustment", None, "2026-01-31", "gpt-4o", 5, 7 * PICO),
    )
    credit = free_postings(
        kind="credit", period="2026-01", lines=lines, about={"why": "a fault"}, by="ann",
        reason="goodwill", recorded_at=MARCH,
    )  # fmt: skip
    steps: list[Callable[[], object]] = [
        close("2026-01"),
        restated(1, False),
        restated(2, True),
        lambda: keep(ledger, [credit]),
    ]
    chance.shuffle(steps)
    steps.append(close("2026-02"))
    for step in steps:
        step()


class Alike:
    """Answers held against SQLite's, and against what was worked out by hand."""

    @pytest.mark.parametrize("seed", range(JOURNALS))
    def test_a_random_journal_is_answered_as_by_sqlite(
        self, new_ledger: NewLedger, seed: int
    ) -> None:
        """Roll-ups, sums, events, problems, statements, explanations: all there is to read."""
        with in_memory() as other:
            expected = everything(fill(begin(other), journal(seed)))
        ledger = fill(begin(new_ledger()), journal(seed))
        alike(f"journal {seed} is answered", everything(ledger), expected)
        whole(ledger)

    @pytest.mark.parametrize("seed", range(100, 106))
    def test_hands_upon_a_random_journal_are_answered_as_by_sqlite(
        self, new_ledger: NewLedger, seed: int
    ) -> None:
        """Closed, restated there and back, credited; then the rest of the journal comes late."""
        batches = journal(seed)
        found: list[dict[str, Any]] = []
        with in_memory() as other:
            for ledger in (other, new_ledger()):
                fill(begin(ledger), batches[::2])
                hands(ledger, seed)
                found.append(everything(fill(ledger, batches[1::2])))
                whole(ledger)
        alike(f"journal {seed}, with hands upon it, is answered", found[1], found[0])

    @pytest.mark.parametrize("seed", range(200, 206))
    def test_any_order_and_batching_gives_the_same_books(
        self, new_ledger: NewLedger, seed: int
    ) -> None:
        """The books are a function of what was recorded, not of when it came."""
        batches = journal(seed)
        records = [each for batch in batches for each in batch]
        one = fill(begin(new_ledger()), batches)
        other = fill(begin(new_ledger()), arrivals(records, seed))
        same("events depend on the order of arrival", list(one.events()), list(other.events()))
        same("amounts depend on the order of arrival", nets(one), nets(other))
        same("problems depend on the order of arrival", one.problems(), other.problems())

    @pytest.mark.parametrize("seed", range(300, 304))
    def test_books_move_from_one_kind_of_ledger_into_the_other(
        self, new_ledger: NewLedger, seed: int
    ) -> None:
        """There and back: a team that outgrew its file loses nothing, and may go home again."""
        batches, ledger = journal(seed), new_ledger()
        with in_memory() as before, in_memory() as after:
            fill(begin(before), batches)
            hands(before, seed)
            copy_books(before, ledger)
            copy_books(ledger, after)
            for moved in (ledger, after):
                same("events changed by moving", list(moved.events()), list(before.events()))
                same("amounts changed by moving", nets(moved), nets(before))
                same("seals changed by moving", moved.closes(), before.closes())
                same("roll-up", list(moved.roll_ups()), list(moved.added_up()))

    @pytest.mark.parametrize("name", GOLDEN)
    def test_golden_scenarios_have_the_books_worked_out_by_hand(
        self, factory: LedgerFactory, name: str
    ) -> None:
        """Whatever batches they come in, some twice."""
        file = _golden(name)
        for scenario in file.scenarios:
            deliveries = file.deliveries(scenario)
            batches = [deliveries[::2], deliveries[1::2], deliveries[:3]]
            _holds_golden(factory, file, scenario, batches, everything)

    @pytest.mark.parametrize("seed", [1])
    @pytest.mark.parametrize("name", GOLDEN)
    def test_golden_scenarios_have_them_in_another_order(
        self, factory: LedgerFactory, name: str, seed: int
    ) -> None:
        """As `costspan replay --shuffle SEED --batches 3` plays them."""
        file = _golden(name)
        for scenario in file.scenarios:
            batches = file.arrivals(scenario, batches=3, shuffle=seed)
            _holds_golden(factory, file, scenario, batches, whole_books)


def _golden(name: str) -> ScenarioFile:
    path = files("costspan.conformance").joinpath("golden", f"{name}.json")
    return ScenarioFile.load(Path(str(path)))


def _holds_golden(
    factory: LedgerFactory,
    file: ScenarioFile,
    scenario: Mapping[str, Any],
    batches: Sequence[Sequence[Observation]],
    asked: Callable[[Ledger], dict[str, Any]],
) -> None:
    """The expected books; and to all that is asked, SQLite's answers."""
    __tracebackhide__ = True
    what, url = f"{Path(file.name).stem} {scenario['id']}", factory.empty()
    with closing(factory.ledger(url)) as ledger, in_memory() as other:
        books = file.books_of(scenario, batches, ledger)
        same(what, differences_of_books(books, scenario["expected"]), [])
        file.settle_into(other, scenario, batches)
        alike(f"{what} is answered", asked(ledger), asked(other))
    factory.gone(url)
