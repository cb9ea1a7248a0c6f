"""The same bill in the shape of Anthropic's admin API, for what was asked on Anthropic's wire.

Shapes: ``GET /v1/organizations/cost_report`` (buckets of a UTC day; ``amount`` is a decimal text
in CENTS) and ``GET /v1/organizations/usage_report/messages`` (buckets of a minute, an hour or a
day). A workspace is what the directive names as the project; null is the default one.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple

from costspan.conformance.provider.call import MESSAGES
from costspan.conformance.provider.invoice import BadQuery, Query
from costspan.conformance.provider.prices import BASE_TIERS
from costspan.conformance.provider.truth import Row

_WIDTHS: Final = {
    "1m": timedelta(minutes=1),
    "1h": timedelta(hours=1),
    "1d": timedelta(days=1),
}
_LIMITS: Final = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}  # default, most
_TOKEN_TYPES: Final = {
    "input": "uncached_input_tokens",
    "cache_read": "cache_read_input_tokens",
    "cache_write_5m": "cache_creation.ephemeral_5m_input_tokens",
    "cache_write_1h": "cache_creation.ephemeral_1h_input_tokens",
    "output": "output_tokens",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Results = Callable[[list[Row]], list[dict[str, Any]]]


class _Charge(NamedTuple):
    """What a cost result is grouped by; None where it is not."""

    workspace_id: str | None
    model: str | None
    component: str | None
    service_tier: str | None


def cost_report(rows: Iterable[Row], query: Query, now: int) -> dict[str, Any]:
    """One page of the cost report; ``now`` in Unix seconds ends an open range.

    Raises:
        BadQuery: As Anthropic's 400.
    """
    groups = _groups(query, {"workspace_id", "description"})
    if (width := _one(query, "bucket_width") or "1d") != "1d":
        raise BadQuery(f"bucket_width must be 1d, not {width}")

    def results(billed: list[Row]) -> list[dict[str, Any]]:
        sums: dict[_Charge, int] = {}
        for row in billed:
            for component, pico in row.component_pico.items():
                charge = _charge(row, component, groups)
                sums[charge] = sums.get(charge, 0) + pico
        return [_cost_result(charge, sums[charge]) for charge in sorted(sums, key=repr)]

    return _page(rows, query, now, "1d", results)


def usage_report(rows: Iterable[Row], query: Query, now: int) -> dict[str, Any]:
    """One page of the usage report of messages.

    Raises:
        BadQuery: As Anthropic's 400.
    """
    groups = _groups(query, {"workspace_id", "model", "service_tier", "api_key_id"})
    width = _one(query, "bucket_width") or "1d"
    if width not in _WIDTHS:
        raise BadQuery(f"bucket_width must be 1m, 1h or 1d, not {width}")

    def results(billed: list[Row]) -> list[dict[str, Any]]:
        grouped: dict[tuple[str | None, ...], list[Row]] = {}
        for row in billed:
            key = tuple(_group(row, name) for name in sorted(groups))
            grouped.setdefault(key, []).append(row)
        return [
            _usage_result(grouped[key]) | dict(zip(sorted(groups), key, strict=True))
            for key in sorted(grouped, key=repr)
        ]

    return _page(rows, query, now, width, results)


def _charge(row: Row, component: str, groups: set[str]) -> _Charge:
    workspace = row.project if "workspace_id" in groups else None
    if "description" not in groups:
        return _Charge(workspace, None, None, None)
    return _Charge(workspace, row.executed_model, component, _tier(row))


def _cost_result(charge: _Charge, pico: int) -> dict[str, Any]:
    is_search = charge.component == "web_searches"
    token_type = _TOKEN_TYPES.get(charge.component or "")
    words = (token_type or "web searches").replace("_", " ").replace(".", " ")
    return {
        "amount": f"{Decimal(pico).scaleb(-10):f}",
        "currency": "USD",
        "cost_type": None if charge.component is None else "web_search" if is_search else "tokens",
        "context_window": None if charge.component is None or is_search else "0-200k",
        "description": None if charge.component is None else f"{charge.model} usage: {words}",
        "model": charge.model,
        "service_tier": charge.service_tier,
        "token_type": token_type,
        "workspace_id": charge.workspace_id,
    }


def _usage_result(rows: Sequence[Row]) -> dict[str, Any]:
    def total(component: str) -> int:
        return sum(row.usage.get(component, 0) for row in rows)

    return {
        "uncached_input_tokens": total("input"),
        "cache_read_input_tokens": total("cache_read"),
        "cache_creation": {
            "ephemeral_5m_input_tokens": total("cache_write_5m"),
            "ephemeral_1h_input_tokens": total("cache_write_1h"),
        },
        "output_tokens": total("output"),
        "server_tool_use": {"web_search_requests": total("web_searches")},
        **dict.fromkeys(("api_key_id", "workspace_id", "model", "service_tier"), None),
    }


def _group(row: Row, name: str) -> str | None:
    fields = {"workspace_id": row.project, "api_key_id": row.api_key_id}
    return {**fields, "model": row.executed_model, "service_tier": _tier(row)}[name]


def _tier(row: Row) -> str:
    return "standard" if row.tier is None or row.tier in BASE_TIERS else row.tier


def _page(
    rows: Iterable[Row], query: Query, now: int, width: str, results: Results
) -> dict[str, Any]:
    """Buckets from the one that holds starting_at up to ending_at, ``limit`` a page."""
    start, end = _moment(query, "starting_at"), _moment(query, "ending_at")
    if start is None:
        raise BadQuery("starting_at is required")
    end = end or _EPOCH + timedelta(seconds=now + 1)
    step = _WIDTHS[width]
    first = start - (start - _EPOCH) % step
    skipped = _number(query, "page", "page_", 0, 10**9)
    limit = _number(query, "limit", "", _LIMITS[width][0], _LIMITS[width][1])
    buckets = -(-max(end - first, timedelta()) // step)
    of_messages = [row for row in rows if row.billed and row.endpoint == MESSAGES]
    data: list[dict[str, Any]] = []
    for at in range(skipped, min(buckets, skipped + limit)):
        opens = first + at * step
        billed = [row for row in of_messages if opens <= _arrived(row) < opens + step]
        span = {"starting_at": _written(opens), "ending_at": _written(opens + step)}
        data.append({**span, "results": results(billed)})
    has_more = buckets > skipped + limit
    return {
        "data": data,
        "has_more": has_more,
        "next_page": f"page_{skipped + limit}" if has_more else None,
    }


def _arrived(row: Row) -> datetime:
    return _EPOCH + timedelta(microseconds=row.received_ns // 1000)


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(query: Query, name: str) -> datetime | None:
    text = _one(query, name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadQuery(f"{name} must be RFC 3339") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _groups(query: Query, allowed: set[str]) -> set[str]:
    groups = {*query.get("group_by[]", ()), *query.get("group_by", ())}
    if not groups <= allowed:
        raise BadQuery(f"group_by[] must be among {', '.join(sorted(allowed))}")
    return groups


def _one(query: Query, name: str) -> str | None:
    return query[name][-1] if query.get(name) else None


def _number(query: Query, name: str, prefix: str, default: int, most: int) -> int:
    text = _one(query, name)
    if text is None:
        return default
    digits = text.removeprefix(prefix)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10) or int(digits) > most:
        raise BadQuery(f"bad {name}")
    if name == "limit" and int(digits) < 1:
        raise BadQuery(f"limit must be from 1 to {most}")
    return int(digits)
