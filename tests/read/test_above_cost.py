"""What is charged above the provider's cost is said loudly, on every form of a statement."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from shelf import call, close_month, free, keep, shelf

from costspan.cli.statement import html_of
from costspan.core.decide import load_profile
from costspan.core.journal.records import Assignment, Policy
from costspan.core.money import PICO, parse_usd
from costspan.core.prices import PriceBook
from costspan.core.read.amounts import Amounts
from costspan.core.read.statement import statement_of
from costspan.core.read.statement_page import lines_of, page_of
from costspan.core.settle import settle

FALLBACK = PriceBook.from_table(
    "list",
    {
        "gpt-4o": {"input": "2.50", "output": "10.00"},
        "gpt-4o-mini": {"input": "0.15", "output": "0.60"},
    },
)


def test_what_is_charged_above_cost_is_said() -> None:
    cheap: dict[str, Any] = {
        "requested_model": "gpt-4o",
        "executed_model": "gpt-4o-mini",
        "flat_cost": None,
    }
    with closing(shelf()) as ledger:
        with ledger.settling(1) as settlement:
            settlement.keep_price_book(FALLBACK)
            rules = load_profile("billing").sha256
            settle(settlement, [], [Policy(rules, (FALLBACK.sha256,), 1, "test")])
        keep(ledger, call(1), call(2, usage={"input": 1_000_000}, **cheap))
        found = statement_of(ledger, "acme", "2026-11")
        page = page_of(ledger, "acme", "2026-11")
    assert found.above == {"gpt-4o-mini": Amounts(150_000_000_000, 2_500_000_000_000, 1)}
    assert found.charged_above == 2_350_000_000_000
    said = (
        "CHARGED ABOVE COST: at least 2.35 USD more than the provider's cost, among 1 call of"
        " gpt-4o-mini"
    )
    assert page.notes[0] == ("bad", said)
    assert found.plain()["charged_above_cost"]["at_least"] == "2.350000000000"


def test_what_is_taken_back_late_is_not_charged_above_cost() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1, delivery="blocked"))
        close_month(ledger, "2026-11")
        with ledger.settling(1) as settlement:
            settle(settlement, [], [Assignment("a000001", "globex", "ann", "not theirs", 1)])
        found = statement_of(ledger, "acme", "2026-12")
    assert found.total == Amounts(-PICO, 0, -1)
    assert (found.above, found.charged_above) == ({}, 0)


def test_an_adjustment_by_hand_above_its_cost_is_said_loudly() -> None:
    """As loudly as a call: and nothing else that moves money is taken for one."""
    with closing(shelf()) as ledger:
        keep(ledger, call(1))
        free(ledger, "adjustment", ("acme", 0, 5), reason="goodwill")
        free(ledger, "adjustment", ("acme", 2, 3), ("globex", 0, 70), reason="both")
        free(ledger, "adjustment", ("acme", 2, 2), reason="at cost")
        free(ledger, "adjustment", ("acme", 0, -1), reason="less")
        free(ledger, "credit", ("acme", 0, -3))
        free(ledger, "allocation", ("acme", 2, 2), ("@platform", -2, 0))
        page = page_of(ledger, "acme", "2026-11")
        found = page.statement
        assert (found.adjusted_above, found.charged_above) == (6 * PICO, 0)
        loud = (
            "ADJUSTED ABOVE COST: 6.00 USD more than the provider's cost, in 2 adjustments by hand"
        )
        assert ("bad", loud) in page.notes
        assert loud.replace("'", "&#39;") in html_of(page)
        assert page.plain()["charged_above_cost"]["by_hand"] == "6.000000000000"
        lines = lines_of(page)
        above = {line["reason"] or line["line"]: line["charged_above_cost"] for line in lines}
        assert {name: parse_usd(usd) // PICO for name, usd in above.items() if parse_usd(usd)} == {
            "goodwill": 5, "both": 1, "total": 6,
        }  # fmt: skip
        other = page_of(ledger, "globex", "2026-11").statement
        assert other.adjusted_above == 70 * PICO
        assert not any("ABOVE" in text for _, text in page_of(ledger, "x", "2026-11").notes)
        close_month(ledger, "2026-11")
        free(ledger, "adjustment", ("acme", 0, 4), reason="late")
        assert page_of(ledger, "acme", "2026-11").statement == found
        assert statement_of(ledger, "acme", "2026-12").adjusted_above == 4 * PICO


def test_what_a_spreadsheet_says_is_above_cost_is_what_the_notes_say() -> None:
    """A cheaper model answered than was asked for: directly, by an agent, and late."""
    cheaper: dict[str, Any] = {
        "flat_cost": None, "usage": {"input": 10**6}, "requested_model": "gpt-4o",
        "executed_model": "gpt-4o-mini", "provider_result": "ok",
    }  # fmt: skip
    with closing(shelf()) as ledger:
        rules, book = load_profile("billing"), FALLBACK
        with ledger.settling(1) as settlement:
            settlement.keep_price_book(book)
            settle(settlement, [], [Policy(rules.sha256, (book.sha256,), 1, "test")])
        keep(ledger, call(1, **cheaper), call(2, cause="step", initiator="agent", **cheaper))
        free(ledger, "adjustment", ("acme", 0, 1))
        close_month(ledger, "2026-11")
        keep(ledger, call(3, **cheaper))
        for period, each in (("2026-11", 2), ("2026-12", 1)):
            page = page_of(ledger, "acme", period)
            lines = [
                (line["line"], parse_usd(line["charged_above_cost"])) for line in lines_of(page)
            ]
            said = page.statement.charged_above + page.statement.adjusted_above
            assert page.statement.charged_above == each * (25 * PICO // 10 - 15 * PICO // 100)
            assert lines[-1] == ("total", said)
            assert sum(above for _, above in lines[:-1]) == said
