"""FOCUS 1.0 to 1.2 (CSV), and AWS Cost and Usage Reports 2.0 and 1.0 (CSV); gzip too.

The amount is what is invoiced: `BilledCost`, in CUR the unblended cost. Whatever is no usage
(taxes, credits, purchases, discounts) is kept apart by its category. The billing period is the
document's own; the day is the charge period's, if that is no longer than a day. A charge without
an invoice id, where there is a column for it, is provisional.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final, cast

from costspan.core.hooks import hookimpl
from costspan.core.invoices.document import (
    Billed,
    Document,
    InvoiceError,
    Notes,
    Order,
    amount_of,
    currency_of,
)
from costspan.core.invoices.invoice import Category, InvoiceLine
from costspan.core.prices.names import canonical_provider, canonical_tier
from costspan.plugins.invoices.items import ANTHROPIC_COMPONENTS, OPENAI_COMPONENTS
from costspan.plugins.invoices.meters import counted, meter_of
from costspan.plugins.invoices.rows import Row, headings, moment, rows

_FOCUS: Final = frozenset({"BilledCost", "BillingCurrency", "BillingPeriodStart", "ChargeCategory"})
_CUR: Final = frozenset(
    {"line_item_unblended_cost", "line_item_currency_code", "line_item_line_item_type"}
)
_AI: Final = "AI and Machine Learning"

_FOCUS_CATEGORIES: Final[Mapping[str, Category]] = {
    "Usage": "usage",
    "Purchase": "purchase",
    "Tax": "tax",
    "Credit": "credit",
    "Adjustment": "adjustment",
}
_CUR_CATEGORIES: Final[Mapping[str, Category]] = {
    **dict.fromkeys(("Usage", "DiscountedUsage", "SavingsPlanCoveredUsage"), "usage"),
    **dict.fromkeys(("Credit", "Refund"), "credit"),
    **dict.fromkeys(("EdpDiscount", "BundledDiscount", "PrivateRateDiscount"), "discount"),
    **dict.fromkeys(("Discount", "SppDiscount"), "discount"),
    **dict.fromkeys(("Fee", "RIFee"), "purchase"),
    **dict.fromkeys(("SavingsPlanRecurringFee", "SavingsPlanUpfrontFee"), "purchase"),
    "SavingsPlanNegation": "adjustment",
    "Tax": "tax",
}
_PROVIDERS: Final = {
    "amazon web services": "bedrock",
    "google cloud": "vertex_ai",
    "google": "vertex_ai",
    "microsoft": "azure",
}
"""Clouds by the name of the service through which their models are called."""


@hookimpl
def import_invoice(order: Order) -> list[Document] | None:
    """A file whose headings are those of FOCUS or CUR."""
    if order.raw is None or order.columns is not None:
        return None
    names = headings(order.raw)
    if set(names) >= _FOCUS:
        read = _focus
    elif {_snake(name) for name in names} >= _CUR:
        read = _cur
    else:
        return None
    raw = order.raw

    def lines(notes: Notes) -> Iterator[Billed]:
        for row in rows(raw, notes):
            billed = read(order, row, notes)
            if billed is not None:
                yield billed

    return [
        Document(
            source="focus",
            provider=order.provider or "",
            account=order.account,
            raw=raw,
            lines=lines,
            period=order.period,
        )
    ]


def _focus(order: Order, row: Row, notes: Notes) -> Billed | None:
    where, cells = row
    service = cells.get("ServiceName", "")
    if not _is_wanted(order, service, where, notes):
        return None
    if cells.get("ServiceCategory", _AI) != _AI:
        _note_other(order, notes, where)
    category = _FOCUS_CATEGORIES.get(cells["ChargeCategory"])
    if category is None:
        raise InvoiceError(f"{where}: FOCUS has no ChargeCategory {cells['ChargeCategory'][:40]!r}")
    details = _details(cells.get("SkuPriceDetails", ""), where)
    meter = meter_of(cells.get("SkuMeter", ""))
    token_type = cells.get("x_TokenType") or details.get("x_TokenType", "")
    component = OPENAI_COMPONENTS.get(token_type) or ANTHROPIC_COMPONENTS.get(token_type)
    tier = cells.get("x_ServiceTier") or details.get("x_ServiceTier") or meter.tier
    quantity, unit = counted(
        cells.get("ConsumedQuantity", ""), cells.get("ConsumedUnit", ""), where
    )
    is_corrected = cells.get("ChargeClass") == "Correction" or category in ("credit", "adjustment")
    if quantity is not None and quantity < 0 and not is_corrected:
        raise InvoiceError(f"{where}: a negative ConsumedQuantity, and no correction")
    issuer = cells.get("ProviderName") or cells.get("ServiceProviderName")
    return _billed(
        order,
        row,
        notes,
        provider=order.provider or _provider(issuer or cells.get("InvoiceIssuerName", "")),
        account=cells.get("BillingAccountId") or order.account,
        project=cells.get("SubAccountId") or None,
        period=cells["BillingPeriodStart"],
        start=cells.get("ChargePeriodStart", ""),
        end=cells.get("ChargePeriodEnd", ""),
        model=cells.get("x_Model") or details.get("x_Model") or meter.model,
        component=component or token_type or meter.component,
        tier=canonical_tier(tier),
        category=category,
        quantity=quantity,
        unit=unit,
        amount=cells["BilledCost"],
        currency=cells["BillingCurrency"],
        description=cells.get("ChargeDescription") or cells.get("SkuMeter") or service,
        is_open="InvoiceId" in cells and not cells["InvoiceId"],
    )


def _cur(order: Order, row: Row, notes: Notes) -> Billed | None:
    where = row.where
    cells = {_snake(name): cell for name, cell in row.cells.items()}
    service = cells.get("line_item_product_code", "")
    if not _is_wanted(order, service, where, notes):
        return None
    if "bedrock" not in service.lower():
        _note_other(order, notes, where)
    kind = cells["line_item_line_item_type"]
    category = _CUR_CATEGORIES.get(kind)
    if category is None:
        notes.note(f"line items of type {kind[:40]!r}, kept as adjustments", where)
    meter = meter_of(cells.get("line_item_usage_type", ""))
    quantity, unit = counted(
        cells.get("line_item_usage_amount", ""), cells.get("pricing_unit", ""), where
    )
    if quantity is not None and quantity < 0 and category == "usage":
        raise InvoiceError(f"{where}: usage of a negative amount")
    start = cells.get("line_item_usage_start_date", "")
    said = cells.get("line_item_line_item_description") or cells.get("line_item_usage_type")
    return _billed(
        order,
        row,
        notes,
        provider=order.provider or "bedrock",
        account=cells.get("bill_payer_account_id") or order.account,
        project=cells.get("line_item_usage_account_id") or None,
        period=cells.get("bill_billing_period_start_date") or start,
        start=start,
        end=cells.get("line_item_usage_end_date", ""),
        model=meter.model,
        component=meter.component,
        tier=meter.tier,
        category=category or "adjustment",
        quantity=quantity if category == "usage" else None,
        unit=unit,
        amount=cells["line_item_unblended_cost"],
        currency=cells["line_item_currency_code"],
        description=said or service,
        is_open="bill_invoice_id" in cells and not cells["bill_invoice_id"],
    )


def _billed(
    order: Order,
    row: Row,
    notes: Notes,
    *,
    period: str,
    start: str,
    end: str,
    amount: str,
    currency: str,
    is_open: bool,
    **facts: Any,
) -> Billed:
    where = row.where
    day = ""
    if start:
        began = moment(start, where)
        if not end or moment(end, where) - began <= timedelta(days=1):
            day = began.isoformat()[:10]
    line = InvoiceLine(
        invoice="",
        number=0,
        day=day,
        requests=None,
        amount=amount_of(amount, where, notes, rounding=order.rounding),
        currency=currency_of(currency, where),
        is_provisional=is_open or (day != "" and order.is_provisional(day)),
        **facts,
    )
    return Billed(moment(period, where).isoformat()[:7], line)


def _is_wanted(order: Order, service: str, where: str, notes: Notes) -> bool:
    if not order.services or service in order.services:
        return True
    notes.note("lines of other services left out", where)
    return False


def _note_other(order: Order, notes: Notes, where: str) -> None:
    if not order.services:
        notes.note("lines of services that are not AI, kept (--service NAME keeps some)", where)


def _details(text: str, where: str) -> dict[str, str]:
    """The texts of the JSON in SkuPriceDetails."""
    if not text:
        return {}
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvoiceError(f"{where}: SkuPriceDetails is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvoiceError(f"{where}: SkuPriceDetails is no JSON object")
    fields = cast(dict[str, object], found)
    return {name: value for name, value in fields.items() if isinstance(value, str)}


def _provider(name: str) -> str:
    return _PROVIDERS.get(name.lower()) or canonical_provider(name) or ""


@cache
def _snake(name: str) -> str:
    """CUR 1.0 writes lineItem/UnblendedCost, 2.0 line_item_unblended_cost."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).replace("/", "_").lower()
