"""One ledger, one settler: nothing twice, nothing lost, nothing of a transaction that failed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress

import pytest

from costspan.conformance.ledgers.books import (
    FEBRUARY,
    begin,
    call,
    calls,
    direct,
    holds_calls,
    keep,
    same,
    whole,
)  # fmt: skip
from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.core.journal.records import Assignment, FreeLine
from costspan.core.ledger_errors import LedgerError, LedgerMissing
from costspan.core.money import PICO
from costspan.core.read.statement import statement_of
from costspan.core.rebuild import nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger


class Record:
    """What becomes of records, one settler at a time."""

    def test_reading_creates_nothing(self, factory: LedgerFactory, url: str) -> None:
        """Whoever mistypes a URL must not be shown empty books."""
        with pytest.raises(LedgerMissing):
            factory.ledger(url, create=False).close()
        with closing(factory.ledger(url)) as made:
            begin(made)
        with closing(factory.ledger(url, create=False)) as opened:
            same("a ledger that was made is not there", opened.counts("events")["events"], 0)

    def test_a_batch_twice_is_a_batch(self, ledger: Ledger) -> None:
        """What a spool delivers again, after a crash between commit and delete."""
        first, again = keep(ledger, calls(range(20))), keep(ledger, calls(range(20)))
        same("new records are not counted", (first.observations, first.duplicates), (20, 0))
        same("duplicates are not noticed", (again.observations, again.duplicates), (0, 20))
        same("a batch that came again posted something", again.postings, 0)
        holds_calls(ledger, range(20))

    def test_overlapping_batches_count_once(self, ledger: Ledger) -> None:
        """Also within one batch, and in another order."""
        for first, last in ((0, 12), (7, 19), (3, 9), (0, 30)):
            batch = calls(range(first, last))
            keep(ledger, [*batch, *batch[::-2]])
        holds_calls(ledger, range(30))

    def test_of_two_payloads_under_one_oid_the_same_wins_in_any_order(
        self, new_ledger: Callable[[], Ledger]
    ) -> None:
        """A conflict is kept and counted; which payload speaks is no matter of arrival."""
        said = [call(1, "5", feature=each) for each in ("x", "y", "z")]
        orders = ([said], [said[::-1]], [[each] for each in said], [[e] for e in (*said, *said)])
        books: list[object] = []
        for batches in orders:
            ledger = begin(new_ledger())
            conflicts = sum(keep(ledger, batch).conflicts for batch in batches)
            same("conflicts are not counted, or twice", conflicts, 2)
            same("a payload that lost is not kept", len(list(ledger.journal())), 3)
            same("the call is counted", nets(ledger), direct("acme", 5))
            books.append((list(ledger.events()), ledger.problems()))
            whole(ledger)
        for each in books[1:]:
            same("another order, other books", each, books[0])

    def test_late_evidence_moves_an_event_and_leaves_nothing_behind(self, ledger: Ledger) -> None:
        """Only the difference is posted, and the old line is empty again."""
        keep(ledger, [call(1, tenant=None), call(2, tenant=None)])
        nobody = ("@unattributed", "unattributed", "2026-02")
        same("nobody's calls", nets(ledger), {nobody: (2 * PICO, 0)})
        keep(ledger, [Observation(oid="late:1", attempt_id="a1", tenant="globex")])
        postings = ledger.postings("a1")
        same("a move takes back and posts", [each.events for each in postings], [1, -1, 1])
        books = nets(ledger)
        same("who did it pays", books["globex", "direct", "2026-02"], (PICO, PICO))
        same("nobody's is left", books[nobody], (PICO, 0))
        whole(ledger)

    def test_totals_above_what_an_int64_holds_in_pico(self, ledger: Ledger) -> None:
        """9.2 million USD is 2**63 pico: a sum over a year is more, and is exact."""
        each = "8999999.999999999999"
        keep(ledger, [call(number, each) for number in range(12)])
        total = 12 * (9_000_000 * PICO - 1)
        book = free_postings(
            kind="adjustment", period="2026-02", about={}, by="ann", reason="many", recorded_at=1,
            lines=[FreeLine("acme", "adjustment", None, "", str(n), 2**63 - 1, 2**63 - 1)
                   for n in range(3)],
        )  # fmt: skip
        keep(ledger, [book])
        more = total + 3 * (2**63 - 1)
        same("roll-up", sum(line.cost for line in ledger.roll_ups()), more)
        same("a line", nets(ledger)["acme", "direct", "2026-02"], (total, total))
        sums = {key: (found.cost, found.charge) for key, found in ledger.sums(("owner",))}
        same("sums", sums, {("acme",): (more, more)})
        same("statement", statement_of(ledger, "acme", "2026-02").total.charge, more)
        whole(ledger)
        moved = [Assignment(f"a{number}", "globex", "ann", "theirs", 1) for number in range(12)]
        keep(ledger, moved)
        left = nets(ledger)
        same("moved away exactly", ("acme", "direct", "2026-02") in left, False)
        same("moved there exactly", left["globex", "direct", "2026-02"], (total, total))
        whole(ledger)

    def test_the_greatest_amount_of_one_event_is_exact_and_a_greater_one_unknown(
        self, ledger: Ledger
    ) -> None:
        """2**63 - 1 pico; what is more is no amount, rather than a wrong one."""
        most = 2**63 - 1
        keep(
            ledger, [call(1, f"{most // PICO}.{most % PICO:012}"), call(2, "9223372.036854775808")]
        )
        costs = [each.decision.cost for each in ledger.events() if each.decision is not None]
        same("costs", costs, [most, None])
        same("a line", nets(ledger), {("acme", "direct", "2026-02"): (most, most)})
        same("statement", statement_of(ledger, "acme", "2026-02").total.charge, most)
        same("unpriced", ledger.counts("unpriced", "unmeasured"), {"unpriced": 0, "unmeasured": 1})
        whole(ledger)

    def test_below_zero_the_remainders_are_right_too(self, ledger: Ledger) -> None:
        """A negative amount of pico is no rounding."""
        for number, amount in enumerate((-1, -PICO, PICO - 1, -(2**63 - 1), 2)):
            line = FreeLine("acme", "adjustment", None, "", "", amount, -amount)
            keep(ledger, [free_postings(
                kind="adjustment", period="2026-02", about={}, by="ann", reason="odd",
                recorded_at=number, lines=[line],
            )])  # fmt: skip
        total = -(2**63 - 1)
        same("sum", nets(ledger)["acme", "adjustment", "2026-02"], (total, -total))
        whole(ledger)

    def test_what_fails_in_the_middle_leaves_nothing(self, ledger: Ledger) -> None:
        """A settlement is all or nothing; the ledger goes on afterwards."""
        keep(ledger, calls(range(3)))
        before = (list(ledger.events()), list(ledger.roll_ups()), ledger.writers())
        with suppress(ZeroDivisionError), ledger.settling(1) as settlement:
            settle(settlement, calls(range(2, 9)))
            raise ZeroDivisionError
        after = (list(ledger.events()), list(ledger.roll_ups()), ledger.writers())
        same("a settlement that failed left something", after, before)
        keep(ledger, calls(range(2, 9)))
        holds_calls(ledger, range(9))

    def test_texts_come_back_as_they_went_and_in_the_order_of_code_points(
        self, ledger: Ledger
    ) -> None:
        """Also what databases have their own mind about: NUL, case, accents, length."""
        names = ["Z", "a", "B", "\u00e4", "e\u0301", "\u00e9", "a\x00b", "\U0001f600", "\uffff",
                 "_", "-", "x" * 300, "%", "'", '"', "\\", "\x01", "a b", "a  b"]  # fmt: skip
        keep(ledger, [call(n, attempt_id=name, feature=name) for n, name in enumerate(names)])
        events = list(ledger.events())
        same("order of events", [each.event.id for each in events], sorted(names))
        same(
            "texts", {each.event.id: each.event.facts.feature for each in events},
            {name: name for name in names},
        )  # fmt: skip
        for name in names:
            same(f"{name!r} is found", ledger.find_events(name), [name])
        whole(ledger)

    def test_a_batch_of_thousands(self, ledger: Ledger) -> None:
        """Whatever a store does differently with many rows than with few."""
        keep(ledger, [call(0, tenant="t0"), *calls(range(3000))])
        keep(ledger, calls(range(2500, 3500)))
        holds_calls(ledger, range(3500))
        same("times", len(ledger.reading().started_since(FEBRUARY)), 3500)

    def test_a_reader_sees_one_state_of_the_books(
        self, factory: LedgerFactory, ledger: Ledger
    ) -> None:
        """Nothing of what is not committed, and within a snapshot nothing new."""
        keep(ledger, calls(range(3)))
        with closing(factory.ledger(ledger.url, create=False)) as reader:
            with ledger.settling(1) as settlement:
                settle(settlement, calls(range(3, 6)))
                same("uncommitted is read", reader.counts("events")["events"], 3)
            same("committed is not read", reader.counts("events")["events"], 6)
            with reader.snapshot():
                same("a snapshot", len(list(reader.events())), 6)
                keep(ledger, calls(range(6, 9)))
                same("a snapshot changed", len(list(reader.events())), 6)
                same("a snapshot's lines changed", len(list(reader.roll_ups())), 6)
            holds_calls(reader, range(9))

    def test_the_server_may_be_killed_in_the_middle(
        self, factory: LedgerFactory, ledger: Ledger
    ) -> None:
        """Connection lost, nothing kept, and the same handle settles afterwards."""
        keep(ledger, calls(range(3)))
        was_told = False
        try:
            with ledger.settling(1) as settlement:
                settle(settlement, calls(range(3, 6)))
                if not factory.restart_server():
                    pytest.skip(f"{factory.name} has no server that the suite may kill")
        except LedgerError:
            was_told = True
        same("a settlement that the server lost is said to be kept", was_told, True)
        keep(ledger, calls(range(2, 6)))
        holds_calls(ledger, range(6))
