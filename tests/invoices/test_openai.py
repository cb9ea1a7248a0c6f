"""OpenAI's costs and usage: from files, with the traps of floats, inclusive tokens and days."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from papers import USD, Number, cost, lines_of, openai_page, used

from costspan.core.invoices.document import InvoiceError, Notes

DAY = "2026-11-05"


def test_a_cost_is_a_line_with_model_component_and_exact_amount() -> None:
    raw = openai_page(
        {
            DAY: [
                cost("gpt-4o-2024-08-06, cached input", "0.06", project_id="proj_1"),
                cost("gpt-4o-2024-08-06, batch output", "7.5E-8"),
                cost("gpt-4o, web searches", "1e1", quantity=4, quantity_unit="requests"),
                cost("Assistants API | File Search", "3"),
                cost(None, "0.000000000001"),
            ]
        }
    )
    lines = lines_of(raw, account="org-1")
    assert [
        (each.model, each.component, each.tier, each.amount, each.description) for each in lines
    ] == [
        ("gpt-4o-2024-08-06", "cache_read", None, 6 * 10**10, "gpt-4o-2024-08-06, cached input"),
        ("gpt-4o-2024-08-06", "output", "batch", 75_000, "gpt-4o-2024-08-06, batch output"),
        ("gpt-4o", "web_searches", None, 10 * USD, "gpt-4o, web searches"),
        (None, "", None, 3 * USD, "Assistants API | File Search"),
        (None, "", None, 1, ""),
    ]
    assert {(each.account, each.day, each.category, each.currency) for each in lines} == {
        ("org-1", DAY, "usage", "USD")
    }
    assert [each.project for each in lines] == ["proj_1", None, None, None, None]
    assert [each.quantity for each in lines] == [None, None, 4, None, None]


def test_taxes_and_credits_are_kept_apart() -> None:
    results = [
        cost("Sales Tax", "1"),
        cost("credit grant", "-2"),
        cost("gpt-4o, input", "-3"),
        cost("Discount", "-4"),
    ]
    lines = lines_of(openai_page({DAY: results}))
    assert [each.category for each in lines] == ["tax", "credit", "credit", "discount"]


@pytest.mark.parametrize(
    ("quantity", "unit", "whole", "named"),
    [
        (1500, "tokens", 1500, "tokens"),
        (Number("1.5"), "1000_tokens", 1500, "tokens"),
        (Number("12.0"), "tokens", 12, "tokens"),
        (Number("0.25"), "gibibyte_hours", None, "gibibyte_hours"),
        (3, "images", 3, "images"),
    ],
)
def test_quantities_are_whole_or_left_to_the_bytes(
    quantity: Any, unit: str, whole: int | None, named: str
) -> None:
    raw = openai_page({DAY: [cost("x, input", "1", quantity=quantity, quantity_unit=unit)]})
    assert [(each.quantity, each.unit) for each in lines_of(raw)] == [(whole, named)]


def test_a_float_finer_than_a_pico_is_rounded_and_said(
    read: Callable[..., Any],
) -> None:
    raw = openai_page({DAY: [cost("a, input", "0.1"), cost("b, input", "0.30000000000000004")]})
    [kept] = read(raw)
    assert kept.amounts == {"usage": 4 * 10**11}
    assert kept.notes == [
        "amounts finer than a pico, rounded half-even: 1 time, first at page 1, bucket 1"
        " (2026-11-05), result 2"
    ]


def test_the_digits_of_the_file_count_not_the_nearest_float() -> None:
    raw = openai_page({DAY: [cost("a, input", "123456789.123456789012")]})
    assert lines_of(raw)[0].amount == 123_456_789_123_456_789_012


@pytest.mark.parametrize(
    ("tokens", "apart"),
    [
        # the newer shape: everything is in input_tokens
        (
            {"input_tokens": 1000, "input_cached_tokens": 400, "input_cache_write_tokens": 100}
            | {"input_uncached_tokens": 500, "output_tokens": 7},
            {"input": 500, "cache_read": 400, "cache_write_5m": 100, "output": 7},
        ),
        (
            {"input_tokens": 100, "input_text_tokens": 60, "input_audio_tokens": 40}
            | {"output_tokens": 9, "output_audio_tokens": 4},
            {"input": 60, "audio_input": 40, "output": 5, "audio_output": 4},
        ),
        # the older one: cached inside, audio beside
        (
            {"input_tokens": 1000, "input_cached_tokens": 800, "input_audio_tokens": 30},
            {"input": 200, "cache_read": 800, "audio_input": 30},
        ),
        # audio that was cached too: not told apart, never negative
        (
            {"input_tokens": 50, "input_uncached_tokens": 10, "input_cached_tokens": 40}
            | {"input_audio_tokens": 20},
            {"input": 10, "cache_read": 40},
        ),
    ],
)
def test_inclusive_tokens_are_made_disjoint(tokens: dict[str, int], apart: dict[str, int]) -> None:
    lines = lines_of(openai_page({DAY: [used(3, **tokens)]}))
    assert {each.component: each.quantity for each in lines if each.component} == apart
    assert [each.requests for each in lines] == [3] + [None] * len(apart)
    assert {(each.amount, each.currency, each.category) for each in lines} == {(0, "", "usage")}


def test_usage_is_per_model_project_and_tier() -> None:
    raw = openai_page(
        {
            DAY: [
                used(1, input_tokens=5, project_id="p", service_tier="default"),
                used(1, input_tokens=5, project_id="p", service_tier="flex"),
                used(1, input_tokens=5, project_id="p", batch=True),
                used(1, input_tokens=5, object="organization.usage.embeddings.result"),
            ]
        }
    )
    told = [(each.project, each.tier) for each in lines_of(raw) if each.requests]
    assert told == [("p", None), ("p", "flex"), ("p", "batch"), (None, None)]


def test_the_last_two_utc_days_are_provisional(read: Callable[..., Any]) -> None:
    days = ["2026-11-20", "2026-11-21", "2026-11-22", "2026-11-23"]
    raw = openai_page({day: [cost("a, input", "1")] for day in days})
    assert [each.is_provisional for each in lines_of(raw)] == [False, True, True, True]
    assert read(raw)[0].invoice.is_provisional
    assert not read(openai_page({days[0]: [cost("a, input", "1")]}))[0].invoice.is_provisional


def test_costs_and_usage_of_a_month_are_two_documents_of_one_account(
    read: Callable[..., Any], store: Any
) -> None:
    read(openai_page({DAY: [cost("gpt-4o, input", "1")]}), account="a")
    read(openai_page({DAY: [used(1, input_tokens=5)]}), account="a")
    assert [(each.source, each.account, each.currency) for each in store.current("2026-11")] == [
        ("openai", "a", "USD"),
        ("openai-usage", "a", ""),
    ]
    with pytest.raises(InvoiceError, match="import them as two"):
        read(openai_page({DAY: [cost("gpt-4o, input", "1"), used(1)]}))


def test_several_pages_in_one_file() -> None:
    first = openai_page({DAY: [cost("a, input", "1")]}, has_more=True, next_page="page_x")
    last = openai_page({"2026-11-06": [cost("a, input", "2")]})
    as_list = b"\xef\xbb\xbf[" + first + b",\n" + last + b"]"
    for raw in (first + b"\n" + last + b"\n", as_list):
        assert [each.amount for each in lines_of(raw)] == [USD, 2 * USD]
    for torn, why in (
        (first, "more pages follow"),
        (first + last[:-9], "torn"),
        (first + first + last, "tells again"),
        (as_list[:-1], "torn"),
    ):
        with pytest.raises(InvoiceError, match=why):
            lines_of(torn)


HOSTILE = [
    (cost("a", "NaN"), "NaN is no number"),
    (cost("a", "-Infinity"), "-Infinity is no number"),
    (cost("a", "1e999999"), "out of range"),
    (cost("a", "9" * 5000), "number that cannot be read|out of range"),
    (cost("a", "true"), "is no number"),
    (cost("a", "null"), "is no number"),
    (cost("a", '"one"'), "not an amount"),
    (cost("a", "1", currency="dollars"), "ISO code"),
    (cost("a", "1", currency=None), "ISO code"),
    (cost("\ud800", "1"), "half a character|UTF-8"),
    (cost("a", "1", project_id=7), "project_id is '7': it must be a text"),
    (cost("a", "1", quantity=-1), "the quantity is '-1'"),
    (cost("a", "1", quantity=2**63), "the quantity"),
    ({"object": "organization.costs.result"}, "has no amount"),
    (used(-1), "num_model_requests is '-1'"),
    (used(1, input_tokens=-5), "input_tokens is '-5'"),
    (used(1, input_tokens=Number("1.5")), "input_tokens is '1.5'"),
    (used(1, input_tokens=2**63), "input_tokens"),
    (used(1, input_tokens=True), "input_tokens is 'True'"),
    (used(1, input_tokens=5, input_cached_tokens=6), "fewer input tokens"),
    (used(1, input_tokens=5, input_uncached_tokens=6), "not the sum"),
    ({"object": "organization.usage.x", "num_model_requests": None}, "num_model_requests"),
]


@pytest.mark.parametrize(("result", "why"), HOSTILE)
def test_what_cannot_be_right_names_its_place_and_nothing_is_kept(
    read: Callable[..., Any], store: Any, result: dict[str, Any], why: str
) -> None:
    is_cost = result["object"] == "organization.costs.result"
    good = cost("b", "1") if is_cost else used(1, model="other")
    with pytest.raises(InvoiceError, match=why):
        read(openai_page({DAY: [good, result]}))
    assert store.invoices() == []


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"organization.costs.result"', "torn"),
        (b'{"object": "organization.costs.result"}', "no list of buckets"),
        (b'{"data": ["organization.costs.result"]}', "is no object"),
        (b'{"data": [{"results": "organization.costs.result"}]}', "start_time"),
        (b'{"data": [{"start_time": 1e9, "x": "organization.costs.result"}]}', "start_time"),
        (b'{"data": [{"start_time": 1, "x": "organization.costs.result"}]}', "'results'"),
        (b'{"data": [], "data": [], "x": "organization.costs.result"}', "'data' twice"),
        (b'{"data": [], "x": "organization.costs.result"}', "holds no lines"),
        (b'["organization.costs.result"]', "no JSON object"),
        (b"[" * 100_000 + b'"organization.costs.result"', "nested too deep|torn"),
        (b'{"x": "organization.costs.result\xff"}', "not UTF-8"),
        (b"\x00\x01\x02 organization.costs.result", "no importer knows"),
        (b"", "no importer knows"),
    ],
)
def test_what_is_no_document_is_said_to_be_none(
    read: Callable[..., Any], store: Any, raw: bytes, why: str
) -> None:
    with pytest.raises(InvoiceError, match=why):
        read(raw)
    assert store.invoices() == []


def test_what_is_not_in_the_table_is_noted() -> None:
    from costspan.core.invoices.document import Order
    from costspan.core.invoices.importing import documents_of

    raw = openai_page({DAY: [cost("o9, dream tokens", "1"), cost("x, input", "1")]})
    notes = Notes()
    [document] = documents_of(Order(place="./f", raw=raw, at=0))
    assert [billed.line.model for billed in document.lines(notes)] == [None, "x"]
    assert notes.texts() == [
        "line items that are not in the table, kept without model: 1 time, first at"
        " 'o9, dream tokens'"
    ]
