"""FOCUS rows as usage: where a row names a model and what of it was used, it is an event.

A row is a sum over many calls (an hour of a tenant and a model), so it can meet no call that was
recorded live: where there are such, the file is an invoice (`costspan invoices import`). A row has
no id either: it is named by its dimensions, as they are meant and not as they are written, so
that a day which has grown since conflicts, in sight, with what was ingested before, and is not
added to it. `focus_sums` adds up the rows of an export that share their dimensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from costspan.core import clean
from costspan.core.backfill.claim import Claim, LeftOut, Rejected, Said
from costspan.core.invoices.document import InvoiceError
from costspan.core.money import format_usd
from costspan.core.prices.names import canonical_provider
from costspan.plugins.backfill import cells
from costspan.plugins.backfill.cells import Row
from costspan.plugins.invoices.meters import counted

SOURCE: Final = "backfill:focus"
TENANT_FROM: Final = ("Tags.tenant", "x_Tenant", "SubAccountId")
_PLACES: Final = ("SubAccountId", "SubAccountName", "ResourceId", "BillingAccountId")
KNOWN_FROM: Final = (*_PLACES, "x_", "Tags.")
MEANT: Final = (
    "costspan invoices import FILE keeps it as what a provider bills, which is what rows without"
    " a model are for"
)
_MODEL: Final = ("x_Model", "x_model", "x_ModelName", "x_ModelId")
_COMPONENT: Final = ("x_TokenType", "x_Component", "x_UsageType", "x_token_type")
_DIMENSIONS: Final = (
    *("BillingAccountId", "SubAccountId", "SubAccountName", "ServiceName", "SkuId", "SkuPriceId"),
    *("ResourceId", "AvailabilityZone", "ConsumedUnit", "PricingCategory"),
    *("CommitmentDiscountId", "x_Tenant", "x_ApiKeyId", "x_WorkspaceId", "x_ProjectId"),
)
"""What tells rows apart besides what they say of a call. Not the invoice, which comes later."""
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
_COUNTED: Final = frozenset({"web_searches", "images", "requests"})
"""What is counted, each in a word of its own, and has no tokens."""
LABEL_FROM: Final = "backfill_tenant_from"
"""Where the tenant was looked for. A tenant is a part of a row's name: looked for elsewhere, the
same row would be another one, and be counted again."""


def recognises(row: Row) -> bool:
    """Whether a row can be one of FOCUS at all."""
    return "ChargePeriodStart" in row and "ChargeCategory" in row


def trust_of(place: str) -> str:
    """Who says what stands in a place."""
    return "whoever tagged it" if place.startswith("Tags.") else "the bill says so"


class Converter:
    """Rows of FOCUS to claims.

    Args:
        tenant_from: Where the tenant stands, best first.
    """

    def __init__(self, tenant_from: Sequence[str] = TENANT_FROM) -> None:
        self._tenant_from = tenant_from

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
        if cells.text(row, "ChargeClass") is not None:
            raise LeftOut(f"a correction of an earlier bill: {MEANT}")
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
        owner = cells.owner(row, self._tenant_from, {"Tags": tags}, _PLACES)
        provider = cells.text(row, "ServiceProviderName", "ProviderName", "PublisherName")
        facts: dict[str, Any] = {
            "source": SOURCE,
            "layer": "manual",
            "phase": "end",
            "kind": "model",
            "provider": canonical_provider(provider.lower()) if provider else None,
            "executed_model": model,
            "tier": cells.text(row, "x_ServiceTier") or cells.text(details, "x_ServiceTier"),
            "region": cells.text(row, "RegionId"),
            **_usage(row, component, flags),
            "provider_result": "ok",
            "started_at": started,
            "ended_at": cells.moment(row, "ChargePeriodEnd"),
            "host_cost": format_usd(spend) if spend else None,
            "tenant": owner.tenant,
            "tenant_source": "metadata" if owner.tenant else None,
            "labels": {"backfill": "focus", LABEL_FROM: ",".join(self._tenant_from)},
            "flags": tuple(flags),
        }
        facts["oid"] = cells.own_name(SOURCE, _digest(row, tags, component, facts))
        seen = clean.observation(facts)
        return Claim(seen, Said(spend=spend, place=owner.place, no_tenant=owner.why_none))


def _usage(row: Row, component: str, flags: list[str]) -> dict[str, Any]:
    """The quantity in tokens, whatever number of them the bill takes for one."""
    quantity, unit = cells.text(row, "ConsumedQuantity"), cells.text(row, "ConsumedUnit")
    if quantity is None:
        return {"usage_source": "missing"}
    try:
        whole, meant = counted(quantity, unit or "", "")
    except InvoiceError:
        whole, meant = None, None
    if meant not in (None, "tokens") and (component not in _COUNTED or not meant.isalpha()):
        flags.append(f"unit:{meant}")  # how many tokens one of them is, nobody knows
        return {"usage_source": "missing"}
    # What is no whole number stays as it is, for `clean` to refuse.
    return {"usage": {component: quantity if whole is None else whole}, "usage_source": "provider"}


def _digest(row: Row, tags: Row, component: str, facts: Row) -> str:
    """Of the dimensions, whatever the file's format: moments, not their texts; tags, not theirs."""
    said = {name: cells.text(row, name) for name in _DIMENSIONS}
    meant = ("provider", "executed_model", "tier", "region", "started_at", "ended_at", "tenant")
    said |= {name: facts[name] for name in meant}
    plain = json.dumps([said, component, tags], sort_keys=True, default=str)
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()
