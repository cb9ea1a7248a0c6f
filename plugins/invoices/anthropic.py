"""Anthropic's cost report (money) and usage report of messages (tokens).

Two documents a month: `anthropic` holds ``GET /v1/organizations/cost_report``, `anthropic-usage`
``GET /v1/organizations/usage_report/messages``; an admin key is needed. Amounts are decimal texts
in CENTS: "123.45" is 1.2345 USD. A workspace of null is the default one. The usage report counts
no requests, and the cost report leaves out the priority tier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, cast

from costspan.core.hooks import hookimpl
from costspan.core.invoices.document import (
    Billed,
    Document,
    InvoiceError,
    Notes,
    Order,
    amount_of,
    category_of,
    currency_of,
    quantity_of,
)
from costspan.core.invoices.invoice import InvoiceLine
from costspan.core.money import PICO
from costspan.core.prices.names import canonical_tier
from costspan.plugins.invoices.fetch import Api, Query
from costspan.plugins.invoices.items import ANTHROPIC_COMPONENTS, ANTHROPIC_COST_TYPES
from costspan.plugins.invoices.pages import Result, claims, groups, month_span, text

PROVIDER: Final = "anthropic"
KEY_ENV: Final = "ANTHROPIC_ADMIN_KEY"
ROOT: Final = "https://api.anthropic.com"
VERSION: Final = "2023-06-01"

_PICO_PER_CENT: Final = PICO // 100
_NAMED_WORKSPACE = re.compile(rb'"workspace_id"\s*:\s*"')


@hookimpl
def import_invoice(order: Order) -> list[Document] | None:
    """The API if the place is `anthropic`; a file if it holds pages of it."""
    if order.raw is None:
        return _fetched(order) if order.place == PROVIDER else None
    if not claims(order, PROVIDER, b'"starting_at"'):
        return None
    is_grouped = _NAMED_WORKSPACE.search(order.raw) is not None
    is_usage = b'"uncached_input_tokens":' in re.sub(rb"\s+", b"", order.raw)
    source = "anthropic-usage" if is_usage else "anthropic"
    return [_document(order, order.raw, source, is_grouped)]


def _fetched(order: Order) -> list[Document]:
    start, end = month_span(order)
    query: Query = {
        "starting_at": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ending_at": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bucket_width": "1d",
        "limit": 31,
    }
    documents: list[Document] = []
    done = 0
    headers = {"anthropic-version": VERSION}
    api = Api(order.base_url or ROOT, order.key_env or KEY_ENV, "x-api-key", "", headers)
    try:
        for source, path, group_by in (
            ("anthropic", "cost_report", ["workspace_id", "description"]),
            ("anthropic-usage", "usage_report/messages", ["workspace_id", "model", "service_tier"]),
        ):
            bodies: list[bytes] = []
            for body in api.pages(f"/v1/organizations/{path}", {**query, "group_by[]": group_by}):
                bodies.append(body)
                done += 1
                order.tell(done)
            documents.append(_document(order, b"\n".join(bodies), source, True))
    finally:
        api.close()
    return documents


def _document(order: Order, raw: bytes, source: str, is_grouped: bool) -> Document:
    def lines(notes: Notes) -> Iterator[Billed]:
        for result in groups(raw, _is_term):
            if source == "anthropic":
                yield _cost(order, result, notes, is_grouped)
            else:
                yield from _usage(order, result, is_grouped)

    return Document(
        source=source,
        provider=PROVIDER,
        account=order.account,
        raw=raw,
        lines=lines,
        period=order.period,
    )


def _is_term(name: str, value: object) -> bool:
    return name != "amount" and (value is None or isinstance(value, str))


def _line(order: Order, result: Result, is_grouped: bool, **facts: Any) -> Billed:
    workspace = text(result.fields, "workspace_id", result.where)
    line = InvoiceLine(
        invoice="",
        number=0,
        provider=PROVIDER,
        account=order.account,
        project=workspace or ("default" if is_grouped else None),
        day=result.day,
        model=text(result.fields, "model", result.where),
        tier=canonical_tier(text(result.fields, "service_tier", result.where)),
        requests=None,
        is_provisional=order.is_provisional(result.day),
        **facts,
    )
    return Billed(result.day[:7], line)


def _cost(order: Order, result: Result, notes: Notes, is_grouped: bool) -> Billed:
    where, fields = result.where, result.fields
    cents = fields.get("amount")
    if not isinstance(cents, str):
        raise InvoiceError(
            f"{where}: the amount is {str(cents)[:40]!r}: the cost report writes cents as a decimal"
            ' text, such as "123.45" for 1.2345 USD'
        )
    amount = amount_of(cents, where, notes, per=_PICO_PER_CENT, rounding=order.rounding)
    currency = currency_of(fields.get("currency"), where)
    if currency != "USD":
        raise InvoiceError(f"{where}: cents of {currency}: the cost report is in USD")
    cost_type = text(fields, "cost_type", where) or ""
    token_type = text(fields, "token_type", where) or ""
    category = category_of(cost_type, amount)
    component = ANTHROPIC_COMPONENTS.get(token_type, ANTHROPIC_COST_TYPES.get(cost_type))
    if component is None and category == "usage" and cost_type:
        notes.note("cost types that are not in the table, kept as usage", f"{cost_type!r}")
    return _line(
        order,
        result,
        is_grouped,
        component=component or "",
        category=category,
        quantity=None,
        unit=None,
        amount=amount,
        currency=currency,
        description=text(fields, "description", where) or " ".join((cost_type, token_type)).strip(),
    )


def _usage(order: Order, result: Result, is_grouped: bool) -> Iterator[Billed]:
    where, fields = result.where, result.fields
    model = text(fields, "model", where) or "all models"
    counts = {
        component: _count(fields, path, where) for path, component in ANTHROPIC_COMPONENTS.items()
    }
    counts["web_searches"] = _count(fields, "server_tool_use.web_search_requests", where)
    for component, quantity in counts.items():
        if quantity:
            yield _line(
                order,
                result,
                is_grouped,
                component=component,
                category="usage",
                quantity=quantity,
                unit="requests" if component == "web_searches" else "tokens",
                amount=0,
                currency="",
                description=f"messages of {model}",
            )


def _count(fields: object, path: str, where: str) -> int:
    """A count by its path; what is absent or null was not used."""
    value = fields
    for name in path.split("."):
        if value is None:
            return 0
        if not isinstance(value, dict):
            raise InvoiceError(f"{where}: {path} is not where it should be")
        value = cast(dict[str, object], value).get(name)
    return 0 if value is None else quantity_of(value, f"{where}: {path}")
