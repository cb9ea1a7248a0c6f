"""An assignment, late observations, restatements and closes, in any order: nobody pays twice.

Whatever comes when: each event's postings sum to its current decision (invariant 22), what the last
correction says stands, and the books are those of the same records in any other order, but for the
month an entry is posted in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import FEBRUARY, FIRST_BOOK, JANUARY, SECOND_BOOK, some

from costspan.core.decide import load_profile
from costspan.core.journal.records import Assignment, Control, Policy, Restatement
from costspan.core.prices import PriceBook
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import Ledger, open_url

RULES = load_profile("billing")
CHARGEBACK = load_profile("chargeback")
DEAR = PriceBook.from_table("v1", {"gpt-4o": {"input": "7", "output": "11.1"}})
EVENTS = ("a0", "a1", "a2")
TENANTS = ("acme", "globex", "initech")
Record = Observation | Control

proving = settings(max_examples=60)


class Close(NamedTuple):
    """A month is closed between two batches."""

    period: str


def seen(event: str, seq: int, **facts: Any) -> Observation:
    said: dict[str, Any] = {
        "provider_result": "ok",
        "requested_model": "gpt-4o",
        "executed_model": "gpt-4o",
        "usage": {"input": 1000, "output": 10},
        "cause": "primary",
        "initiator": "user",
        "started_at": JANUARY,
    }
    fields = {**said, **facts}
    return Observation(
        oid=f"{event}w:{seq}", writer=f"{event}w", seq=seq, attempt_id=event, **fields
    )


def opened(path: Path | str = ":memory:") -> Ledger:
    ledger = open_url(f"sqlite:///{path}", create=True)
    with ledger.settling(1) as settlement:
        for rules in (RULES, CHARGEBACK):
            settlement.keep_rule_set(rules)
        for book in (FIRST_BOOK, SECOND_BOOK, DEAR):
            settlement.keep_price_book(book)
        settle(settlement, [], [Policy(RULES.sha256, (FIRST_BOOK.sha256,), 0, "test")])
    return ledger


def play(ledger: Ledger, steps: Sequence[Record | Close]) -> None:
    for step in steps:
        if isinstance(step, Close):
            before = ledger.closes()
            if not before or before[-1].period < step.period:
                close_period(ledger, step.period, "ann", "end", FEBRUARY + 90 * 86_400 * 10**9)
            continue
        with ledger.settling(1) as settlement:
            if isinstance(step, Observation):
                settle(settlement, [step])
            else:
                settle(settlement, [], [step])


_late = st.builds(
    seen,
    some(*EVENTS),
    st.integers(2, 6),
    tenant=st.none() | some(*TENANTS),
    tenant_source=some("context", "principal", "metadata"),
    usage=st.fixed_dictionaries({"input": st.integers(0, 5000)}),
    layer=some("gateway", "sdk", "framework"),
    parent=st.none() | some(*EVENTS),
    executed_model=some("gpt-4o", "gpt-4o-mini"),
    started_at=some(JANUARY, FEBRUARY),
)
_assigned = st.builds(
    Assignment, some(*EVENTS), some(*TENANTS), st.just("ann"), some("a", "b"), st.integers(1, 9)
)
_books = st.none() | some((DEAR.sha256,), (SECOND_BOOK.sha256, FIRST_BOOK.sha256))
_rules = st.none() | some(CHARGEBACK.sha256, RULES.sha256)
_of_event = st.builds(
    Restatement, some(*EVENTS), st.none(), _rules, _books, st.just("ann"), st.just("r"),
    st.integers(1, 9),
)  # fmt: skip
_of_period = st.builds(
    Restatement, st.none(), some("2026-01", "2026-02"), _rules, _books, st.just("ann"),
    st.just("r"), st.integers(1, 9),
)  # fmt: skip
_records = st.lists(_late | _assigned | _of_event | _of_period, max_size=8)
_closes = st.lists(some(Close("2026-01"), Close("2026-02")), max_size=2)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Record | Close], list[Record]]:
    """The same records in two orders, the first with closes among them."""
    first = [seen(event, 1, tenant="acme", tenant_source="context") for event in EVENTS]
    records: list[Record] = [*first, *draw(_records)]
    with_closes = draw(st.permutations([*records, *draw(_closes)]))
    return list(with_closes), list(draw(st.permutations(records)))


def check(ledger: Ledger) -> None:
    """Every event's postings are its decision, and each of its dollars is somebody's once."""
    for each in ledger.events():
        sums: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0])
        for posting in ledger.postings(each.event.id):
            line = posting.line
            total = sums[line.owner, line.bucket, line.pool]
            total[0] += posting.amount.cost
            total[1] += posting.amount.charge
            total[2] += posting.events
        standing = {line: total for line, total in sums.items() if any(total)}
        decision = each.decision
        shares = () if decision is None or not decision.is_money else decision.shares
        assert standing == {(s.owner, s.bucket, s.pool): [s.cost, s.charge, 1] for s in shares}
        payers = [owner for (owner, _, _), (_, charge, _) in standing.items() if charge]
        assert len(payers) <= 1  # no batches here: one tenant, or none
    left = {event_id for event_id in EVENTS if not list(ledger.events([event_id]))}
    for event_id in left:  # pragma: no cover -- attempts never go away
        assert not ledger.postings(event_id)


def latest_assignment(records: Sequence[Any], event: str) -> str | None:
    said = [each for each in records if isinstance(each, Assignment) and each.event == event]
    found = max(
        said, key=lambda each: (each.recorded_at, each.tenant, each.by, each.reason), default=None
    )
    return None if found is None else found.tenant


@proving
@given(histories())
def test_nobody_pays_twice_in_any_order(
    history: tuple[list[Record | Close], list[Record]],
) -> None:
    steps, other = history
    with closing(opened()) as ledger, closing(opened()) as again:
        play(ledger, steps)
        check(ledger)
        for event in EVENTS:
            tenant = latest_assignment(steps, event)
            (each,) = ledger.events([event])
            if tenant is not None:
                assert each.event.facts.tenant == tenant
        play(again, other)
        check(again)
        assert nets(ledger) == nets(again)
        with closing(open_url("sqlite:///:memory:", create=True)) as rebuilt:
            copy_books(ledger, rebuilt)
            check(rebuilt)
            assert nets(rebuilt) == nets(ledger)


ASSIGNED = Assignment("a0", "globex", "ann", "it is theirs", 5)
LATE = seen("a0", 2, tenant="initech", tenant_source="principal", layer="gateway")
RESTATED = Restatement("a0", None, None, (DEAR.sha256,), "ann", "the contract", 6)
REVISED = seen("a0", 3, layer="provider", usage={"input": 2000})


@pytest.mark.parametrize("close", [None, 0, 1, 2, 3, 4], ids=lambda at: f"close {at}")
def test_the_story_of_one_event_through_a_file(tmp_path: Path, close: int | None) -> None:
    """Assigned, seen by another tenant's instrument, restated, revised; a close between."""
    steps: list[Record | Close] = [ASSIGNED, LATE, RESTATED, REVISED]
    if close is not None:
        steps.insert(close, Close("2026-01"))
    with closing(opened(tmp_path / "ledger.db")) as ledger:
        play(ledger, [seen("a0", 1, tenant="acme", tenant_source="context"), *steps])
        check(ledger)
        (each,) = ledger.events(["a0"])
        decision = each.decision
        assert decision is not None
        assert (decision.owner, decision.cost) == ("globex", 2000 * 7 * 10**6)
        assert nets(ledger) == {("globex", "direct", "2026-01"): (14 * 10**9, 14 * 10**9)}
        back = Restatement("a0", None, None, None, "ann", "it was right before", 7)
        play(ledger, [back])
        check(ledger)
        assert nets(ledger) == {("globex", "direct", "2026-01"): (5 * 10**9, 5 * 10**9)}
        if close == 0:
            late = {p.posted_period for p in ledger.postings("a0")[1:]}
            assert late == {"2026-02"}
