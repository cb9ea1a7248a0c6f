"""Anthropic's cost and usage reports from files: cents as decimal texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from papers import USD, Number, anthropic_page, charged, lines_of

from costspan.core.invoices.document import InvoiceError

DAY = "2026-11-05"


def spent(**tokens: Any) -> dict[str, Any]:
    """A result of the usage report."""
    told = {"uncached_input_tokens": 0, "output_tokens": 0, "model": "claude-haiku-4-5"}
    return {**told, "workspace_id": None, "service_tier": "standard", **tokens}


@pytest.mark.parametrize(
    ("cents", "pico"),
    [
        ("123.45", 1_234_500_000_000),  # not 123.45 USD
        ("0.0001", 10**6),
        ("0.0000000001", 1),
        ("100", USD),
        ("-50", -USD // 2),
        ("1e2", USD),
        ("0", 0),
    ],
)
def test_amounts_are_cents(cents: str, pico: int) -> None:
    [line] = lines_of(anthropic_page({DAY: [charged(cents)]}))
    assert (line.amount, line.currency) == (pico, "USD")


def test_a_cost_says_model_component_tier_and_workspace() -> None:
    kinds = ["uncached_input_tokens", "cache_read_input_tokens"]
    kinds += [f"cache_creation.ephemeral_{life}_input_tokens" for life in ("5m", "1h")]
    results = [charged("1", token_type=kind, workspace_id="wrk_1") for kind in kinds]
    results += [charged("1", service_tier="batch", description="Claude Output")]
    results += [charged("1", cost_type="web_search", token_type=None, model=None)]
    results += [charged("1", cost_type="code_execution", token_type=None, model=None)]
    lines = lines_of(anthropic_page({DAY: results}))
    assert [each.component for each in lines] == [
        *("input", "cache_read", "cache_write_5m", "cache_write_1h", "output"),
        *("web_searches", ""),
    ]
    assert [each.project for each in lines] == ["wrk_1"] * 4 + ["default"] * 3
    assert [each.tier for each in lines] == [None] * 4 + ["batch", None, None]
    assert [each.model for each in lines] == ["claude-sonnet-4-5"] * 5 + [None, None]
    assert lines[4].description == "Claude Output"


def test_without_any_workspace_none_is_invented() -> None:
    assert lines_of(anthropic_page({DAY: [charged("1")]}))[0].project is None


def test_taxes_and_credits_are_kept_apart() -> None:
    results = [charged("1", cost_type="tax"), charged("-1", cost_type="tokens")]
    lines = lines_of(anthropic_page({DAY: results}))
    assert [each.category for each in lines] == ["tax", "credit"]


def test_usage_is_disjoint_as_it_comes(read: Callable[..., Any]) -> None:
    written = {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 4}
    raw = anthropic_page(
        {
            DAY: [
                spent(uncached_input_tokens=1, cache_read_input_tokens=2, cache_creation=written)
                | {"output_tokens": 5, "server_tool_use": {"web_search_requests": 6}}
            ]
        }
    )
    lines = lines_of(raw)
    assert {each.component: (each.quantity, each.unit) for each in lines} == {
        "input": (1, "tokens"),
        "cache_read": (2, "tokens"),
        "cache_write_5m": (3, "tokens"),
        "cache_write_1h": (4, "tokens"),
        "output": (5, "tokens"),
        "web_searches": (6, "requests"),
    }
    assert {(each.requests, each.amount, each.currency) for each in lines} == {(None, 0, "")}
    [kept] = read(raw)
    assert (kept.invoice.source, kept.invoice.currency) == ("anthropic-usage", "")


@pytest.mark.parametrize(
    ("result", "why"),
    [
        (charged(Number("123.45")), "writes cents as a decimal text"),
        (charged(None), "writes cents"),
        (charged("1.23456789012"), "finer than a pico"),
        (charged("NaN"), "not an amount"),
        (charged("1,5"), "not an amount"),
        (charged("1", currency="JPY"), "cents of JPY"),
        (charged("1", currency=""), "ISO code"),
        (spent(output_tokens=-1), "output_tokens is '-1'"),
        (spent(cache_creation=7), "cache_creation"),
    ],
)
def test_what_cannot_be_right_is_refused_whole(
    read: Callable[..., Any], store: Any, result: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvoiceError, match=why):
        read(anthropic_page({"2026-11-04": [], DAY: [result]}))
    assert store.invoices() == []


def test_a_page_saved_twice_is_refused(read: Callable[..., Any]) -> None:
    page = anthropic_page({DAY: [charged("1")]})
    with pytest.raises(InvoiceError, match="tells again"):
        read(page + page)


def test_a_bucket_of_another_zone_is_its_utc_day() -> None:
    raw = anthropic_page({DAY: [charged("1")]}).replace(b"T00:00:00Z", b"T00:00:00+02:00")
    assert lines_of(raw)[0].day == "2026-11-04"
