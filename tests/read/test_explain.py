"""What an explanation says: who was believed, prices in time, corrections, hostile names."""

from __future__ import annotations

import re
from contextlib import closing
from html.parser import HTMLParser
from io import StringIO
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from journals import GATEWAY, Journal, journals, settled
from shelf import at, call, close_month, keep, shelf

from costspan.cli.explain import print_explanation
from costspan.cli.printing import Page
from costspan.core.join import identify
from costspan.core.join.winners import winners
from costspan.core.journal.records import Assignment, FreeLine, Policy, Restatement
from costspan.core.prices import PriceBook, PriceRow
from costspan.core.read.books import Books, NotFound
from costspan.core.read.explain import Explained
from costspan.core.read.html import render
from costspan.core.read.story import story_of
from costspan.core.schema import Observation, oid_of
from costspan.core.settle import settle
from costspan.core.settle.component import component_of
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger

HOSTILE = '<script>alert("x")</script>\x1b[31m\u202e{{ 7*7 }}'


def page_of(ledger: Ledger, name: str) -> str:
    stream = StringIO()
    print_explanation(Page(stream), Books(ledger).explain(name), every_event=True)
    return stream.getvalue()


def only(ledger: Ledger, name: str) -> Explained:
    (root,) = Books(ledger).explain(name).roots
    return root


# --- who was believed ----------------------------------------------------------------------------
@settings(max_examples=40)
@given(journals(most=10))
def test_the_winner_said_what_was_kept(journal: Journal) -> None:
    with closing(settled(journal)) as ledger:
        for each in ledger.events():
            seen = component_of(ledger.reading(), [each.event.id], (GATEWAY,))
            found = identify(seen, (GATEWAY,)).events
            spoken = found.get(each.event.id, [])
            won = winners(each.event, spoken)
            said = {oid_of(seen): seen for seen, _ in spoken}
            for name, oid in won.items():
                assert getattr(said[oid], name) == getattr(each.event.facts, name)
            for name in ("usage", "executed_model", "provider_result", "flat_cost", "cause"):
                # Whatever the event has, somebody is named for it.
                assert (getattr(each.event.facts, name) is None or each.event.is_swept) or (
                    name in won
                )


def test_each_layer_is_believed_about_its_own_end() -> None:
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, layer="gateway", flat_cost=None, usage={"input": 100}, feature="near-provider"),
            call(
                2, attempt_id="a000001", layer="framework", flat_cost=None,
                usage={"input": 90}, usage_source="estimated", feature="near-user",
            ),
        )  # fmt: skip
        node = only(ledger, "a000001")
        by_layer = {seen.layer: seen.won for seen in node.witnesses}
        assert "usage" in by_layer["gateway"]
        assert "feature" in by_layer["framework"]
        assert [(one.usage, one.is_kept) for one in node.counted] == [
            ({"input": 100}, True),
            ({"input": 90}, False),
        ]
        text = page_of(ledger, "a000001")
        assert "input 100 (provider, from gateway END, used)" in text
        assert "input 90 (estimated, from framework END, not used)" in text


# --- prices in time ------------------------------------------------------------------------------
def test_a_row_is_shown_between_those_before_and_after_it() -> None:
    spans = [
        (None, "2026-06-01", "10"),
        ("2026-06-01", "2026-12-01", "2"),
        ("2026-12-01", None, "1"),
    ]
    book = PriceBook(
        id="dated",
        rows=tuple(
            PriceRow(
                book="dated",
                model="o3",
                effective_from=None if start is None else at(start),
                effective_to=None if end is None else at(end),
                rates={"input": rate},
            )
            for start, end, rate in spans
        ),
    )
    with closing(shelf()) as ledger:
        restate(ledger, book)
        keep(ledger, call(1, executed_model="o3", flat_cost=None, usage={"input": 3000}))
        price = only(ledger, "a000001").price
        assert price is not None
        assert [(row.rates["input"], row.in_force) for row in price.history] == [
            ("10", False), ("2", True), ("1", False),
        ]  # fmt: skip
        (part,) = price.parts
        assert (part.quantity, part.rate, part.amount) == (3000, "2.00", "0.006000000000")
        text = page_of(ledger, "a000001")
        assert "3,000 x 2.00 USD per 1M = 0.006 USD" in text
        assert "from 2026-06-01 until 2026-12-01: input 2  <- in force then" in text


def restate(ledger: Ledger, book: PriceBook, period: str = "2026-11", recorded_at: int = 1) -> None:
    with ledger.settling(1) as settlement:
        settlement.keep_price_book(book)
        record = Restatement(None, period, None, (book.sha256,), "ann", "new prices", recorded_at)
        settle(settlement, [], [record])


# --- corrections ---------------------------------------------------------------------------------
def test_corrections_are_told_with_their_hands_and_months() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1, day="2026-10-05"))
        close_month(ledger, "2026-10")
        keep(ledger, Assignment("a000001", "initech", "bob", "a first guess", 10))
        keep(ledger, Assignment("a000001", "globex", "ann", "their ticket 7", 20))
        node = only(ledger, "a000001")
        assert [(one.what, one.by, one.in_force) for one in node.corrections] == [
            ("assigned to initech", "bob", False), ("assigned to globex", "ann", True),
        ]  # fmt: skip
        assert [
            (one.owner, one.charge, one.posted_period, one.is_closed, one.is_late)
            for one in node.postings
        ] == [
            ("acme", "1.000000000000", "2026-10", True, False),
            ("acme", "-1.000000000000", "2026-11", False, True),
            ("initech", "1.000000000000", "2026-11", False, True),
            ("globex", "1.000000000000", "2026-11", False, True),
            ("initech", "-1.000000000000", "2026-11", False, True),
        ]  # fmt: skip
        text = page_of(ledger, "a000001")
        assert node.headline.startswith("globex pays 1.00 USD (direct)")
        assert 'assigned to globex, by ann: "their ticket 7"' in text
        assert "a later one counts" in text
        assert "in 2026-10 (closed month)" in text
        assert "in 2026-11 (open month; it belongs to 2026-10)" in text


def test_a_restatement_is_told() -> None:
    book = PriceBook.from_table("better", {"gpt-4o": {"input": "2.00"}})
    with closing(shelf()) as ledger:
        keep(ledger, call(1, flat_cost=None, usage={"input": 1_000_000}))
        restate(ledger, book, recorded_at=9)
        node = only(ledger, "a000001")
        (told,) = node.corrections
        assert told.what == f"all of 2026-11 decided again with price books {book.sha256[:12]}"
        assert node.cost == "2.000000000000"
        assert node.price is not None
        assert node.price.book == "better"


# --- amounts of no event -------------------------------------------------------------------------
def test_a_free_posting_is_explained_by_its_id_or_the_beginning_of_it() -> None:
    with closing(shelf()) as ledger:
        record = free_postings(
            kind="credit",
            period="2026-11",
            lines=[FreeLine("acme", "adjustment", "credit", "", "", 0, -5 * 10**11)],
            about={"ticket": HOSTILE},
            by="ann",
            reason="an outage",
            recorded_at=1,
        )
        with ledger.settling(1) as settlement:
            settle(settlement, [], [record])
        for name in (record.id, record.id[:14]):
            found = Books(ledger).explain(name)
            assert found.headline == (
                "A credit for 2026-11: acme pays 0.50 USD less. Why: an outage (ann)."
            )
            assert found.entry is not None
            assert found.charge == "-0.500000000000"
        assert "\x1b" not in page_of(ledger, record.id)
        assert "reason    an outage" in page_of(ledger, record.id)
        with pytest.raises(NotFound):
            Books(ledger).explain("@credit:nobody")


# --- hostile names -------------------------------------------------------------------------------
class _Elements(HTMLParser):
    """Every element of a page, and whatever would load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loading: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loading += [(n, v) for n, v in attrs if n in ("src", "href") or n.startswith("on")]


def test_hostile_names_are_harmless_in_every_form() -> None:
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(
                1, tenant=HOSTILE.replace("\x1b", "").replace("\u202e", ""), name=HOSTILE,
                executed_model=HOSTILE, requested_model="gpt-4o", error_type=HOSTILE,
                session=HOSTILE, labels={HOSTILE: HOSTILE}, client_claims={HOSTILE: HOSTILE},
                trace_id=HOSTILE, feature=HOSTILE, source=HOSTILE,
            ),
        )  # fmt: skip
        keep(ledger, Assignment("a000001", "globex", HOSTILE, HOSTILE, 1))
        found = Books(ledger).explain("a000001")
        text = page_of(ledger, "a000001")
        html = render("explain.html", title=HOSTILE, story=story_of(found))
        for page in (text, html):
            assert "\x1b" not in page
            assert "\u202e" not in page
        assert "49" not in re.findall(r"\b49\b", html)
        elements = _Elements()
        elements.feed(html)
        assert "script" not in elements.tags
        assert elements.loading == []
        assert "&lt;script&gt;" in html
        plain = msgspec.json.decode(msgspec.json.encode(found.plain()))
        assert plain["roots"][0]["event"]["facts"]["name"] == HOSTILE


def test_a_page_is_whole_by_itself() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, parent="a000001", parent_origin="ours"))
        html = render("explain.html", title="x", story=story_of(Books(ledger).explain("a000001")))
        assert "default-src 'none'" in html
        assert "http://" not in html
        assert "https://" not in html
        assert html.count("<li>") == 2
        assert html.rstrip().endswith("</html>")


def test_brief_is_headline_and_tree() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, parent="a000001", parent_origin="ours"))
        story = story_of(Books(ledger).explain("a000002"), brief=True)
        assert story.cards == []
        assert story.headline.startswith("acme pays 1.00 USD")
        (root,) = story.tree
        assert (root.number, root.marker, root.below[0].marker) == (1, "", "<- asked for")


def test_a_retry_shows_what_it_retried() -> None:
    failed: dict[str, Any] = {
        "provider_result": "failed",
        "fault": "provider",
        "provider_billed": False,
    }
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, flat_cost=None, **failed),
            call(2, attempt=2, retry_of="a000001", retry_reason="provider"),
        )
        text = page_of(ledger, "a000002")
        assert "attempt 2, a retry of [1] a000001, because of the provider" in text
        assert "fault of the provider, not billed" in text


def test_an_open_call_and_one_of_unknown_cost_say_so() -> None:
    start = Observation(oid="w:8", writer="w", seq=8, attempt_id="a8", phase="start", tenant="acme")
    with closing(shelf()) as ledger:
        keep(ledger, start, call(9, flat_cost=None, executed_model="mystery", usage={"input": 1}))
        assert Books(ledger).explain("a8").headline == (
            "Nobody pays yet for a model call: it has started and not ended."
        )
        assert (
            Books(ledger)
            .explain("a000009")
            .headline.startswith(
                "Nobody knows yet what a model call to mystery of 2026-11-05 00:00:00Z cost acme: "
            )
        )


def test_the_books_of_other_policies_are_put_beside() -> None:
    """A contract that was edited later: the old event keeps its price, and the page says so."""
    cheaper = PriceBook.from_table("list", {"gpt-4o": {"input": "2.00", "output": "10.00"}})
    with closing(shelf()) as ledger:
        keep(ledger, call(1, flat_cost=None, usage={"input": 1000}))
        with ledger.settling(1) as settlement:
            settlement.keep_price_book(cheaper)
            (first,) = settlement.policies()
            later = Policy(first.rules, (cheaper.sha256,), at("2026-11-20"), "ann")
            settle(settlement, [], [later])
        price = only(ledger, "a000001").price
        assert price is not None
        assert price.rates["input"] == "2.5"
        assert price.since == ((at("2026-11-20"), "list: input 2"),)
        assert "the books since 2026-11-20 would say list: input 2" in page_of(ledger, "a000001")
