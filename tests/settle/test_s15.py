"""S15 in full through a real ledger: a sealed month, and the late truth that the next one carries.

The events are those of the golden scenario; by hand, in micro-USD: February 3,500, never edited;
March 2,800 + 2,500 - 140 - 100 = 5,060; then what the provider billed beyond that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from costspan.conformance.scenario import ScenarioFile, observation_of
from costspan.core.config import Config
from costspan.core.decide import load_profile
from costspan.core.journal.records import Close, FreeLine, Policy, Restatement
from costspan.core.prices import PriceBook
from costspan.core.rebuild import nets, rebuild
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import close_period
from costspan.core.settle.entries import Amount
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Checkpoint, Problem, verify

FILE = ScenarioFile.load(Path(__file__).parents[1] / "golden" / "ownership.json")
MICRO = 10**6  # pico-USD
MARCH_1 = 1_772_323_200 * 10**9
MARCH_2, MARCH_5, APRIL_2 = (MARCH_1 + days * 86_400 * 10**9 for days in (1, 4, 32))
LOWER = PriceBook.from_table("v1.1", {"gpt-4o": {"input": "2.40", "output": "9.60"}})


def delivered() -> dict[str, Observation]:
    """The deliveries; what the file says of books and periods, the policies here have to find."""
    (scenario,) = [each for each in FILE.scenarios if each["id"] == "S15"]
    return {
        each["id"]: msgspec.structs.replace(
            observation_of(each), price_book=None, period=None, effective_period=None
        )
        for each in scenario["deliveries"]
    }


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(open_url(f"sqlite:///{tmp_path / 'ledger.db'}", create=True)) as opened:
        with opened.settling(1) as settlement:
            rules = load_profile("billing")
            settlement.keep_rule_set(rules)
            books = {book.id: book.sha256 for book in FILE.books}
            for book in (*FILE.books, LOWER):
                settlement.keep_price_book(book)
            until, since = ((books["v1"],), 0), ((books["v2"],), MARCH_1)
            policies = [Policy(rules.sha256, *each, "test") for each in (until, since)]
            settle(settlement, [], policies)
        yield opened


def by_month(ledger: Ledger) -> dict[str, int]:
    """Month in which it was posted -> cost in micro-USD."""
    sums: dict[str, int] = {}
    for each in ledger.roll_ups():
        sums[each.posted_period] = sums.get(each.posted_period, 0) + each.cost
    return {month: cost // MICRO for month, cost in sorted(sums.items())}


def problems(ledger: Ledger) -> list[str]:
    return [each.what for each in verify(ledger) if isinstance(each, Problem)]


def told(ledger: Ledger) -> Close:
    """The whole story; returns the close of February."""
    events = delivered()
    with ledger.settling(1) as settlement:
        settle(settlement, [events["e1"], events["e2"]])
    assert by_month(ledger) == {"2026-02": 3500, "2026-03": 2800}
    february = close_period(ledger, "2026-02", "ann", "month's end", MARCH_2)
    with ledger.settling(1) as settlement:
        settle(settlement, [events["e3"]])
    assert by_month(ledger) == {"2026-02": 3500, "2026-03": 5300}
    lower = Restatement(
        None, "2026-02", None, (LOWER.sha256,), "ann", "the contract said 2.40", MARCH_5
    )
    with ledger.settling(1) as settlement:
        settle(settlement, [], [lower])
    return february


def invoice_adjusted(ledger: Ledger, micro: int) -> None:
    line = FreeLine("@platform", "adjustment", "invoice", "", "", micro * MICRO, 0)
    record = free_postings(
        kind="invoice_adjust", period="2026-02", lines=[line], about={"invoice": "i-2"},
        by="ann", reason="as billed", recorded_at=MARCH_5,
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        settle(settlement, [], [record])


def test_march_carries_what_came_after_february_was_closed(ledger: Ledger) -> None:
    february = told(ledger)
    corrections = [
        (posting.event_id, posting.line.effective_period, posting.posted_period, posting.amount)
        for _, posting in ledger.postings_after(3, 10)
    ]
    assert corrections == [
        ("e1", "2026-02", "2026-03", Amount(-140 * MICRO, -140 * MICRO)),
        ("e3", "2026-02", "2026-03", Amount(-100 * MICRO, -100 * MICRO)),
    ]
    assert by_month(ledger) == {"2026-02": 3500, "2026-03": 5060}
    assert nets(ledger)["acme", "direct", "2026-02"] == (5760 * MICRO, 5760 * MICRO)
    invoice_adjusted(ledger, 75)
    assert by_month(ledger) == {"2026-02": 3500, "2026-03": 5135}
    assert [each for each in ledger.closes() if each == february]
    assert problems(ledger) == []
    march = close_period(ledger, "2026-03", "ann", "month's end", APRIL_2)
    first, second = [each for each in verify(ledger) if isinstance(each, Checkpoint)]
    assert (first.close, first.is_sealed, second.close, second.is_sealed) == (
        february, True, march, True
    )  # fmt: skip
    assert (february.postings, march.postings) == (1, 5)


def test_a_rebuild_tells_the_same_story(ledger: Ledger, tmp_path: Path) -> None:
    told(ledger)
    invoice_adjusted(ledger, 75)
    before = nets(ledger), by_month(ledger), ledger.closes()
    rebuild(Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path))
    assert (nets(ledger), by_month(ledger), ledger.closes()) == before
    assert problems(ledger) == []


@pytest.mark.parametrize("event", ["e1", "e3"])
def test_a_flipped_byte_is_named(ledger: Ledger, tmp_path: Path, event: str) -> None:
    """One of the sealed month, and one that nothing has sealed yet."""
    told(ledger)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as foreign, foreign:
        trigger = "SELECT sql FROM sqlite_master WHERE name = 'postings_no_update'"
        (sql,) = foreign.execute(trigger).fetchone()
        foreign.execute("DROP TRIGGER postings_no_update")
        first = "SELECT min(id) FROM postings WHERE event_id = ?"
        (number,) = foreign.execute(first, (event,)).fetchone()
        foreign.execute("UPDATE postings SET cost = cost + 1 WHERE id = ?", (number,))
        foreign.execute(sql)
    found = problems(ledger)
    assert any(f"event {event}: its postings" in text for text in found)
    assert any(text.startswith("checkpoint 2026-02:") for text in found) == (event == "e1")
