"""FOCUS and AWS CUR files."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from papers import FOCUS, USD, lines_of, table

from costspan.core.invoices.document import InvoiceError

CUR = {
    "bill_billing_period_start_date": "2026-10-01T00:00:00.000Z",
    "bill_invoice_id": "1",
    "bill_payer_account_id": "111",
    "line_item_currency_code": "USD",
    "line_item_line_item_description": "",
    "line_item_line_item_type": "Usage",
    "line_item_product_code": "AmazonBedrock",
    "line_item_unblended_cost": "0.0000012345",
    "line_item_usage_account_id": "222",
    "line_item_usage_amount": "1.5",
    "line_item_usage_end_date": "2026-10-05 11:00:00",
    "line_item_usage_start_date": "2026-10-05 10:00:00",
    "line_item_usage_type": "USE1-Claude3.5Sonnet-input-tokens",
    "pricing_unit": "1K tokens",
}


def focus(*rows: dict[str, str]) -> bytes:
    return table(FOCUS, *({**FOCUS, **row}.values() for row in rows))


def cur(*rows: dict[str, str]) -> bytes:
    return table(CUR, *({**CUR, **row}.values() for row in rows))


def test_a_focus_row_is_a_line() -> None:
    [line] = lines_of(focus({"SkuPriceDetails": '{"x_Model": "m", "x_TokenType": "output"}'}))
    assert (line.provider, line.account, line.project) == ("bedrock", "acct-1", "sub-1")
    assert (line.day, line.model, line.component) == ("2026-10-05", "m", "output")
    assert (line.amount, line.currency) == (75 * USD // 100, "USD")
    assert (line.quantity, line.unit, line.category) == (1234, "tokens", "usage")


def test_categories_of_focus_are_kept_apart(read: Callable[..., Any]) -> None:
    named = ["Usage", "Purchase", "Tax", "Credit", "Adjustment"]
    whole = {"ChargePeriodStart": "2026-10-01T00:00:00Z", "ChargePeriodEnd": "2026-11-01T00:00:00Z"}
    rows = [{**whole, "ChargeCategory": name, "ConsumedQuantity": ""} for name in named]
    lines = lines_of(focus(*rows))
    assert [each.category for each in lines] == [name.lower() for name in named]
    assert {each.day for each in lines} == {""}  # a whole month's charge is of no day
    [kept] = read(focus(*rows))
    assert kept.amounts == dict.fromkeys(map(str.lower, named), 75 * USD // 100)


def test_a_file_of_two_months_and_two_accounts_is_four_invoices(
    read: Callable[..., Any], store: Any
) -> None:
    rows = [
        {"BillingAccountId": account, "BillingPeriodStart": f"2026-{month}-01T00:00:00Z"}
        for account in "ab"
        for month in ("09", "10")
    ]
    raw = focus(*rows, *rows[:1])
    kept = read(raw)
    assert [(each.invoice.account, each.invoice.period, each.lines) for each in kept] == [
        *(("a", "2026-09", 2), ("a", "2026-10", 1), ("b", "2026-09", 1), ("b", "2026-10", 1))
    ]
    assert {store.raw(each.invoice.id) for each in kept} == {raw}
    assert kept[0].notes == ["rows identical to one before them, kept: 1 time, first at line 6"]
    [one] = read(raw, period="2026-10", account="x")[:1]
    assert (one.invoice.id, one.is_new) == (kept[1].invoice.id, False)


def test_currencies_are_never_added_up(read: Callable[..., Any], store: Any) -> None:
    with pytest.raises(InvoiceError, match="an invoice has one currency"):
        read(focus({}, {"BillingCurrency": "EUR"}))
    assert store.invoices() == []
    [kept] = read(focus({"BillingCurrency": "EUR"}))
    assert kept.invoice.currency == "EUR"


def test_a_charge_without_its_invoice_is_provisional() -> None:
    headings = [*FOCUS, "InvoiceId"]
    rows = ([*FOCUS.values(), "inv-1"], [*FOCUS.values(), ""])
    assert [each.is_provisional for each in lines_of(table(headings, *rows))] == [False, True]


def test_cur_two_and_one_read_the_same() -> None:
    two = cur({}, {"line_item_line_item_type": "Tax"})
    ones = {
        name: f"{group}/{''.join(map(str.title, rest.split('_')))}"
        for name in CUR
        for group, rest in [_parted(name)]
    }
    heading, rows = two.split(b"\r\n", 1)
    one = ",".join(ones[name] for name in heading.decode().split(",")).encode() + b"\r\n" + rows
    assert b"lineItem/UnblendedCost" in one
    assert lines_of(one) == lines_of(two)
    [used, taxed] = lines_of(two)
    assert (used.provider, used.account, used.project) == ("bedrock", "111", "222")
    assert (used.model, used.component, used.tier) == ("Claude3.5Sonnet", "input", None)
    assert (used.quantity, used.unit, used.amount) == (1500, "tokens", 1_234_500)
    assert (taxed.category, taxed.quantity) == ("tax", None)


def _parted(name: str) -> tuple[str, str]:
    for group, said in (("line_item_", "lineItem"), ("bill_", "bill"), ("pricing_", "pricing")):
        if name.startswith(group):
            return said, name.removeprefix(group)
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("meter", "said"),
    [
        ("USE1-Claude4Sonnet-output-tokens-batch", ("Claude4Sonnet", "output", "batch")),
        ("USW2-NovaPro-cache-read-input-token-count", ("NovaPro", "cache_read", None)),
        ("MP:USE1_OutputTokenCount-Units", (None, "output", None)),
        ("USE1-BoxUsage:m5.large", (None, "", None)),
        ("", (None, "", None)),
    ],
)
def test_meters(meter: str, said: tuple[str | None, str, str | None]) -> None:
    [line] = lines_of(cur({"line_item_usage_type": meter}))
    assert (line.model, line.component, line.tier) == said


@pytest.mark.parametrize(
    ("kind", "category"),
    [("Refund", "credit"), ("EdpDiscount", "discount"), ("RIFee", "purchase"), ("New", None)],
)
def test_what_is_no_usage_in_cur(read: Callable[..., Any], kind: str, category: str | None) -> None:
    [kept] = read(cur({"line_item_line_item_type": kind, "line_item_usage_amount": "-1"}))
    assert list(kept.amounts) == [category or "adjustment"]
    assert bool(kept.notes) == (category is None)


def test_other_services_are_kept_or_left_out_and_it_is_said(read: Callable[..., Any]) -> None:
    raw = cur({}, {"line_item_product_code": "AmazonEC2"})
    assert read(raw)[0].notes[0].startswith("lines of services that are not AI, kept")
    [kept] = read(raw, services=("AmazonBedrock",))
    assert (kept.lines, kept.invoice.version) == (1, 2)
    assert kept.notes == ["lines of other services left out: 1 time, first at line 3"]


def test_gzip_and_its_tears(read: Callable[..., Any], store: Any) -> None:
    packed = gzip.compress(cur(*[{"line_item_usage_amount": str(n)} for n in range(99)]))
    for torn in (packed[:-30], packed[:-6]):
        with pytest.raises(InvoiceError, match="torn"):
            read(torn)
    assert store.invoices() == []
    [kept] = read(packed)
    assert kept.lines == 99
    assert store.raw(kept.invoice.id) == packed


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"BilledCost": "NaN"}, "line 2: not an amount"),
        ({"BilledCost": ""}, "line 2: not an amount"),
        ({"BilledCost": "1.0000000000001"}, "line 2: .*--round"),
        ({"BilledCost": "1,5"}, "line 2: not an amount"),
        ({"BillingCurrency": "$"}, "line 2: the currency"),
        ({"ChargeCategory": "Rent"}, "line 2: FOCUS has no ChargeCategory 'Rent'"),
        ({"BillingPeriodStart": "October"}, "line 2: 'October' is no date"),
        ({"BillingPeriodStart": ""}, "line 2: '' is no date"),
        ({"ConsumedQuantity": "-5"}, "line 2: a negative ConsumedQuantity"),
        ({"ConsumedQuantity": "1e30"}, "line 2: .*quantity"),
        ({"ConsumedQuantity": "many"}, "line 2: the quantity"),
        ({"SkuPriceDetails": "{"}, "line 2: SkuPriceDetails is no JSON"),
        ({"ChargeDescription": "x" * 200_000}, "field larger than field limit"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(
    read: Callable[..., Any], store: Any, row: dict[str, str], why: str
) -> None:
    with pytest.raises(InvoiceError, match=why):
        read(focus(row))
    assert store.invoices() == []


@pytest.mark.parametrize(
    ("tear", "why"),
    [
        (lambda raw: raw[:-40], "is it torn"),
        (lambda raw: raw + b'"open', "torn"),
        (lambda raw: raw + b"a,b\r\n", "line 3 has 2 cells"),
        (lambda raw: raw.replace(b"tokens", b"t\xffkens"), "not UTF-8"),
        (lambda raw: raw.replace(b"ChargeClass", b"BilledCost"), "two columns"),
        (lambda raw: raw.split(b"\r\n")[0] + b"\r\n", "holds no lines"),
    ],
)
def test_files_that_are_not_whole(
    read: Callable[..., Any], store: Any, tear: Callable[[bytes], bytes], why: str
) -> None:
    with pytest.raises(InvoiceError, match=why):
        read(tear(focus({})))
    assert store.invoices() == []


def test_a_correction_may_be_negative() -> None:
    [line] = lines_of(focus({"ChargeClass": "Correction", "ConsumedQuantity": "-5"}))
    assert line.quantity == -5
