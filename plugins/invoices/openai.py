"""OpenAI's costs API (money per line item) and usage API (requests and tokens per model).

Two documents a month: `openai` holds ``GET /v1/organization/costs``, `openai-usage` the pages of
``GET /v1/organization/usage/completions`` and ``/embeddings``; an admin key is needed. Amounts are
JSON numbers of dollars, read as written. The input tokens of the usage API include those from the
cache; here every class is apart. Requests stand once a result, on a line of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, Final, cast

from costspan.core.hooks import hookimpl
from costspan.core.invoices.document import (
    QUANTITY_MAX,
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
from costspan.core.prices.names import canonical_tier
from costspan.plugins.invoices.fetch import Api, Query
from costspan.plugins.invoices.items import openai_item
from costspan.plugins.invoices.pages import Result, claims, groups, month_span, text

PROVIDER: Final = "openai"
KEY_ENV: Final = "OPENAI_ADMIN_KEY"
ROOT: Final = "https://api.openai.com"

_COSTS: Final = "organization.costs.result"
_USAGE: Final = "organization.usage."
_USAGE_KINDS: Final = {
    "completions": ["project_id", "model", "batch", "service_tier"],
    "embeddings": ["project_id", "model"],
}
_PER_UNIT: Final = {"tokens": 1, "1000_tokens": 1000}
_MEASURES: Final = ("amount", "quantity", "quantity_unit", "num_model_requests")


@hookimpl
def import_invoice(order: Order) -> list[Document] | None:
    """The API if the place is `openai`; a file if it holds pages of it."""
    if order.raw is None:
        return _fetched(order) if order.place == PROVIDER else None
    if claims(order, PROVIDER, _COSTS.encode()):
        if _USAGE.encode() in order.raw:
            raise InvoiceError("costs and usage in one file: import them as two")
        return [_document(order, order.raw, "openai")]
    if claims(order, PROVIDER, _USAGE.encode()):
        return [_document(order, order.raw, "openai-usage")]
    return None


def _fetched(order: Order) -> list[Document]:
    start, end = month_span(order)
    query: Query = {
        "start_time": int(start.timestamp()),
        "end_time": int(end.timestamp()),
        "bucket_width": "1d",
    }
    api = Api(order.base_url or ROOT, order.key_env or KEY_ENV, "Authorization", "Bearer ", {})
    costs: list[bytes] = []
    usage: list[bytes] = []
    try:
        by: Query = {"limit": 180, "group_by": ["project_id", "line_item"]}
        for body in api.pages("/v1/organization/costs", {**query, **by}):
            costs.append(body)
            order.tell(len(costs))
        for kind, group_by in _USAGE_KINDS.items():
            by = {"limit": 31, "group_by": group_by}
            for body in api.pages(f"/v1/organization/usage/{kind}", {**query, **by}):
                usage.append(body)
                order.tell(len(costs) + len(usage))
    finally:
        api.close()
    return [
        _document(order, b"\n".join(costs), "openai"),
        _document(order, b"\n".join(usage), "openai-usage"),
    ]


def _document(order: Order, raw: bytes, source: str) -> Document:
    def lines(notes: Notes) -> Iterator[Billed]:
        for result in groups(raw, _is_term):
            kind = result.fields.get("object")
            if source == "openai" and kind == _COSTS:
                yield _cost(order, result, notes)
            elif source == "openai-usage" and isinstance(kind, str) and kind.startswith(_USAGE):
                yield from _usage(order, result, notes)
            else:
                raise InvoiceError(f"{result.where} is a {str(kind)[:80]!r}, not of this document")

    return Document(
        source=source,
        provider=PROVIDER,
        account=order.account,
        raw=raw,
        lines=lines,
        period=order.period,
    )


def _is_term(name: str, value: object) -> bool:
    return name not in _MEASURES and not name.endswith("_tokens")


def _line(order: Order, result: Result, **facts: Any) -> Billed:
    line = InvoiceLine(
        invoice="",
        number=0,
        provider=PROVIDER,
        account=order.account,
        project=text(result.fields, "project_id", result.where),
        day=result.day,
        is_provisional=order.is_provisional(result.day),
        **facts,
    )
    return Billed(result.day[:7], line)


def _cost(order: Order, result: Result, notes: Notes) -> Billed:
    given = result.fields.get("amount")
    if not isinstance(given, dict):
        raise InvoiceError(f"{result.where} has no amount")
    money = cast(dict[str, Any], given)
    # Their amounts are floats, written with as many digits as a float has: noise, below a pico.
    amount = amount_of(
        _number(money.get("value"), result.where), result.where, notes, rounding=True
    )
    words = text(result.fields, "line_item", result.where) or ""
    item = openai_item(words)
    category = category_of(words, amount)
    if words and not item.is_known and category == "usage":
        notes.note("line items that are not in the table, kept without model", f"{words!r}")
    quantity, unit = _quantity(result)
    return _line(
        order,
        result,
        model=item.model,
        component=item.component,
        tier=item.tier,
        category=category,
        requests=None,
        quantity=quantity,
        unit=unit,
        amount=amount,
        currency=currency_of(money.get("currency"), result.where),
        description=words,
    )


def _number(value: object, where: str) -> object:
    """A JSON number (which is never a float here), or a text that writes one."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise InvoiceError(
            f"{where}: the amount's value is {str(value)[:40]!r}, which is no number"
        )
    return value


def _quantity(result: Result) -> tuple[int | None, str | None]:
    """The whole number of units that were billed; what is no whole number is left to the bytes."""
    unit, value = text(result.fields, "quantity_unit", result.where), result.fields.get("quantity")
    if value is None:
        return None, unit
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or value < 0:
        raise InvoiceError(f"{result.where}: the quantity is {str(value)[:40]!r}")
    exact = value * _PER_UNIT.get(unit or "", 1)
    if exact > QUANTITY_MAX:
        raise InvoiceError(f"{result.where}: the quantity is {str(value)[:40]}")
    whole = int(exact) if exact == int(exact) else None
    return whole, "tokens" if unit in _PER_UNIT else unit


def _usage(order: Order, result: Result, notes: Notes) -> Iterator[Billed]:
    where, fields = result.where, result.fields
    model = text(fields, "model", where)
    tier = canonical_tier(text(fields, "service_tier", where))
    told: dict[str, Any] = {
        "model": model,
        "tier": tier or ("batch" if fields.get("batch") is True else None),
        "category": "usage",
        "amount": 0,
        "currency": "",
        "description": f"{str(fields['object']).split('.')[2]} of {model or 'all models'}",
    }
    requests = quantity_of(fields.get("num_model_requests"), f"{where}: num_model_requests")
    yield _line(order, result, component="", requests=requests, quantity=None, unit=None, **told)
    told |= {"requests": None, "unit": "tokens"}
    for component, tokens in _disjoint(fields, where, notes).items():
        if tokens:
            yield _line(order, result, component=component, quantity=tokens, **told)


def _disjoint(fields: Mapping[str, Any], where: str, notes: Notes) -> dict[str, int]:
    """Tokens by class, each in one class.

    `input_tokens` are the uncached ones, those read from the cache and those written to it. Audio
    and image tokens are among the uncached ones where the text tokens are told apart too; in the
    API's older shape they stood beside them.
    """

    def count(name: str) -> int:
        value = fields.get(name)
        return 0 if value is None else quantity_of(value, f"{where}: {name}")

    cached, written = count("input_cached_tokens"), count("input_cache_write_tokens")
    fresh = quantity_of(fields.get("input_tokens"), f"{where}: input_tokens") - cached - written
    if fresh < 0:
        raise InvoiceError(f"{where}: fewer input tokens than those from and to the cache")
    told = fields.get("input_uncached_tokens")
    if told is not None and told != fresh:
        raise InvoiceError(
            f"{where}: input_tokens are not the sum of uncached ({told}), cached ({cached}) and"
            f" cache-write ({written}) tokens"
        )
    into = {"audio_input": count("input_audio_tokens"), "image_input": count("input_image_tokens")}
    out = {
        "audio_output": count("output_audio_tokens"),
        "image_output": count("output_image_tokens"),
    }
    output = count("output_tokens")
    if "input_text_tokens" in fields or told is not None:
        fresh, into = _within(fresh, into, where, notes)
        output, out = _within(output, out, where, notes)
    return {
        "input": fresh,
        "cache_read": cached,
        "cache_write_5m": written,
        "output": output,
        **into,
        **out,
    }


def _within(
    whole: int, parts: dict[str, int], where: str, notes: Notes
) -> tuple[int, dict[str, int]]:
    """What is left of a sum, and its parts; parts that exceed it (cached ones) stay in it."""
    rest = whole - sum(parts.values())
    if rest < 0:
        notes.note("audio and image tokens that exceed the uncached ones, not told apart", where)
        return whole, {}
    return rest, parts
