"""The means of the suite: a policy, calls whose cost anybody can add up, and what must be so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from costspan.conformance.ledgers.differing import differences
from costspan.core.decide import RuleSet, load_profile
from costspan.core.journal.records import Control, Policy
from costspan.core.money import PICO
from costspan.core.prices import PriceBook
from costspan.core.rebuild import nets
from costspan.core.schema import Observation
from costspan.core.settle import Report, settle
from costspan.core.settle.ledger import Ledger
from costspan.core.verify import Problem, verify

JANUARY, FEBRUARY, MARCH = (at * 10**9 for at in (1_767_300_000, 1_770_000_000, 1_773_000_000))
"""Of 2026, ns UTC."""
NOW = 1_800_000_000 * 10**9
"""In January 2027: all of these are over."""
WAIT_SECONDS = 60.0

FIRST = PriceBook.from_table(
    "v1",
    {
        "gpt-4o": {"input": "2.50", "output": "10.00", "cache_read": "1.25"},
        "gpt-4o-mini": {"input": "0.15", "output": "0.60"},
        "odd": {"input": "0.0000007", "output": "0.3333333"},
    },
    {"gpt-4o-2024-08-06": "gpt-4o"},
)
SECOND = PriceBook.from_table("v2", {"gpt-4o": {"input": "2.00", "output": "8.00"}})
BILLING, CHARGEBACK = load_profile("billing"), load_profile("chargeback")
LATER = Policy(CHARGEBACK.sha256, (SECOND.sha256, FIRST.sha256), FEBRUARY, "conformance")
"""Decides what starts from February on, once it came."""


def same(what: str, found: object, expected: object) -> None:
    """Fail, saying what is not so."""
    __tracebackhide__ = True
    if found != expected:
        text = f"{what}\n  expected {_short(expected)}\n  found    {_short(found)}"
        pytest.fail(text, pytrace=False)


def alike(what: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Fail where answers are not SQLite's, saying where each first parts from them."""
    __tracebackhide__ = True
    if wrong := differences(found, expected):
        pytest.fail("\n  ".join([f"{what} otherwise than by SQLite", *wrong]), pytrace=False)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 2000 else f"{text[:2000]} …"


def begin(ledger: Ledger) -> Ledger:
    """Let a new ledger hold a policy, and know what the later one names."""
    rules: tuple[RuleSet, ...] = (BILLING, CHARGEBACK)
    with ledger.settling(WAIT_SECONDS) as settlement:
        for rule_set in rules:
            settlement.keep_rule_set(rule_set)
        for book in (FIRST, SECOND):
            settlement.keep_price_book(book)
        settle(settlement, [], [Policy(BILLING.sha256, (FIRST.sha256,), 0, "conformance")])
    return ledger


def keep(ledger: Ledger, records: Iterable[Observation | Control]) -> Report:
    """Settle records as one batch."""
    given = list(records)
    seen = [each for each in given if isinstance(each, Observation)]
    controls = [each for each in given if not isinstance(each, Observation)]
    with ledger.settling(WAIT_SECONDS) as settlement:
        return settle(settlement, seen, controls)


def call(number: int, usd: str = "1", tenant: str | None = "acme", **facts: Any) -> Observation:
    """A call of a flat cost, under an oid and an attempt of its number."""
    said: dict[str, Any] = {
        "attempt_id": f"a{number}",
        "started_at": FEBRUARY,
        "provider_result": "ok",
        **facts,
    }
    return Observation(oid=f"w:{number}", tenant=tenant, flat_cost=usd, **said)


def calls(numbers: Iterable[int]) -> list[Observation]:
    """Calls of 1 USD each, of seven tenants."""
    return [call(number, tenant=f"t{number % 7}") for number in numbers]


def direct(tenant: str, usd: int, period: str = "2026-02") -> dict[Any, tuple[int, int]]:
    """A line of the books (as `nets` has it) on which whole dollars stand, all charged."""
    return {(tenant, "direct", period): (usd * PICO, usd * PICO)}


def whole(ledger: Ledger) -> None:
    """The books agree with themselves: roll-up and postings, events and journal, seals."""
    __tracebackhide__ = True
    same(
        "the roll-up is not what the postings add up to",
        list(ledger.roll_ups()), list(ledger.added_up()),
    )  # fmt: skip
    numbers = [number for number, _ in ledger.postings_after(0, -1)]
    same("the numbers of postings go up, each used once", numbers, sorted(set(numbers)))
    wrong = [f"{p.check}: {p.what}" for p in verify(ledger) if isinstance(p, Problem)]
    same("`costspan verify` finds problems", wrong, [])


def holds_calls(ledger: Ledger, numbers: Sequence[int]) -> None:
    """The books are those of these calls, whoever brought them, however often."""
    __tracebackhide__ = True
    counts = ledger.counts("observations", "events")
    same("observations are lost or doubled", counts["observations"], len(numbers))
    same("events are lost or doubled", counts["events"], len(numbers))
    expected: dict[Any, tuple[int, int]] = {}
    for tenant in range(7):
        if many := sum(number % 7 == tenant for number in numbers):
            expected |= direct(f"t{tenant}", many)
    same("amounts are lost or doubled", nets(ledger), expected)
    whole(ledger)
