"""Strategies of corrections: assignments, restatements and free postings among observations."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from journals import (
    ATTEMPTS,
    FIRST_BOOK,
    OPERATIONS,
    POLICIES,
    SECOND_BOOK,
    TENANTS,
    Journal,
    arrivals,
    journals,
    some,
)

from costspan.core.journal.records import Assignment, FreeLine, FreePostings, Restatement
from costspan.core.settle.free import free_postings

PERIODS = ("2026-01", "2026-02", "2026-03", "0000-00")
BOOKS = ((), (FIRST_BOOK.sha256,), (SECOND_BOOK.sha256, FIRST_BOOK.sha256))
RULES = tuple(each.rules.sha256 for each in POLICIES)
_moments = st.integers(1, 9)


def restated(at: int = 1, **fields: Any) -> Restatement:
    named: dict[str, Any] = {"event": None, "period": None, "rules": None, "books": None, **fields}
    return Restatement(**named, by="ann", reason="a better price", recorded_at=at)


restatements = st.one_of(
    st.builds(
        lambda at, event, rules, books: restated(at, event=event, rules=rules, books=books),
        _moments, some(*ATTEMPTS, *OPERATIONS, "w0:1"), some(None, *RULES), some(None, *BOOKS),
    ),
    st.builds(
        lambda at, period, rules, books: restated(at, period=period, rules=rules, books=books),
        _moments, some(*PERIODS), some(None, *RULES), some(None, *BOOKS),
    ),
)  # fmt: skip
_assignments = st.builds(
    Assignment, some(*ATTEMPTS, *OPERATIONS), some(*TENANTS), st.just("ann"), st.just("so"),
    _moments,
)  # fmt: skip
_amounts = st.integers(-(10**15), 10**15)


@st.composite
def free(draw: st.DrawFn) -> FreePostings:
    kind = draw(some("credit", "adjustment", "allocation"))
    period, at = draw(some(*PERIODS[:3])), draw(_moments)
    owner = draw(some(*TENANTS))
    amount = draw(_amounts.filter(bool))
    bucket = "allocated" if kind == "allocation" else "adjustment"
    lines = [FreeLine(owner, bucket, "faults", "", "", amount, draw(_amounts))]
    if kind == "allocation":
        lines.append(FreeLine("@platform", bucket, "faults", "", "", -amount, 0))
    return free_postings(
        kind=kind, period=period, lines=lines, about={}, by="ann", reason="so", recorded_at=at
    )


@st.composite
def corrected_journals(draw: st.DrawFn) -> tuple[Journal, Journal, list[Any]]:
    """The same observations and corrections in two arrivals, and the corrections."""
    observed = [each for batch in draw(journals()).batches for each in batch]
    one = restatements | _assignments | free()
    corrections: list[Any] = draw(st.lists(one, min_size=1, max_size=4, unique_by=repr))
    records = [*observed, *corrections]
    return draw(arrivals(records)), draw(arrivals(records)), corrections
