"""What is compared with what: accounts, days, models, documents, currencies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compared import CALL, STRICT, causes, found
from month import PERIOD, USD, bill, call, call_lines, keep, line, month, requests

from costspan.core.reconcile import reconcile
from costspan.core.settle.ledger import Ledger


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    ledger = month(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


def test_an_alias_and_a_dated_name_meet(books: Ledger) -> None:
    keep(books, call(1, executed_model="gpt-4o"), call(2))
    bill(books, call_lines(calls=2))
    assert found(books) == []


def test_taxes_and_credits_are_compared_apart(books: Ledger) -> None:
    keep(books, call(1))
    tax = line(category="tax", amount=7 * USD, component="", quantity=None, description="VAT")
    credit = {**tax, "category": "credit", "amount": -USD, "description": "sorry"}
    bill(books, [*call_lines(), tax, credit])
    said = {each.what: each for each in found(books)}
    assert {what: each.difference for what, each in said.items()} == {
        "tax": 7 * USD,
        "credit": -USD,
    }
    assert said["tax"].causes[0].text == "VAT"
    assert not any(each.is_over_threshold for each in said.values())
    (total,) = reconcile(books, PERIOD, STRICT).totals
    assert total.difference == 0
    assert total.apart == {"tax": 7 * USD, "credit": -USD}


def test_another_currency_is_said_and_never_subtracted(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [*call_lines(), line(amount=5, quantity=0)], currency="EUR")
    (variance,) = found(books)
    assert (variance.what, variance.currency, variance.invoice) == ("currency", "EUR", CALL + 5)


def test_a_batch_counts_on_the_day_it_was_completed(books: Ledger) -> None:
    batch: dict[str, Any] = {
        "cause": "batch",
        "tier": "batch",
        "usage": {"input": 3000, "output": 300},
    }
    done = call(0, "2026-03-06").started_at
    keep(books, call(1, **batch, ended_at=done, members={"acme": 3300}))
    lines = [line("2026-03-06", "input", 3000, 3750 * 10**6, tier="batch")]
    lines.append(line("2026-03-06", "output", 300, 1500 * 10**6, tier="batch"))
    bill(books, lines)
    bill(books, requests({"2026-03-06": 3}), source="csv-usage", currency="")
    assert causes(books) == {}
    assert causes(books, "requests") == {("2026-03-06", "gpt-4o", "batch"): 2}


def test_an_invoice_by_month_alone_is_compared_by_month(books: Ledger) -> None:
    keep(books, call(1), call(2, "2026-03-09"))
    bill(books, [{**each, "day": ""} for each in call_lines(calls=3)])
    (money,) = [each for each in found(books) if each.what == "money"]
    assert (money.grain.day, money.grain.model, money.difference) == ("", "gpt-4o", CALL)


def test_a_component_that_is_billed_by_no_model_is_an_item(books: Ledger) -> None:
    keep(books, call(1, usage={"input": 1000, "output": 100, "cache_read": 400}))
    lines = [*call_lines(), line(component="cache_read", quantity=400, amount=5 * 10**8)]
    lines[-1]["model"] = None
    bill(books, lines)
    assert found(books) == []
    bill(books, [*lines, {**lines[-1], "amount": 3}])
    (variance,) = [each for each in found(books) if each.what == "money"]
    assert (variance.grain.item, variance.difference) == ("cache_read", 3)


def test_projects_are_compared_where_both_sides_name_them(books: Ledger) -> None:
    keep(books, call(1, provider_account="p1"), call(2, provider_account="p1"))
    lines = [*call_lines(calls=2), *call_lines()]
    for each, project in zip(lines, ["p1", "p1", "p2", "p2"], strict=True):
        each["project"] = project
    bill(books, lines)
    (money,) = [each for each in found(books) if each.what == "money"]
    assert (money.grain.account, money.difference) == ("p2", CALL)
    assert money.causes[0].kind == "outside_path"
    assert "of account p2" in money.causes[0].text


def test_two_documents_of_one_account_are_not_added_up(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, call_lines(), source="openai")
    bill(books, call_lines(), source="csv")
    assert found(books) == []


def test_many_small_differences_are_flagged_together(books: Ledger) -> None:
    days = [f"2026-03-{day:02}" for day in range(1, 11)]
    keep(books, *[call(n, day) for n, day in enumerate(days)])
    bill(
        books,
        [{**each, "amount": each["amount"] + 10**9} for day in days for each in call_lines(day)],
    )
    variances = reconcile(books, PERIOD).variances
    flagged = [each for each in variances if each.is_over_threshold and each.what == "money"]
    assert [each.grain.item for each in flagged] == ["small differences together"]
    assert flagged[0].difference == 20 * 10**9 == flagged[0].explained


def test_refused_requests_and_cache_hits_are_no_spend(books: Ledger) -> None:
    keep(
        books,
        call(1),
        call(2, provider_billed=False, provider_result="failed", usage=None),
        call(3, cache="exact", usage=None),
        call(4, kind="tool", provider=None, executed_model=None, flat_cost="1", usage=None),
    )
    bill(books, call_lines())
    bill(books, requests({"2026-03-05": 1}), source="csv-usage", currency="")
    assert found(books) == []


def test_tokens_are_those_of_the_usage_document_and_not_of_both(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, call_lines())
    told = [{**each, "amount": 0} for each in call_lines()]
    bill(books, [*requests({"2026-03-05": 1}), *told], source="csv-usage", currency="")
    assert found(books) == []
