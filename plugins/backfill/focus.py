"""FOCUS rows as usage: where a row names a model and what of it was used, it is an event.

A row is a sum over many calls (an hour of a tenant and a model), so it can meet no call that was
recorded live: where there are such, the file is an invoice (`costspan invoices import`). A row has
no id either: it is named by its dimensions, so that a day which has grown since conflicts, in
sight, with what was ingested before, and is not added to it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from costspan.core import clean
from costspan.core.backfill.claim import Claim, LeftOut, Rejected
from costspan.core.money import format_usd
from costspan.core.prices.names import canonical_provider
from costspan.plugins.backfill import cells
from costspan.plugins.backfill.cells import Row

SOURCE: Final = "backfill:focus"
TENANT_FROM: Final = ("Tags.tenant", "x_Tenant", "SubAccountId")
KNOWN_FROM: Final = (
    "SubAccountId",
    "SubAccountName",
    "ResourceId",
    "BillingAccountId",
    "x_",
    "Tags.",
)
MEANT: Final = (
    "costspan invoices import FILE keeps it as what a provider bills, which is what rows without"
    " a model are for"
)
_MODEL: Final = ("x_Model", "x_model", "x_ModelName", "x_ModelId")
_COMPONENT: Final = ("x_TokenType", "x_Component", "x_UsageType", "x_token_type")
_AMOUNTS: Final = frozenset(
    {
        *("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ConsumedQuantity"),
        *("PricingQuantity", "InvoiceId", "ChargeClass", "ChargeDescription"),
        *("PricingCurrencyEffectiveCost",),
    }
)
_WORDS: Final = {
    **dict.fromkeys(("input", "input_tokens", "uncached_input_tokens", "prompt"), "input"),
    **dict.fromkeys(("output", "output_tokens", "completion"), "output"),
    **dict.fromkeys(("cache_read", "cache_read_input_tokens", "cached_input"), "cache_read"),
    **dict.fromkeys(("input_cached_tokens", "cached_tokens"), "cache_read"),
    **dict.fromkeys(
        ("cache_write_5m", "cache_creation.ephemeral_5m_input_tokens"), "cache_write_5m"
    ),
    **dict.fromkeys(("cache_creation_input_tokens", "cache_write"), "cache_write_5m"),
    **dict.fromkeys(
        ("cache_write_1h", "cache_creation.ephemeral_1h_input_tokens"), "cache_write_1h"
    ),
    **dict.fromkeys(("web_search", "web_searches"), "web_searches"),
    **{name: name for name in ("audio_input", "audio_output", "image_input", "images", "requests")},
}


class Converter:
    """Rows of FOCUS to claims; one for each reading of a file, whose rows it counts.

    Args:
        tenant_from: Where the tenant stands, best first.
    """

    def __init__(self, tenant_from: Sequence[str] = TENANT_FROM) -> None:
        self._tenant_from = tenant_from
        self._seen: Counter[str] = Counter()

    def __call__(self, row: Row) -> Claim:
        """The claim of one row.

        Raises:
            Rejected: for a row whose quantity, time or currency cannot be used.
            LeftOut: for one that is no usage of a model.
        """
        flags = ["backfill", "aggregated"]
        category = cells.text(row, "ChargeCategory")
        if category != "Usage":
            raise LeftOut(f"ChargeCategory {category or 'none'} is no usage: {MEANT}")
        details = cells.mapping(row, "SkuPriceDetails", flags)
        tags = cells.mapping(row, "Tags", flags)
        model = cells.text(row, *_MODEL) or cells.text(details, *_MODEL)
        told = cells.text(row, *_COMPONENT) or cells.text(details, *_COMPONENT)
        component = _WORDS.get((told or "").lower())
        if model is None or component is None:
            raise LeftOut(f"it names no model with a kind of token: {MEANT}")
        started = cells.moment(row, "ChargePeriodStart")
        if started is None:
            raise Rejected("ChargePeriodStart is no moment: it has no month")
        currency = cells.text(row, "BillingCurrency")
        if currency != "USD":
            raise Rejected(f"BillingCurrency {currency or 'none'}: the books are in USD")
        said = row.get("BilledCost")
        spend = cells.money(said, flags, "BilledCost")
        tenant, why = cells.owner(row, self._tenant_from, {"Tags": tags})
        provider = cells.text(row, "ServiceProviderName", "ProviderName", "PublisherName")
        seen = clean.observation(
            {
                "oid": self._name(row),
                "source": SOURCE,
                "layer": "manual",
                "phase": "end",
                "kind": "model",
                "provider": canonical_provider(provider.lower()) if provider else None,
                "executed_model": model,
                "tier": cells.text(row, "x_ServiceTier") or cells.text(details, "x_ServiceTier"),
                "region": cells.text(row, "RegionId"),
                "usage": {component: cells.count(cells.text(row, "ConsumedQuantity"))},
                "usage_source": "provider",
                "provider_result": "ok",
                "started_at": started,
                "ended_at": cells.moment(row, "ChargePeriodEnd"),
                "host_cost": format_usd(spend) if spend else None,
                "tenant": tenant,
                "tenant_source": "metadata" if tenant else None,
                "labels": {"backfill": "focus"},
                "flags": tuple(flags),
            }
        )
        return Claim(seen, spend, None, why)

    def _name(self, row: Row) -> str:
        said: dict[str, Any] = {k: v for k, v in row.items() if k not in _AMOUNTS and v}
        plain = json.dumps(said, sort_keys=True, default=str)
        digest = hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
        self._seen[digest] += 1
        return f"{SOURCE}:{digest}#{self._seen[digest]}"
