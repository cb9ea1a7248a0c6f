"""Corrections beside observations: whenever they come, the books are the same."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from corrections import RULES, corrected_journals, restated, restatements
from hypothesis import given, settings
from journals import (
    FEBRUARY,
    GATEWAY,
    POLICIES,
    Journal,
    journals,
    opened,
    settled,
)
from test_properties import EXAMPLES, books, decisions

from costspan.core.journal.records import FreeLine, FreePostings, Restatement
from costspan.core.read.sheet import is_balanced
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import broken_seals, close_period
from costspan.core.settle.entries import Posting
from costspan.core.settle.free import FREE_BUCKETS, FreePostingError, free_postings
from costspan.core.settle.ledger import Ledger

proving = settings(
    max_examples=EXAMPLES // 2,
)


def free_sums(ledger: Ledger) -> dict[tuple[str, str], tuple[int, int]]:
    return {key: sums for key, sums in books(ledger).items() if key[1] in FREE_BUCKETS}


@proving
@given(corrected_journals())
def test_corrections_count_whenever_they_come(
    drawn: tuple[Journal, Journal, list[Any]],
) -> None:
    """Invariants 5, 19, 22 and 23 with corrections; free postings stand once however often sent."""
    first_journal, second_journal, corrections = drawn
    with closing(settled(first_journal)) as first, closing(settled(second_journal)) as second:
        assert decisions(first) == decisions(second)
        assert nets(first) == nets(second)
        assert is_balanced(first)
        due: dict[str, list[int]] = {}
        for record in corrections:
            for line in record.lines if isinstance(record, FreePostings) else ():
                total = due.setdefault(line.owner, [0, 0])
                total[0] += line.cost
                total[1] += line.charge
        stands: dict[str, list[int]] = {}
        for (owner, _), (cost, charge) in free_sums(first).items():
            total = stands.setdefault(owner, [0, 0])
            total[0] += cost
            total[1] += charge
        assert {o: s for o, s in stands.items() if any(s)} == {
            o: s for o, s in due.items() if any(s)
        }
        with closing(opened(POLICIES[:1])) as rebuilt:
            copy_books(first, rebuilt, (GATEWAY,))
            assert decisions(rebuilt) == decisions(first)
            assert nets(rebuilt) == nets(first)
            assert is_balanced(rebuilt)


@settings(proving, max_examples=EXAMPLES // 3)
@given(journals(), restatements)
def test_restating_there_and_back_nets_to_nothing(journal: Journal, there: Restatement) -> None:
    """Invariant 11; the same restatement once more posts nothing."""
    with closing(settled(journal)) as ledger:
        before, decided = nets(ledger), decisions(ledger)
        # Over the one that may be drawn as the very policy in force: it is later than all.
        for at, rules, kept in (
            (11, there.rules, there.books), (12, there.rules, there.books), (13, None, None),
        ):  # fmt: skip
            again = restated(at, event=there.event, period=there.period, rules=rules, books=kept)
            with ledger.settling(0) as settlement:
                report = settle(settlement, [], [again], (GATEWAY,))
            if at == 12:
                assert report.postings == 0
        assert nets(ledger) == before
        assert decisions(ledger) == decided


def _lines(*lines: tuple[str, str, int, int]) -> list[FreeLine]:
    return [
        FreeLine(owner, bucket, "x", "", "", cost, charge) for owner, bucket, cost, charge in lines
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"period": "2026-13"}, "no period"),
        ({"by": " "}, "`by` is empty"),
        ({"reason": ""}, "`reason` is empty"),
        ({"lines": []}, "nothing to post"),
        ({"lines": _lines(("acme", "adjustment", 0, 0))}, "nothing to post"),
        ({"lines": _lines(("acme", "direct", 1, 1))}, "bucket 'direct'"),
        ({"lines": _lines(("@platform", "adjustment", 1, 1))}, "charged nothing"),
        ({"lines": _lines(("@who", "adjustment", 1, 1))}, "no tenant"),
        ({"lines": _lines(("a\u202e", "adjustment", 1, 1))}, "no tenant"),
        ({"lines": _lines(("acme", "adjustment", 2**63, 0))}, "9.2 million"),
        ({"kind": "allocation", "lines": _lines(("acme", "allocated", 1, 0))}, "add up to nothing"),
        ({"kind": "gift"}, "no kind"),
    ],
)  # fmt: skip
def test_amounts_that_cannot_be_posted_are_refused(changes: dict[str, Any], said: str) -> None:
    fields: dict[str, Any] = {
        "kind": "adjustment", "period": "2026-02", "lines": _lines(("acme", "adjustment", 1, 1)),
        "about": {}, "by": "ann", "reason": "so", "recorded_at": 1,
    }  # fmt: skip
    free_postings(**fields)
    with pytest.raises(FreePostingError, match=said):
        free_postings(**{**fields, **changes})


def _credit(at: int) -> FreePostings:
    return free_postings(
        kind="credit", period="2026-01", lines=_lines(("acme", "adjustment", 0, -7)), about={},
        by="ann", reason="an outage", recorded_at=at,
    )  # fmt: skip


def test_free_postings_are_sealed_late_and_rebuilt_like_others() -> None:
    with closing(opened()) as ledger, closing(opened(POLICIES[:1])) as rebuilt:
        with ledger.settling(0) as settlement:
            settle(settlement, [], [_credit(1)])
        close_period(ledger, "2026-01", "ann", "month's end", 1_800_000_000 * 10**9)
        with ledger.settling(0) as settlement:
            settle(settlement, [], [_credit(1), _credit(2)])
            settle(settlement, [], [_credit(2)])
        stands = [(each.line.effective_period, each.posted_period) for _, each in _all(ledger)]
        assert stands == [("2026-01", "2026-01"), ("2026-01", "2026-02")]
        copy_books(ledger, rebuilt)
        assert [each for _, each in _all(rebuilt)] == [each for _, each in _all(ledger)]
        assert broken_seals(rebuilt) == []
        assert is_balanced(rebuilt)


def _all(ledger: Ledger) -> list[tuple[int, Posting]]:
    return ledger.postings_after(0, 100)


def test_a_restated_month_is_decided_anew_where_it_has_no_money_too() -> None:
    """So that what stands is what a rebuild, and anybody who decides again, would say."""
    seen = [
        Observation(oid="w0:1", attempt_id="a0", started_at=FEBRUARY, flat_cost="1", tenant="acme"),
        Observation(oid="w0:2", attempt_id="a1", started_at=FEBRUARY, kind="tool", name="search"),
    ]
    with closing(opened()) as ledger, closing(opened(POLICIES[:1])) as rebuilt:
        with ledger.settling(0) as settlement:
            settle(settlement, seen, [restated(period="2026-02", rules=RULES[1])])
            settle(settlement, [], [restated(2, period="2026-02", rules=RULES[0])])
        copy_books(ledger, rebuilt)
        assert decisions(rebuilt) == decisions(ledger)
        assert {each.rules_sha256 for each in decisions(ledger).values()} == {RULES[0]}
