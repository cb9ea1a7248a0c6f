"""Several sources of one provider: nothing is billed twice, and an empty document hides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from compared import CALL, STRICT, found
from month import PERIOD, Said, bill, call, call_lines, keep, line, month, requests

from costspan.core.journal.records import FreeLine
from costspan.core.reconcile import Reconciliation, adjustments, reconcile
from costspan.core.reconcile.authority import parse
from costspan.core.settle import settle
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger

Names = list[tuple[str, str]]


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    ledger = month(tmp_path / "ledger.db")
    keep(ledger, call(1), call(2))
    yield ledger
    ledger.close()


def compared(found: Reconciliation) -> Names:
    return sorted((each.invoice.source, each.invoice.account) for each in found.documents)


def left_out(found: Reconciliation) -> Names:
    return [(each.invoice.source, each.invoice.account) for each in found.left_out]


def of(project: str, calls: int) -> list[Said]:
    return [{**each, "project": project} for each in call_lines(calls=calls)]


def test_other_names_of_the_account_bill_nothing_twice(books: Ledger) -> None:
    first = bill(books, call_lines(calls=2), source="openai", account="")
    bill(books, call_lines(calls=2), source="csv", account="org-1")
    said = reconcile(books, PERIOD, STRICT)
    assert (compared(said), left_out(said)) == ([("openai", "")], [("csv", "org-1")])
    assert said.left_out[0].instead == first
    assert said.variances == []
    assert adjustments(books, said, by="ann", reason="march", at=1) == []


def test_the_rule_says_which_comes_first(books: Ledger) -> None:
    bill(books, call_lines(calls=2), source="openai", account="org-1")
    bill(books, call_lines(calls=3), source="csv", account="")
    said = reconcile(books, PERIOD, parse('[authority]\nsources = ["csv"]\n'))
    assert (compared(said), left_out(said)) == ([("csv", "")], [("openai", "org-1")])
    said = reconcile(books, PERIOD)  # the later one has no name: it may be of every account
    assert (compared(said), left_out(said)) == ([("openai", "org-1")], [("csv", "")])


def test_other_accounts_count_where_all_are_named(books: Ledger) -> None:
    bill(books, call_lines(), source="openai", account="org-1")
    bill(books, call_lines(), source="csv", account="org-2")
    said = reconcile(books, PERIOD, STRICT)
    assert compared(said) == [("csv", "org-2"), ("openai", "org-1")]
    assert (said.left_out, said.variances) == ([], [])
    bill(books, call_lines(), source="focus", account="org-2")
    said = reconcile(books, PERIOD, STRICT)
    assert (compared(said), left_out(said)) == (
        [("focus", "org-2"), ("openai", "org-1")],
        [("csv", "org-2")],
    )


@pytest.mark.parametrize(
    ("account", "project"), [("proj_1", None), ("team", "proj_1"), ("org-1", "proj_9")]
)
def test_a_project_that_is_billed_already_is_no_other_account(
    books: Ledger, account: str, project: str | None
) -> None:
    bill(books, of("proj_1", 2), source="openai", account="org-1")
    lines = of(project, 2) if project else call_lines(calls=2)
    bill(books, lines, source="csv", account=account)
    said = reconcile(books, PERIOD, STRICT)
    assert (compared(said), left_out(said)) == ([("openai", "org-1")], [("csv", account)])


def test_money_and_quantities_are_chosen_apart(books: Ledger) -> None:
    """Costs from the API, requests from a file of another name: each is alone of its kind."""
    bill(books, call_lines(calls=2), source="openai", account="")
    bill(books, requests({"2026-03-05": 5}), source="csv-usage", account="org-1", currency="")
    said = reconcile(books, PERIOD, STRICT)
    assert said.left_out == []
    assert [(each.what, each.difference) for each in said.variances if each.what != "tokens"] == [
        ("requests", 3)
    ]


def test_an_invoice_brought_in_whole_stands_in_the_way_of_its_own_account_alone(
    books: Ledger,
) -> None:
    bill(books, call_lines(calls=7), source="openai", account="")
    bill(books, call_lines(calls=2), source="csv", account="org-1")
    line = FreeLine("@platform", "adjustment", "invoice", "", "", 7 * CALL, 0)
    whole = free_postings(
        kind="invoice_adjust", period=PERIOD, lines=[line], by="ann", reason="untagged",
        about={"source": "openai", "account": "", "whole": "yes"}, recorded_at=1,
    )  # fmt: skip
    with books.settling(5) as settlement:
        settle(settlement, [], [whole])
    said = reconcile(books, PERIOD, STRICT)
    assert (compared(said), said.left_out, said.variances) == ([("csv", "org-1")], [], [])
    assert [each.invoice.source for each in said.whole] == ["openai"]


@pytest.mark.parametrize("usage", [True, False])
def test_costs_without_lines_are_costs_of_nothing(books: Ledger, usage: bool) -> None:
    bill(books, [], source="openai", currency="")
    if usage:
        lines = [line(quantity=5_000_000, amount=0), *requests({"2026-03-05": 500})]
        bill(books, lines, source="openai-usage", currency="")
    said = {each.what: (each.ledger, each.invoice) for each in found(books)}
    quantities = {"requests": (2, 500), "tokens": (2200, 5_000_000)}
    assert said == {"money": (2 * CALL, 0), **(quantities if usage else {})}
    (total,) = reconcile(books, PERIOD, STRICT).totals
    assert (total.currency, total.invoice.money, total.difference) == ("USD", 0, -2 * CALL)
    (record,) = adjustments(books, reconcile(books, PERIOD, STRICT), by="ann", reason="march", at=1)
    assert record.about["source"] == "openai"


def test_usage_without_lines_leaves_the_quantities_of_the_costs(books: Ledger) -> None:
    bill(books, call_lines(calls=3), source="openai")
    bill(books, [], source="openai-usage", currency="")
    said = {each.what: each.difference for each in found(books)}
    assert said == {"tokens": 1100, "money": CALL}


def test_a_document_without_lines_hides_no_other(books: Ledger) -> None:
    bill(books, [], source="openai", currency="")
    bill(books, call_lines(calls=2), source="csv", account="org-1")
    said = reconcile(books, PERIOD, STRICT)
    assert (compared(said), said.left_out, said.variances) == ([("csv", "org-1")], [], [])


def test_usage_alone_is_no_bill_of_nothing(books: Ledger) -> None:
    """Without a document of costs nobody knows what is billed: no money is compared, nor taken."""
    usage = [line(quantity=2000, amount=0), line(component="output", quantity=200, amount=0)]
    bill(books, [*usage, *requests({"2026-03-05": 2})], source="openai-usage", currency="")
    found = reconcile(books, PERIOD)
    assert [each.has_money for each in found.totals] == [False]
    assert [each.what for each in found.variances if each.what == "money"] == []
    assert adjustments(books, found, by="ann", reason="so", at=1) == []
