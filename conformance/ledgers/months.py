"""Months: closed, sealed, restated there and back, amounts by hand, and rebuilt."""

from __future__ import annotations

from contextlib import closing, suppress

import pytest

from costspan.conformance.ledgers.books import (
    FEBRUARY,
    MARCH,
    NOW,
    SECOND,
    call,
    direct,
    keep,
    same,
    whole,
)  # fmt: skip
from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.core.journal.records import Assignment, FreeLine, FreePostings
from costspan.core.ledger_errors import LedgerBusy
from costspan.core.money import PICO
from costspan.core.read.statement import statement_of
from costspan.core.rebuild import copy_books, nets
from costspan.core.restate import Hand, Target, restate
from costspan.core.schema import Observation
from costspan.core.settle.close import CloseError, broken_seals, close_period
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger


def priced(number: int, tenant: str = "acme", at: int = FEBRUARY) -> Observation:
    """2.50 USD by the first book, 2.00 by the second."""
    return Observation(
        oid=f"p:{number}", attempt_id=f"p{number}", tenant=tenant, provider_result="ok",
        started_at=at, executed_model="gpt-4o", usage={"input": 1_000_000},
    )  # fmt: skip


def close(ledger: Ledger, period: str) -> None:
    """Seal a month."""
    close_period(ledger, period, "ann", "the month is over", NOW)


def credit(cents: int, at: int = 1, period: str = "2026-02") -> FreePostings:
    """What lowers the charge of acme."""
    line = FreeLine("acme", "adjustment", None, "", "", 0, -cents * PICO // 100)
    return free_postings(
        kind="credit", period=period, lines=[line], about={"for": "an outage"}, by="ann",
        reason="goodwill", recorded_at=at,
    )  # fmt: skip


class Months:
    """What people do to books, and what stays of it."""

    def test_late_truth_is_posted_in_the_open_month(self, ledger: Ledger) -> None:
        """What is sealed stays; every amount is on exactly one statement."""
        keep(ledger, [call(1), call(2, tenant=None), call(3, started_at=MARCH)])
        close(ledger, "2026-02")
        sealed = list(ledger.sealed("2026-02"))
        keep(ledger, [Assignment("a2", "globex", "ann", "theirs", 1), call(4, "7")])
        same("what was sealed changed", list(ledger.sealed("2026-02")), sealed)
        same("seals are broken", broken_seals(ledger), [])
        late = [posting.posted_period for _, posting in ledger.postings_after(sealed[-1][0], -1)]
        same("late truth is posted in an open month", set(late), {"2026-03"})
        march = statement_of(ledger, "acme", "2026-03")
        same("an adjustment for February", march.adjusted.charge, 7 * PICO)
        charged = [
            statement_of(ledger, "acme", period).total.charge for period in ("2026-02", "2026-03")
        ]
        same("each amount is on one statement", charged, [PICO, 8 * PICO])
        whole(ledger)

    def test_closes_make_a_chain(self, factory: LedgerFactory, ledger: Ledger) -> None:
        """Whoever opens the ledger finds them; a closed month is not closed again."""
        for month, at in (("2026-01", 1), ("2026-02", FEBRUARY), ("2026-03", MARCH)):
            keep(ledger, [call(at, started_at=at * 10**9 if at == 1 else at)])
            close(ledger, month)
        with pytest.raises(CloseError):
            close(ledger, "2026-02")
        with closing(factory.ledger(ledger.url, create=False)) as opened:
            periods = [each.period for each in opened.closes()]
            same("closes", periods, ["2026-01", "2026-02", "2026-03"])
            same("each names the one before", [bool(c.previous) for c in opened.closes()],
                 [False, True, True])  # fmt: skip
            whole(opened)

    def test_restated_there_and_back_nets_to_nothing(self, ledger: Ledger) -> None:
        """Only differences are posted; said again, it posts nothing."""
        keep(ledger, [priced(1), priced(2, "globex"), priced(3, at=MARCH), call(4)])
        before, target = nets(ledger), Target(None, "2026-02")
        for at in (1, 2):
            there = restate(ledger, target, Hand("ann", "contract", at), prices=SECOND)
            same("postings", there.postings, 2 if at == 1 else 0)
        restated = before | {("acme", "direct", "2026-02"): (3 * PICO, 3 * PICO)}
        restated |= direct("globex", 2)
        same("February by the other book, March by its own", nets(ledger), restated)
        back = restate(ledger, target, Hand("ann", "no contract", 3), undo=True)
        same("postings that take it back", back.postings, 2)
        same("there and back is nothing", nets(ledger), before)
        whole(ledger)

    def test_a_sealed_month_is_restated_in_an_open_one(self, ledger: Ledger) -> None:
        """And back again there: the seal holds, the sealed statement says what it said."""
        keep(ledger, [priced(1), priced(2, "globex")])
        close(ledger, "2026-02")
        sealed = statement_of(ledger, "acme", "2026-02").plain()
        target = Target(None, "2026-02")
        restate(ledger, target, Hand("ann", "contract", 1), prices=SECOND)
        march = statement_of(ledger, "acme", "2026-03")
        same("the difference is an adjustment", march.adjusted.charge, -PICO // 2)
        same("a sealed statement changed", statement_of(ledger, "acme", "2026-02").plain(), sealed)
        restate(ledger, target, Hand("ann", "no contract", 2), undo=True)
        march = statement_of(ledger, "acme", "2026-03")
        same("there and back is nothing", march.adjusted.charge, 0)
        same("seals are broken", broken_seals(ledger), [])
        whole(ledger)

    def test_a_free_posting_stands_once(self, ledger: Ledger) -> None:
        """It is content-addressed: the same one again is the same one."""
        keep(ledger, [call(1), credit(30), credit(30)])
        keep(ledger, [credit(30)])
        keep(ledger, [credit(20, at=2), credit(5, at=3, period="2026-01")])
        same("credits", nets(ledger)["acme", "adjustment", "2026-02"], (0, -PICO // 2))
        same("of a period", len(list(ledger.free_postings("2026-02"))), 2)
        same("of an owner", len(list(ledger.free_postings(owner="acme"))), 3)
        same("of nobody", list(ledger.free_postings(owner="globex")), [])
        total = statement_of(ledger, "acme", "2026-02").total
        same("the statement has them", total.charge, PICO // 2)
        before = sorted(ledger.sums((), period="2026-02", until_day="2026-03-01"))
        same("one without a day is of the month's end", before[0][1].charge, PICO // 2)
        until = sorted(ledger.sums((), period="2026-02", until_day="2026-02-28"))
        same("not of a day before", until[0][1].charge, PICO)
        whole(ledger)

    def test_a_free_posting_of_a_sealed_month_is_posted_in_the_open_one(
        self, ledger: Ledger
    ) -> None:
        """It is of the month that it says, on the statement of the one that is open."""
        keep(ledger, [call(1), credit(10)])
        close(ledger, "2026-02")
        keep(ledger, [credit(25, at=2)])
        february = statement_of(ledger, "acme", "2026-02").total.charge
        march = statement_of(ledger, "acme", "2026-03").total.charge
        same("statements", (february, march), (PICO * 9 // 10, -PICO // 4))
        same("seals are broken", broken_seals(ledger), [])
        whole(ledger)

    def test_a_rebuild_changes_no_answer(self, factory: LedgerFactory, ledger: Ledger) -> None:
        """Derived books are thrown away and made anew; other handles go on settling."""
        keep(ledger, [call(1), priced(2), call(3, tenant=None), credit(10)])
        close(ledger, "2026-02")
        keep(ledger, [Assignment("a3", "globex", "ann", "theirs", 1), priced(4, at=MARCH)])
        with closing(factory.ledger(ledger.url)) as other:
            keep(other, [call(5, "3")])
            before = (nets(ledger), list(ledger.events()), ledger.closes(), ledger.writers())
            last = ledger.postings_after(0, -1)[-1][0]
            with ledger.rebuilding() as fresh:
                copy_books(ledger, fresh)
                with pytest.raises(LedgerBusy), other.settling(0.05):
                    pass
            for opened in (ledger, other):
                after = (nets(opened), list(opened.events()), opened.closes(), opened.writers())
                same("a rebuild changed the books", after, before)
                whole(opened)
            keep(other, [call(6, "11", tenant="initech", started_at=MARCH)])
            keep(ledger, [call(7, "13", tenant="initech", started_at=MARCH)])
            numbers = [n for n, posting in ledger.postings_after(0, -1)
                       if posting.line.owner == "initech"]  # fmt: skip
            same("numbers of postings are used again", min(numbers) > last, True)
        same("books after it", nets(ledger)["initech", "direct", "2026-03"][0], 24 * PICO)
        whole(ledger)

    def test_a_rebuild_that_fails_changes_nothing(self, ledger: Ledger) -> None:
        """The old books stay, and are settled into as before."""
        keep(ledger, [call(1), credit(10)])
        before = (list(ledger.events()), list(ledger.roll_ups()), ledger.postings_after(0, -1))
        with suppress(ZeroDivisionError), ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)
            keep(fresh, [call(9, "100")])
            raise ZeroDivisionError
        after = (list(ledger.events()), list(ledger.roll_ups()), ledger.postings_after(0, -1))
        same("a rebuild that failed left something", after, before)
        keep(ledger, [call(2)])
        same("books go on", nets(ledger), direct("acme", 2) | {
            ("acme", "adjustment", "2026-02"): (0, -PICO // 10)})  # fmt: skip
        whole(ledger)
