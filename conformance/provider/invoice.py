"""The provider's own bill, in the shape of OpenAI's costs and usage APIs.

Shapes: ``GET /v1/organization/costs`` (buckets of a UTC day; ``amount.value`` is a JSON number,
here with all twelve decimals, so read it with ``json.loads(…, parse_float=Decimal)``) and
``GET /v1/organization/usage/completions`` (buckets of a minute, an hour or a day). Rows are
billed by the time the request arrived. A line item reads ``gpt-4o-2024-08-06, cached input``, and
``gpt-4o-2024-08-06, batch cached input`` where another tier than the default served. What was asked
on Anthropic's wire is billed by ``invoice_anthropic`` alone.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final, cast

from costspan.conformance.provider.call import EMBEDDINGS, MESSAGES
from costspan.conformance.provider.prices import BASE_TIERS
from costspan.conformance.provider.truth import Row

_NS: Final = 10**9
_DAY_SECONDS: Final = 86_400
_WIDTHS: Final = {"1m": 60, "1h": 3600, "1d": _DAY_SECONDS}
_LIMITS: Final = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}  # default, most
_COST_LIMITS: Final = (7, 180)

_CACHE_WRITES: Final = ("cache_write_5m", "cache_write_1h")
_SEARCHES: Final = "web searches"
_ITEM_NAMES: Final = {
    "cache_read": "cached input",
    "cache_write_5m": "cache write input",
    "cache_write_1h": "cache write 1h input",
    "web_searches": _SEARCHES,
    "audio_input": "audio input",
    "audio_output": "audio output",
}

Query = Mapping[str, Sequence[str]]


class BadQuery(ValueError):
    """A parameter of the costs or usage API is missing or out of range."""


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """One line of the bill: a model's component on one UTC day, for a project and key.

    ``day`` is its start in Unix seconds, ``quantity`` counts tokens (of web searches: requests),
    ``amount_pico`` pico-USD.
    """

    day: int
    line_item: str | None
    project_id: str | None
    api_key_id: str | None
    quantity: int
    amount_pico: int


def invoice_lines(rows: Iterable[Row]) -> tuple[InvoiceLine, ...]:
    """The whole bill, both wires'; its amounts sum to the cost of the rows, to the pico-dollar."""
    return _grouped(line for row in rows if row.billed for line in _row_lines(row))


def costs_page(rows: Sequence[Row], query: Query, now: int) -> dict[str, Any]:
    """One page of the costs API; ``now`` in Unix seconds ends an open range.

    Raises:
        BadQuery: As OpenAI's 400.
    """
    groups = _groups(query, {"project_id", "line_item", "api_key_id"})
    if (width := _one(query, "bucket_width") or "1d") != "1d":
        raise BadQuery(f"bucket_width must be 1d, not {width}")
    lines = [
        replace(
            line,
            line_item=line.line_item if "line_item" in groups else None,
            project_id=line.project_id if "project_id" in groups else None,
            api_key_id=line.api_key_id if "api_key_id" in groups else None,
        )
        for line in invoice_lines(_wanted(rows, query))
    ]

    def results(start: int, end: int) -> list[dict[str, Any]]:
        del end  # A bucket is the very day of the line.
        day_lines = _grouped(line for line in lines if line.day == start)
        return [_cost_result(line, "line_item" in groups) for line in day_lines]

    return _page(query, now, _DAY_SECONDS, _COST_LIMITS, results)


def usage_page(rows: Sequence[Row], query: Query, now: int, kind: str) -> dict[str, Any]:
    """One page of the usage API; ``kind`` is ``completions`` or ``embeddings``.

    Raises:
        BadQuery: As OpenAI's 400.
    """
    allowed = {"project_id", "user_id", "api_key_id", "model", "batch", "service_tier"}
    groups = _groups(query, allowed)
    width = _one(query, "bucket_width") or "1d"
    if width not in _WIDTHS:
        raise BadQuery(f"bucket_width must be 1m, 1h or 1d, not {width}")
    of_kind = [
        row
        for row in _wanted(rows, query)
        if row.billed and (row.endpoint == EMBEDDINGS) == (kind == "embeddings")
    ]

    def results(start: int, end: int) -> list[dict[str, Any]]:
        grouped: dict[tuple[Any, ...], list[Row]] = {}
        for row in of_kind:
            if start <= row.received_ns // _NS < end:
                key = tuple(_usage_group(row, name) for name in sorted(groups))
                grouped.setdefault(key, []).append(row)
        return [
            _usage_result(members, dict(zip(sorted(groups), key, strict=True)), kind)
            for key, members in sorted(grouped.items(), key=lambda item: repr(item[0]))
        ]

    return _page(query, now, _WIDTHS[width], _LIMITS[width], results)


def render(value: object) -> str:
    """JSON text in which a Decimal is a number with all its digits: json itself writes floats."""
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, dict):
        items = cast(dict[str, object], value).items()
        return "{" + ",".join(f"{json.dumps(name)}:{render(item)}" for name, item in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(render(item) for item in cast(list[object], value)) + "]"
    return json.dumps(value)


def _row_lines(row: Row) -> Iterable[InvoiceLine]:
    day = row.received_ns // _NS // _DAY_SECONDS * _DAY_SECONDS
    tier = "" if row.tier is None or row.tier in BASE_TIERS else f"{row.tier} "
    for component, amount in row.component_pico.items():
        item = f"{row.executed_model}, {tier}{_ITEM_NAMES.get(component, component)}"
        quantity = row.usage[component]
        yield InvoiceLine(day, item, row.project, row.api_key_id, quantity, amount)


def _grouped(lines: Iterable[InvoiceLine]) -> tuple[InvoiceLine, ...]:
    """Lines of the same day, item, project and key added up, in that order."""
    sums: dict[InvoiceLine, tuple[int, int]] = {}
    for line in lines:
        key = replace(line, quantity=0, amount_pico=0)
        quantity, amount = sums.get(key, (0, 0))
        sums[key] = quantity + line.quantity, amount + line.amount_pico
    added = (
        replace(key, quantity=quantity, amount_pico=amount)
        for key, (quantity, amount) in sums.items()
    )
    return tuple(sorted(added, key=_line_order))


def _line_order(line: InvoiceLine) -> tuple[int, str, str, str]:
    return line.day, line.line_item or "", line.project_id or "", line.api_key_id or ""


def _cost_result(line: InvoiceLine, with_quantity: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "object": "organization.costs.result",
        "amount": {"value": Decimal(line.amount_pico).scaleb(-12), "currency": "usd"},
        "line_item": line.line_item,
        "project_id": line.project_id,
        "api_key_id": line.api_key_id,
    }
    if with_quantity:
        unit = "requests" if (line.line_item or "").endswith(_SEARCHES) else "tokens"
        result |= {"quantity": line.quantity, "quantity_unit": unit}
    return result


def _usage_group(row: Row, name: str) -> str | bool | None:
    if name == "batch":
        return row.tier == "batch"
    fields = {"model": row.executed_model, "user_id": row.user, "service_tier": row.tier}
    return {**fields, "project_id": row.project, "api_key_id": row.api_key_id}[name]


def _usage_result(rows: Sequence[Row], group: Mapping[str, Any], kind: str) -> dict[str, Any]:
    def total(*components: str) -> int:
        return sum(row.usage.get(component, 0) for row in rows for component in components)

    result: dict[str, Any] = {
        "object": f"organization.usage.{kind}.result",
        "input_tokens": total("input", "cache_read", *_CACHE_WRITES, "audio_input"),
        "num_model_requests": len(rows),
        **dict.fromkeys(("project_id", "user_id", "api_key_id", "model"), None),
    }
    if kind == "completions":
        result |= {
            "output_tokens": total("output", "audio_output"),
            "input_cached_tokens": total("cache_read"),
            "input_cache_write_tokens": total(*_CACHE_WRITES),
            "input_uncached_tokens": total("input", "audio_input"),
            "input_text_tokens": total("input"),
            "output_text_tokens": total("output"),
            "input_audio_tokens": total("audio_input"),
            "output_audio_tokens": total("audio_output"),
            "batch": None,
            "service_tier": None,
        }
    return result | dict(group)


def _page(
    query: Query,
    now: int,
    width: int,
    limits: tuple[int, int],
    results: Callable[[int, int], list[dict[str, Any]]],
) -> dict[str, Any]:
    """Buckets from the one that holds start_time up to end_time, ``limit`` a page."""
    start_time = _number(query, "start_time")
    if start_time is None:
        raise BadQuery("start_time is required")
    limit = _number(query, "limit")
    limit = limits[0] if limit is None else limit
    if not 1 <= limit <= limits[1]:
        raise BadQuery(f"limit must be from 1 to {limits[1]}")
    given_end = _number(query, "end_time")
    end_time = now + 1 if given_end is None else given_end
    page = (_one(query, "page") or "page_0").removeprefix("page_")
    if not (page.isascii() and page.isdigit()):
        raise BadQuery("page is not a cursor of this API")
    first = start_time // width * width + int(page) * width
    buckets = range(first, end_time, width)
    data = [
        {
            "object": "bucket",
            "start_time": start,
            "end_time": start + width,
            "results": results(start, start + width),
        }
        for start in buckets[:limit]
    ]
    has_more = len(buckets) > limit
    next_page = f"page_{int(page) + limit}" if has_more else None
    return {"object": "page", "data": data, "has_more": has_more, "next_page": next_page}


def _wanted(rows: Iterable[Row], query: Query) -> list[Row]:
    projects, keys = _many(query, "project_ids"), _many(query, "api_key_ids")
    return [
        row
        for row in rows
        if row.endpoint != MESSAGES
        and (not projects or row.project in projects)
        and (not keys or row.api_key_id in keys)
    ]


def _groups(query: Query, allowed: set[str]) -> set[str]:
    groups = set(_many(query, "group_by"))
    if not groups <= allowed:
        raise BadQuery(f"group_by must be among {', '.join(sorted(allowed))}")
    return groups


def _many(query: Query, name: str) -> list[str]:
    """A list parameter, written ``name=a&name=b``, ``name[]=a`` or ``name=a,b``."""
    given = [*query.get(name, ()), *query.get(f"{name}[]", ())]
    return [item for text in given for item in text.split(",") if item]


def _one(query: Query, name: str) -> str | None:
    return query[name][-1] if query.get(name) else None


def _number(query: Query, name: str) -> int | None:
    text = _one(query, name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadQuery(f"{name} must be in Unix seconds" if "time" in name else f"bad {name}")
    return int(text)
