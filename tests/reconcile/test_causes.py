"""Each cause is found from the data, with the exact amount it explains, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compared import CALL, causes, found
from month import bill, call, call_lines, keep, line, month, requests

from costspan.core.prices import ContextTier, PriceBook, PriceRow
from costspan.core.settle.ledger import Ledger


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Ledger]:
    ledger = month(tmp_path / "ledger.db")
    yield ledger
    ledger.close()


def test_books_that_agree_have_no_variance(books: Ledger) -> None:
    keep(books, call(1), call(2), call(3, "2026-03-06"))
    bill(books, [*call_lines(calls=2), *call_lines("2026-03-06")])
    assert found(books) == []


def test_a_day_that_the_invoice_lacks(books: Ledger) -> None:
    keep(books, call(1), call(2, "2026-03-06"), call(3, "2026-03-07"))
    bill(books, [*call_lines(), *call_lines("2026-03-07")])
    assert causes(books) == {("2026-03-06", "gpt-4o", "missing_day"): -CALL}


def test_days_after_the_invoice_ends_are_not_billed_yet(books: Ledger) -> None:
    keep(books, call(1), call(2, "2026-03-15"))
    bill(books, call_lines())
    assert causes(books) == {("2026-03-15", "gpt-4o", "not_billed"): -CALL}


def test_a_day_on_which_nothing_was_recorded(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [*call_lines(), *call_lines("2026-03-09")])
    assert causes(books) == {("2026-03-09", "gpt-4o", "unrecorded_day"): CALL}


def test_a_model_that_no_event_ever_named(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [*call_lines(), line(model="o3", amount=7)])
    assert causes(books) == {("2026-03-05", "o3", "outside_path"): 7}


def test_a_tier_priced_wrong_names_the_row(books: Ledger) -> None:
    keep(books, call(1, tier="batch"))
    bill(books, [{**each, "tier": "batch"} for each in call_lines()])
    (variance,) = found(books)
    assert [cause.kind for cause in variance.causes] == ["price", "price"]
    assert variance.difference == CALL - CALL // 2
    assert not variance.unexplained
    assert "gpt-4o standard tier until 2026-03-20 (list, row " in variance.causes[0].text
    assert "1.25 per 1M in the books, 2.50 billed" in variance.causes[0].text


def test_a_price_change_applied_a_day_early_names_the_row(books: Ledger) -> None:
    keep(books, call(1, "2026-03-19"), call(2, "2026-03-20"))
    cheap = [line(day, "input", 1000, 2000 * 10**6) for day in ("2026-03-19", "2026-03-20")]
    dear = [line(day, "output", 100, 800 * 10**6) for day in ("2026-03-19", "2026-03-20")]
    bill(books, cheap + dear)
    (variance,) = found(books)
    assert variance.grain.day == "2026-03-19"
    assert [cause.kind for cause in variance.causes] == ["price", "price"]
    assert variance.difference == 2800 * 10**6 - CALL == variance.explained
    assert all("from 2026-03-20" in cause.text for cause in variance.causes)


def test_a_price_that_no_row_has_is_said_to_be_so(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [line(amount=3 * 10**9), line(component="output", quantity=100, amount=10**9)])
    (variance,) = found(books)
    assert [(each.kind, each.amount) for each in variance.causes] == [("price", 5 * 10**8)]
    assert "no price kept here says so" in variance.causes[0].text


@pytest.mark.parametrize("times", [100, -100])
def test_cents_for_dollars_both_ways(books: Ledger, times: int) -> None:
    keep(books, call(1))
    lines = call_lines()
    for each in lines:
        each["amount"] = each["amount"] * 100 if times > 0 else each["amount"] // 100
    bill(books, lines)
    amount = 99 * CALL if times > 0 else CALL // 100 - CALL
    assert causes(books) == {("2026-03-05", "gpt-4o", "cents_for_dollars"): amount}


def test_a_line_that_stands_there_twice(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [*call_lines(), call_lines()[0]])
    assert causes(books) == {("2026-03-05", "gpt-4o", "duplicate_line"): 2500 * 10**6}
    assert causes(books, "tokens") == {("2026-03-05", "gpt-4o", "duplicate_line"): 1000}


def test_equal_lines_of_equal_calls_are_no_copies(books: Ledger) -> None:
    keep(books, call(1), call(2))
    bill(books, [*call_lines(), *call_lines()])
    assert found(books) == []


def test_three_retries_that_nobody_saw(books: Ledger) -> None:
    keep(books, call(1), call(2, attempts_hidden=3))
    bill(books, call_lines(calls=5))
    bill(books, requests({"2026-03-05": 5}), source="csv-usage", currency="")
    assert causes(books, "requests") == {("2026-03-05", "gpt-4o", "silent_retry"): 3}
    assert causes(books) == {("2026-03-05", "gpt-4o", "silent_retry"): 3 * CALL}


def test_an_open_call_and_a_stream_cut_short_share_what_cannot_be_told_apart(books: Ledger) -> None:
    cut: dict[str, Any] = {"usage": None, "usage_source": "missing", "provider_result": "unknown"}
    opened = {**cut, "phase": "start", "provider_result": None, "usage_source": None}
    keep(books, call(1), call(2, **cut), call(3, **opened, ended_at=None, executed_model="gpt-4o"))
    bill(books, call_lines(calls=3))
    bill(books, requests({"2026-03-05": 3}), source="csv-usage", currency="")
    (money,) = [each for each in found(books) if each.what == "money"]
    assert {(each.kind, each.amount, each.is_shared) for each in money.causes} == {
        ("open", CALL, True),
        ("unknown_stream", CALL, True),
    }
    assert money.causes[0].evidence.events in (("a000003",), ("a000002",))


def test_an_answer_without_usage_is_a_request_of_unknown_cost(books: Ledger) -> None:
    keep(books, call(1), call(2, usage=None, usage_source="missing"))
    bill(books, call_lines(calls=2))
    bill(books, requests({"2026-03-05": 2}), source="csv-usage", currency="")
    assert causes(books, "requests") == {}
    assert causes(books) == {("2026-03-05", "gpt-4o", "missing_usage"): CALL}


def test_calls_without_a_price(books: Ledger) -> None:
    keep(books, call(1, executed_model="o9"))
    bill(books, [{**each, "model": "o9"} for each in call_lines()])
    assert causes(books) == {("2026-03-05", "o9", "unpriced"): CALL}
    assert causes(books, "tokens") == {}


def test_a_shift_over_the_edge_of_a_day(books: Ledger) -> None:
    keep(books, call(1), call(2), call(3, "2026-03-06"))
    bill(books, [*call_lines(), *call_lines("2026-03-06", calls=2)])
    assert causes(books) == {
        ("2026-03-05", "gpt-4o", "day_edge"): -CALL,
        ("2026-03-06", "gpt-4o", "day_edge"): CALL,
    }


def test_days_counted_in_another_time_zone_cancel_out_over_the_run(books: Ledger) -> None:
    keep(books, *[call(n, f"2026-03-0{5 + n % 3}") for n in range(9)])
    days = {"2026-03-05": 2, "2026-03-06": 3, "2026-03-07": 3, "2026-03-08": 1}
    bill(books, [each for day, many in days.items() for each in call_lines(day, many)])
    assert causes(books) == {
        ("2026-03-05", "gpt-4o", "unexplained"): -CALL,
        ("2026-03-08", "gpt-4o", "unrecorded_day"): CALL,
    }  # not next to one another: nothing says that they belong together


def test_calls_that_crossed_midnight_are_told_from_what_else_is_missing(books: Ledger) -> None:
    late: dict[str, Any] = {"ended_at": call(0, "2026-03-06").started_at}
    keep(books, call(1, **late), call(2, "2026-03-06"))
    bill(books, call_lines("2026-03-06", calls=3))
    bill(books, requests({"2026-03-06": 3}), source="csv-usage", currency="")
    said = causes(books)
    assert said["2026-03-05", "gpt-4o", "day_edge"] == -CALL
    assert said["2026-03-06", "gpt-4o", "day_edge"] == CALL
    assert said["2026-03-06", "gpt-4o", "silent_retry"] == CALL


def test_numbers_that_may_still_change(books: Ledger) -> None:
    keep(books, call(1))
    bill(books, [{**each, "is_provisional": True} for each in call_lines(calls=2)])
    assert causes(books) == {("2026-03-05", "gpt-4o", "provisional"): CALL}


def test_usage_that_was_estimated(books: Ledger) -> None:
    keep(books, call(1, usage_source="estimated"))
    bill(books, [line(quantity=900, amount=2250 * 10**6), call_lines()[1]])
    assert causes(books) == {("2026-03-05", "gpt-4o", "estimated"): -250 * 10**6}


def test_another_price_and_more_calls_are_told_apart(books: Ledger) -> None:
    keep(books, call(1, tier="batch"))
    bill(books, [{**each, "tier": "batch"} for each in call_lines(calls=2)])
    bill(books, requests({"2026-03-05": 2}), source="csv-usage", currency="")
    assert causes(books) == {
        ("2026-03-05", "gpt-4o", "price"): CALL,  # two calls at twice the price
        ("2026-03-05", "gpt-4o", "silent_retry"): CALL // 2,  # one more, at ours
    }


def test_a_refused_request_is_never_what_an_unseen_one_is(books: Ledger) -> None:
    refused: dict[str, Any] = {"provider_billed": False, "provider_result": "failed", "usage": None}
    keep(books, call(1), call(2, **refused))
    bill(books, call_lines(calls=2))
    bill(books, requests({"2026-03-05": 2}), source="csv-usage", currency="")
    assert causes(books) == {("2026-03-05", "gpt-4o", "silent_retry"): CALL}


def test_a_component_whose_price_depends_on_the_prompt_is_split_as_it_was_priced(
    tmp_path: Path,
) -> None:
    above = (ContextTier(2000, {"input": "5", "output": "15"}),)
    rates = {"input": "2.50", "output": "10"}
    row = PriceRow(book="long", model="gpt-4o", provider="openai", rates=rates, above=above)
    ledger = month(tmp_path / "long.db", PriceBook(id="long", rows=(row,)))
    keep(ledger, call(1), call(2, tokens=(3000, 100)))
    lines = [line(quantity=1000), line(component="output", quantity=200, amount=2500 * 10**6)]
    bill(ledger, [*lines, line(quantity=3000, amount=15 * 10**9)])
    assert found(ledger) == []
    bill(ledger, [*lines, line(quantity=3000, amount=7500 * 10**6)])
    (variance,) = found(ledger)
    assert [(each.kind, each.amount) for each in variance.causes] == [("price", -7500 * 10**6)]
    ledger.close()
