"""Documents as providers write them, built for a test."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from costspan.core.invoices.document import Notes, Order
from costspan.core.invoices.importing import documents_of
from costspan.core.invoices.invoice import InvoiceLine

BY = "mia"
NOW = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()) * 10**9
"""A Sunday: 2026-11-21 and 2026-11-22 are provisional."""
USD = 10**12


class Number(str):
    """A JSON number, to be written digit by digit."""


FOCUS = {
    "BilledCost": "0.75",
    "BillingAccountId": "acct-1",
    "BillingCurrency": "USD",
    "BillingPeriodStart": "2026-10-01T00:00:00Z",
    "BillingPeriodEnd": "2026-11-01T00:00:00Z",
    "ChargeCategory": "Usage",
    "ChargeClass": "",
    "ChargeDescription": "tokens",
    "ChargePeriodStart": "2026-10-05T10:00:00Z",
    "ChargePeriodEnd": "2026-10-05T11:00:00Z",
    "ConsumedQuantity": "1234.0",
    "ConsumedUnit": "Tokens",
    "ProviderName": "AWS",
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "Amazon Bedrock",
    "SkuMeter": "",
    "SkuPriceDetails": "",
    "SubAccountId": "sub-1",
}


def dumps(value: Any) -> str:
    """JSON in which a `Number` stands as it is written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        items = (f"{json.dumps(name)}: {dumps(item)}" for name, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(dumps(item) for item in value) + "]"
    return json.dumps(value)


def cost(line_item: str | None, value: str, **more: Any) -> dict[str, Any]:
    """A result of OpenAI's costs API; the amount as its digits."""
    amount = {"value": Number(value), "currency": more.pop("currency", "usd")}
    kind = "organization.costs.result"
    return {"object": kind, "amount": amount, "line_item": line_item, "project_id": None, **more}


def used(requests: int, **tokens: Any) -> dict[str, Any]:
    """A result of OpenAI's usage API."""
    kind = tokens.pop("object", "organization.usage.completions.result")
    told = {"object": kind, "num_model_requests": requests, "model": "gpt-4o", "batch": False}
    return {**told, "input_tokens": 0, "output_tokens": 0, **tokens}


def charged(cents: Any, **more: Any) -> dict[str, Any]:
    """A result of Anthropic's cost report."""
    told = {"currency": "USD", "cost_type": "tokens", "model": "claude-sonnet-4-5"}
    return {"amount": cents, **told, "token_type": "output_tokens", "workspace_id": None, **more}


def openai_page(days: Mapping[str, list[Any]], **more: Any) -> bytes:
    """A page of OpenAI's, a bucket a day."""
    data = [
        {"object": "bucket", "start_time": _unix(day), "end_time": _unix(day) + 86_400}
        | {"results": results}
        for day, results in days.items()
    ]
    page = {"object": "page", "data": data, "has_more": False, "next_page": None, **more}
    return dumps(page).encode("utf-8", "surrogatepass")


def anthropic_page(days: Mapping[str, list[Any]], **more: Any) -> bytes:
    """A page of Anthropic's, a bucket a day."""
    data = [
        {"starting_at": f"{day}T00:00:00Z", "ending_at": f"{day}T24:00:00Z", "results": results}
        for day, results in days.items()
    ]
    return dumps({"data": data, "has_more": False, "next_page": None, **more}).encode()


def table(headings: Iterable[str], *rows: Iterable[object]) -> bytes:
    """A CSV file."""
    text = io.StringIO()
    csv.writer(text).writerows([list(headings), *map(list, rows)])
    return text.getvalue().encode()


def lines_of(raw: bytes, **facts: Any) -> list[InvoiceLine]:
    """What a file says, kept nowhere."""
    order = Order(place="./file", raw=raw, **{"at": NOW, **facts})
    [document] = documents_of(order)
    return [billed.line for billed in document.lines(Notes())]


def _unix(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
