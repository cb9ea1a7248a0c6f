"""Rows of a FOCUS export, and what `ingest` says of them."""

from __future__ import annotations

import json
from typing import Any

from desk import Desk
from exports import Row, table


def charge(component: str = "input", quantity: str = "1000000.0", **more: Any) -> Row:
    return {
        "ChargeCategory": "Usage",
        "ChargePeriodStart": "2026-10-05T12:00:00Z",
        "ChargePeriodEnd": "2026-10-05T13:00:00Z",
        "BilledCost": "0.15",
        "BillingCurrency": "USD",
        "ProviderName": "OpenAI",
        "SubAccountId": "acme",
        "ConsumedQuantity": quantity,
        "ConsumedUnit": "Tokens",
        "SkuPriceDetails": json.dumps({"x_Model": "gpt-4o-mini", "x_TokenType": component}),
        "Tags": "{}",
        **more,
    }


def read(desk: Desk, rows: list[Row], *options: object) -> Any:
    return desk.run("ingest", "focus", table(desk.folder / "focus.csv", rows), *options)
