"""What an explanation says of charge books, and of prices that are not there."""

from __future__ import annotations

from contextlib import closing
from html import unescape
from io import StringIO
from typing import Any

import pytest
from shelf import at, call, keep, shelf

from costspan.cli.explain import print_explanation
from costspan.cli.printing import Page
from costspan.core.journal.records import Control, Policy, Restatement
from costspan.core.prices import ChargeBook, ChargeEntry, PriceBook
from costspan.core.read.books import Books
from costspan.core.read.explain import Explained
from costspan.core.read.html import render
from costspan.core.read.reasons import Reasons
from costspan.core.read.story import story_of
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger


def page_of(ledger: Ledger, name: str) -> str:
    stream = StringIO()
    print_explanation(Page(stream), Books(ledger).explain(name), every_event=True)
    return stream.getvalue()


def only(ledger: Ledger, name: str) -> Explained:
    (root,) = Books(ledger).explain(name).roots
    return root


@pytest.mark.parametrize("by_restatement", [False, True])
def test_the_entry_of_a_charge_book_is_shown(by_restatement: bool) -> None:
    start = at("2026-11-01")
    mine = ChargeEntry(book="sales", tenant="acme", factor="1.5", effective_from=start)
    other = ChargeEntry(book="sales", tenant="globex", fixed="0.01", model="gpt-4o")
    every = ChargeEntry(book="sales", rates={"input": "4", "output": "8"})
    book = ChargeBook(id="sales", entries=(mine, other, every))
    usage: dict[str, Any] = {"flat_cost": None, "usage": {"input": 1_000_000}}
    with closing(shelf()) as ledger:
        calls = [call(n, tenant=name, **usage) for n, name in enumerate(("acme", "globex", "x"), 1)]
        charge_by(ledger, book, by_restatement)
        keep(ledger, *calls)
        node = only(ledger, "a000001")
        assert node.headline.startswith("acme pays 3.75 USD (direct)")
        assert "Why: the call names its tenant; a charge book says how much." in node.headline
        for number, entry, terms in (
            (1, mine, "1.5 x the charge by the rules for acme, from 2026-11-01 "),
            (2, other, "0.01 USD for each request of gpt-4o for globex, at any date"),
            (3, every, "prices of its own (input 4, output 8) for every tenant without an entry"),
        ):
            found = Books(ledger).explain(f"a{number:06}")
            html = unescape(render("explain.html", title="x", story=story_of(found)))
            for page in (page_of(ledger, f"a{number:06}"), html):
                shown = " ".join(page.split())
                assert f"CB: {terms}" in shown
                assert f"(charge book sales, entry {entry.id})" in shown
            (plain,) = found.plain()["roots"][0]["charge_entries"]
            assert (plain["id"], plain.get("tenant")) == (entry.id, entry.tenant)
            said = {name: plain.get(name) for name in ("factor", "fixed", "effective_from")}
            assert said == {name: getattr(entry, name) for name in said}
            assert plain.get("rates", {}) == entry.rates


def charge_by(ledger: Ledger, book: ChargeBook, by_restatement: bool) -> None:
    with ledger.settling(1) as settlement:
        settlement.keep_charge_book(book)
        (first,) = settlement.policies()
        record: Control = Policy(first.rules, first.books, 1, "ann", book.sha256)
        if by_restatement:
            record = Restatement(None, "2026-11", None, None, "ann", "r", 1, book.sha256)
        settle(settlement, [], [record])


def test_why_there_is_no_price_is_said_of_the_books_that_decided() -> None:
    """Restated with a book that has no rate for it: the policy's own books are not asked."""
    only_output = PriceBook.from_table("late", {"gpt-4o": {"output": "1"}})
    with closing(shelf()) as ledger:
        keep(ledger, call(1, flat_cost=None, usage={"input": 1000}))
        with ledger.settling(1) as settlement:
            settlement.keep_price_book(only_output)
            books = (only_output.sha256,)
            record = Restatement(None, "2026-11", None, books, "ann", "new prices", 1)
            settle(settlement, [], [record])
        keep(ledger, call(2, flat_cost=None, usage={"input": 1000}))
        for name in ("a000001", "a000002"):
            (each,) = ledger.events([name])
            assert each.decision is not None
            assert each.decision.cost is None
            said = "late has no rate of gpt-4o for input"
            assert Reasons(ledger).no_price(each) == said
            assert only(ledger, name).unknown == said
