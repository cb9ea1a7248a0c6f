"""Restating through a real ledger: differences alone, idempotent, and nothing there and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import PRICES, at, call, close_month, keep, shelf

from costspan.core.decide import load_rules
from costspan.core.journal.records import POLICY_BOOKS, Policy, Restatement
from costspan.core.money import PICO
from costspan.core.prices import ChargeBook, ChargeEntry, PriceBook
from costspan.core.read.sheet import is_balanced
from costspan.core.rebuild import copy_books, nets
from costspan.core.restate import Hand, RestateError, Target, restate
from costspan.core.settle import settle
from costspan.core.settle.entries import Amount
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.verify import Problem, verify

DEARER = PriceBook.from_table("contract", {"gpt-4o": {"input": "5", "output": "20"}})
CHEAPER = PriceBook.from_table("contract", {"gpt-4o": {"input": "1", "output": "1"}})
NOVEMBER = Target(None, "2026-11")
USAGE: dict[str, Any] = {"flat_cost": None, "usage": {"input": 1_000_000}}
"""2.50 USD by the list."""


def hand(at_ns: int = 1) -> Hand:
    return Hand("ann", "the contract came late", at_ns)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, **USAGE),
            call(2, **USAGE, tenant="globex"),
            call(3),
            call(4, **USAGE, executed_model="mystery"),
            call(5, "2026-12-01", **USAGE),
        )
        yield ledger


def charged(ledger: Ledger) -> dict[tuple[str, str, str], tuple[int, int]]:
    return nets(ledger)


def usd(whole: str) -> int:
    pico: int = int(whole.replace(".", "")) * PICO // 10 ** len(whole.partition(".")[2])
    return pico


def test_a_month_is_restated_with_other_prices(ledger: Ledger) -> None:
    before = charged(ledger)
    change = restate(ledger, NOVEMBER, hand(), prices=DEARER)
    assert (change.recorded, change.events, change.changed, change.postings) == (True, 4, 2, 2)
    assert change.differences == {
        "acme": Amount(usd("2.5"), usd("2.5")),
        "globex": Amount(usd("2.5"), usd("2.5")),
    }
    assert change.books == (DEARER.sha256, POLICY_BOOKS)
    now = charged(ledger)
    assert now["globex", "direct", "2026-11"] == (usd("5"), usd("5"))
    december = ("acme", "direct", "2026-12")
    assert now[december] == before[december] == (usd("2.5"), usd("2.5"))
    assert is_balanced(ledger)


def test_again_it_posts_nothing_and_records_nothing(ledger: Ledger) -> None:
    restate(ledger, NOVEMBER, hand(1), prices=DEARER)
    postings, controls = ledger.counts("postings"), ledger.controls()
    again = restate(ledger, NOVEMBER, hand(2), prices=DEARER)
    assert (again.recorded, again.changed, again.postings, again.differences) == (False, 0, 0, {})
    assert (ledger.counts("postings"), ledger.controls()) == (postings, controls)


def test_the_same_prices_in_another_book_post_nothing(ledger: Ledger) -> None:
    same = PriceBook(
        id="contract",
        rows=tuple(
            PriceBook.from_table("contract", {"gpt-4o": dict(row.rates)}).rows[0]
            for row in PRICES.rows
        ),
    )
    change = restate(ledger, NOVEMBER, hand(), prices=same)
    assert (change.recorded, change.changed, change.postings) == (True, 0, 0)


def test_tried_only_it_changes_nothing(ledger: Ledger) -> None:
    before, controls = charged(ledger), ledger.controls()
    change = restate(ledger, NOVEMBER, hand(), prices=DEARER, dry_run=True)
    assert (change.recorded, change.changed, change.postings) == (False, 2, 2)
    assert (charged(ledger), ledger.controls()) == (before, controls)
    assert [name for _, name, _ in ledger.reading().price_book_versions()] == ["list"]


def test_undo_takes_it_back(ledger: Ledger) -> None:
    before = charged(ledger)
    restate(ledger, NOVEMBER, hand(1), prices=DEARER)
    undone = restate(ledger, NOVEMBER, hand(2), undo=True)
    assert (undone.recorded, undone.changed) == (True, 2)
    assert charged(ledger) == before
    assert restate(ledger, NOVEMBER, hand(3), undo=True).recorded is False


def test_a_book_that_was_kept_is_called_by_its_hash(ledger: Ledger) -> None:
    before = charged(ledger)
    restate(ledger, NOVEMBER, hand(1), prices=DEARER)
    restate(ledger, NOVEMBER, hand(2), prices=CHEAPER)
    assert charged(ledger)["globex", "direct", "2026-11"] == (usd("1"), usd("1"))
    restate(ledger, NOVEMBER, hand(3), prices=DEARER.sha256[:12])
    assert charged(ledger)["globex", "direct", "2026-11"] == (usd("5"), usd("5"))
    restate(ledger, NOVEMBER, hand(4), prices="list")
    assert charged(ledger) == before
    with pytest.raises(RestateError, match="several kept price books are called 'contract'"):
        restate(ledger, NOVEMBER, hand(5), prices="contract")
    with pytest.raises(RestateError, match="no kept price book 'nobodys'"):
        restate(ledger, NOVEMBER, hand(5), prices="nobodys")


def test_a_book_takes_the_place_of_its_namesake(ledger: Ledger) -> None:
    newer = PriceBook.from_table("list", {"gpt-4o": {"input": "3", "output": "3"}})
    assert restate(ledger, NOVEMBER, hand(), prices=newer).books == (newer.sha256, POLICY_BOOKS)
    assert charged(ledger)["globex", "direct", "2026-11"] == (usd("3"), usd("3"))


def test_one_event_is_restated(ledger: Ledger) -> None:
    before = charged(ledger)
    change = restate(ledger, Target("a000001", None), hand(1), prices=DEARER)
    assert (change.events, change.changed) == (1, 1)
    assert list(change.differences) == ["acme"]
    restate(ledger, NOVEMBER, hand(2), prices=CHEAPER)
    undone = restate(ledger, Target("a000001", None), hand(3), undo=True)
    assert undone.changed == 0  # of its month it was said later, and that stands
    restate(ledger, NOVEMBER, hand(4), undo=True)
    assert charged(ledger) == before
    with pytest.raises(RestateError, match="no event nobodys"):
        restate(ledger, Target("nobodys", None), hand(), prices=DEARER)


def test_what_was_said_of_an_event_alone_goes_and_its_month_stays(ledger: Ledger) -> None:
    restate(ledger, NOVEMBER, hand(1), prices=CHEAPER)
    by_month = charged(ledger)
    restate(ledger, Target("a000001", None), hand(2), prices=DEARER)
    assert charged(ledger) != by_month
    restate(ledger, Target("a000001", None), hand(3), undo=True)
    assert charged(ledger) == by_month


def test_the_later_word_counts_whatever_the_clock_says(ledger: Ledger) -> None:
    restate(ledger, NOVEMBER, hand(100), prices=DEARER)
    restate(ledger, NOVEMBER, hand(5), prices=CHEAPER)
    assert charged(ledger)["globex", "direct", "2026-11"] == (usd("1"), usd("1"))


def test_rules_and_charges_are_restated_beside_prices(ledger: Ledger) -> None:
    restate(ledger, NOVEMBER, hand(1), prices=DEARER)
    double = ChargeBook(id="c", entries=(ChargeEntry(book="c", tenant="globex", factor="2"),))
    change = restate(ledger, NOVEMBER, hand(2), charges=double)
    assert change.differences == {"globex": Amount(0, usd("5"))}
    assert change.books == (DEARER.sha256, POLICY_BOOKS)
    change = restate(ledger, NOVEMBER, hand(3), rules=load_rules('profile = "chargeback"'))
    assert change.differences == {"globex": Amount(0, -usd("5"))}  # nothing above cost
    assert is_balanced(ledger)


def test_in_a_sealed_month_the_difference_is_posted_in_the_open_one(ledger: Ledger) -> None:
    close_month(ledger, "2026-11")
    restate(ledger, NOVEMBER, hand(at("2027-01-02")), prices=DEARER)
    late = [each for each in ledger.postings("a000001") if each.posted_period == "2026-12"]
    assert [each.amount.cost for each in late] == [usd("2.5")]
    assert late[0].line.effective_period == "2026-11"


def renew(ledger: Ledger, book: PriceBook) -> None:
    """The public list is renewed on the 20th, and there is a call after it."""
    with ledger.settling(1) as settlement:
        settlement.keep_price_book(book)
        (policy,) = settlement.policies()
        settle(settlement, [], [Policy(policy.rules, (book.sha256,), at("2026-11-20"), "test")])
    keep(ledger, call(6, "2026-11-25", **USAGE))


def test_behind_the_new_book_stand_those_of_each_events_own_policy(
    ledger: Ledger, tmp_path: Path
) -> None:
    """The list of the 20th has a price for the mystery of the 5th; the 5th's has none."""
    newer = PriceBook.from_table("list", {"gpt-4o": {"input": "9"}, "mystery": {"input": "3"}})
    renew(ledger, newer)
    keep(ledger, call(7, "2026-11-26", **USAGE, executed_model="mystery"))
    before = charged(ledger)
    mini = PriceBook.from_table("contract", {"gpt-4o-mini": {"input": "1"}})
    done = restate(ledger, NOVEMBER, hand(), prices=mini)
    assert (done.recorded, done.changed, done.books) == (True, 0, (mini.sha256, POLICY_BOOKS))
    assert charged(ledger) == before
    restate(ledger, NOVEMBER, hand(2), prices=DEARER)
    costs = {
        each.event.id: each.decision and each.decision.cost
        for each in ledger.events(["a000001", "a000004", "a000006", "a000007"])
    }
    assert costs == {
        "a000001": usd("5"), "a000004": None, "a000006": usd("5"), "a000007": usd("3"),
    }  # fmt: skip
    keep(ledger, call(8, **USAGE, executed_model="mystery"))  # late, of the earlier policy
    (late,) = ledger.events(["a000008"])
    assert late.decision is not None
    assert late.decision.cost is None
    with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new:
        copy_books(ledger, new)
        assert nets(new) == nets(ledger)
        assert not [found for found in verify(new) if isinstance(found, Problem)]
    restate(ledger, NOVEMBER, hand(3), undo=True)
    assert charged(ledger) == before


def test_a_namesake_takes_the_place_of_every_policys(ledger: Ledger) -> None:
    renew(ledger, PriceBook.from_table("list", {"mystery": {"input": "3"}}))
    newest = PriceBook.from_table("list", {"gpt-4o": {"input": "4"}})
    restate(ledger, NOVEMBER, hand(), prices=newest)
    keep(ledger, call(7, "2026-11-26", **USAGE, executed_model="mystery"))
    found = {each.event.id: each.decision and each.decision.cost for each in ledger.events()}
    assert (found["a000001"], found["a000006"]) == (usd("4"), usd("4"))
    assert found["a000007"] is None


def test_a_rebuild_restates_too(ledger: Ledger, tmp_path: Path) -> None:
    double = ChargeBook(id="c", entries=(ChargeEntry(book="c", tenant=None, factor="2"),))
    restate(ledger, NOVEMBER, hand(1), prices=DEARER)
    restate(ledger, NOVEMBER, hand(2), charges=double)
    with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as new:
        copy_books(ledger, new)
        assert nets(new) == nets(ledger)
        assert new.charge_books() == {double.sha256: double}


def test_a_late_event_of_a_restated_month_is_priced_likewise(ledger: Ledger) -> None:
    restate(ledger, NOVEMBER, hand(), prices=DEARER)
    keep(ledger, call(9, **USAGE, tenant="late"))
    assert charged(ledger)["late", "direct", "2026-11"] == (usd("5"), usd("5"))


def test_without_a_policy_there_is_nothing_to_restate(tmp_path: Path) -> None:
    with closing(open_url(f"sqlite:///{tmp_path / 'new.db'}", create=True)) as ledger:
        with pytest.raises(RestateError, match="nothing was ever drained into this ledger"):
            restate(ledger, NOVEMBER, hand(), prices=DEARER)
        assert ledger.controls() == []


@pytest.mark.parametrize(
    ("said", "message"),
    [({}, "nothing to restate with"), ({"by": " "}, "every hand"), ({"reason": ""}, "every hand")],
)
def test_what_is_not_said_is_refused(ledger: Ledger, said: dict[str, Any], message: str) -> None:
    who = hand()._replace(**said)
    with pytest.raises(RestateError, match=message):
        restate(ledger, NOVEMBER, who, prices=DEARER if said else None)


_books = st.sampled_from([DEARER, CHEAPER, PRICES])
_steps = st.lists(
    st.tuples(st.sampled_from(["a000001", "a000002", None]), _books | st.none()),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25)
@given(_steps)
def test_there_and_back_nets_to_nothing(steps: list[tuple[str | None, Any]]) -> None:
    """Whatever was restated with whatever, in whatever order: after the undo all is as it was."""
    with closing(shelf()) as ledger:
        keep(ledger, call(1, **USAGE), call(2, **USAGE, tenant="globex"), call(3))
        before = charged(ledger)
        for number, (event, book) in enumerate(steps):
            target = Target(event, None) if event else NOVEMBER
            for again in (False, True):
                who = hand(10 * number + again + 1)
                change = restate(ledger, target, who, prices=book, undo=book is None)
                assert not (again and change.postings)
            for each in ledger.events():
                net = sum(posting.amount.cost for posting in ledger.postings(each.event.id))
                assert each.decision is not None
                assert net == each.decision.cost
        restate(ledger, NOVEMBER, hand(100), undo=True)
        assert charged(ledger) == before
        assert all(isinstance(each, Policy | Restatement) for each in ledger.controls())
