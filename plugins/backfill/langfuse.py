"""Langfuse's export of observations: CSV, JSON or NDJSON, in camel case or snake case.

Its usage is disjoint by rule; where its own total says that cached tokens are inside the input
after all, they are taken out. A generation is named `langfuse:ID`, and, as its LangChain handler
gave generations the ids of runs, `langchain:ID` where the id is a UUID: a run that was recorded
live is met there. Nothing else in an export leads to a live record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from costspan.core import clean
from costspan.core.backfill.claim import Claim, LeftOut, Rejected, Said
from costspan.core.money import format_usd
from costspan.plugins.backfill import cells
from costspan.plugins.backfill.cells import Row

SOURCE: Final = "backfill:langfuse"
TENANT_FROM: Final = ("metadata.tenant", "metadata.tenant_id", "user_id")
_PLACES: Final = ("user_id", "session_id", "environment", "project_id")
KNOWN_FROM: Final = (*_PLACES, "metadata.")

MEANT: Final = (
    "observations are read (not traces): the UI's export of them, GET /api/public/observations,"
    " or the export to a bucket"
)
_KINDS: Final = {"GENERATION": "model", "EMBEDDING": "embedding"}
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_COMPONENTS: Final = {
    **dict.fromkeys(("input", "prompt_tokens", "input_tokens", "input_usage"), "input"),
    **dict.fromkeys(("output", "completion_tokens", "output_tokens", "output_usage"), "output"),
    **dict.fromkeys(("output_reasoning_tokens", "output_reasoning", "reasoning"), "output"),
    **dict.fromkeys(("reasoning_tokens", "output_text_tokens"), "output"),
    **dict.fromkeys(("output_accepted_prediction_tokens", "completionTokens"), "output"),
    "promptTokens": "input",
    **dict.fromkeys(("output_rejected_prediction_tokens",), "output"),
    **dict.fromkeys(("input_cached_tokens", "cache_read_input_tokens"), "cache_read"),
    **dict.fromkeys(("input_cache_read", "cached_tokens", "cache_read"), "cache_read"),
    **dict.fromkeys(("cache_creation_input_tokens", "input_cache_creation"), "cache_write_5m"),
    **dict.fromkeys(("input_cache_creation_5m", "cache_write_5m"), "cache_write_5m"),
    **dict.fromkeys(("input_cache_creation_1h", "cache_write_1h"), "cache_write_1h"),
    **dict.fromkeys(("input_audio_tokens", "input_audio"), "audio_input"),
    **dict.fromkeys(("output_audio_tokens", "output_audio"), "audio_output"),
}
_TOTALS: Final = frozenset({"total", "total_tokens", "totalTokens", "total_usage"})
_FLAT: Final = (
    *("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"),
    *("input_usage", "output_usage", "total_usage"),
)
"""Columns of the UI's exports, of its versions."""
_INSIDE: Final = ("cache_read", "cache_write_5m", "cache_write_1h")


def recognises(row: Row) -> bool:
    """Whether a row can be an observation of Langfuse at all."""
    names = {_CAMEL.sub("_", str(name)).lower() for name in row}
    is_named = not names.isdisjoint(("id", "observation_id"))
    return is_named and "start_time" in names and "request_id" not in names


def trust_of(place: str) -> str:
    """Who says what stands in a place."""
    return "its project" if place in ("environment", "project_id") else "the application said so"


class Converter:
    """Observations of Langfuse to claims.

    Args:
        tenant_from: Where the tenant stands, best first.
    """

    def __init__(self, tenant_from: Sequence[str] = TENANT_FROM) -> None:
        self._tenant_from = tenant_from

    def __call__(self, row: Row) -> Claim:
        """The claim of one observation.

        Raises:
            Rejected: for one without id or time.
            LeftOut: for one that is no generation.
        """
        row = {_CAMEL.sub("_", str(name)).lower(): value for name, value in row.items()}
        flags = ["backfill"]
        named = cells.needed(cells.text(row, "id", "observation_id"), "id")
        kind = (cells.text(row, "type", "observation_type") or "GENERATION").upper()
        if kind not in _KINDS:
            charged = cells.money(row.get("total_cost"), [], "total_cost")
            also = ", although it has an amount" if charged else ""
            raise LeftOut(f"{kind} is no generation{also}")
        started = cells.moment(row, "start_time")
        if started is None:
            raise Rejected("startTime is no moment: it has no month")
        metadata = cells.mapping(row, "metadata", flags)
        costs = cells.mapping(row, "cost_details", flags)
        said = costs.get("total")
        said = said if said is not None else row.get("calculated_total_cost", row.get("total_cost"))
        spend = cells.money(said, flags, "total_cost")
        owner = cells.owner(row, self._tenant_from, {"metadata": metadata}, _PLACES)
        session = cells.text(row, "session_id")
        failed = (cells.text(row, "level") or "").upper() == "ERROR"
        model = cells.text(row, "model", "provided_model_name")
        runs = (f"langchain:{named}",) if _UUID.fullmatch(named) else ()
        seen = clean.observation(
            {
                "oid": cells.own_name(SOURCE, named),
                "operation_ids": (f"langfuse:{named}", *runs),
                "source": SOURCE,
                "layer": "framework",
                "phase": "end",
                "kind": _KINDS[kind],
                "name": cells.text(row, "name"),
                "requested_model": model,
                "executed_model": model,
                "trace_id": cells.text(row, "trace_id"),
                "trace_origin": "caller",
                "started_at": started,
                "ended_at": cells.moment(row, "end_time"),
                "provider_result": "failed" if failed else "ok",
                "host_cost": format_usd(spend) if spend else None,
                "tenant": owner.tenant,
                "tenant_source": "metadata" if owner.tenant else None,
                "user": cells.text(row, "user_id"),
                "session": session,
                "session_origin": "caller" if session else None,
                "labels": {"backfill": "langfuse"},
                **_usage(row, flags),
                "flags": tuple(flags),
            }
        )
        streamed = cells.moment(row, "completion_start_time") is not None
        said = Said(spend=spend, place=owner.place, no_tenant=owner.why_none, is_streamed=streamed)
        return Claim(seen, said)


def _usage(row: Row, flags: list[str]) -> dict[str, Any]:
    reported: Row = {}
    for name in ("usage_details", "provided_usage_details", "usage"):
        reported = reported or cells.mapping(row, name, flags)
    if not reported:
        reported = {name: row[name] for name in _FLAT if cells.text(row, name)}
    counts = {str(name): cells.count(value) for name, value in reported.items()}
    unit = counts.pop("unit", None)
    counts = {name: value for name, value in counts.items() if value is not None}
    if unit not in (None, "TOKENS") and counts:
        flags.append(f"unit:{unit}")
    usage = cells.components(lambda said: _disjoint(said, flags), counts)
    if usage is None:
        return {"usage_source": "missing", "raw_usage": counts or None}
    return {"usage": usage, "usage_source": "provider", "raw_usage": counts}


def _disjoint(counts: Mapping[str, Any], flags: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    total: Any = None
    for name, value in counts.items():
        if name in _TOTALS:
            total = value
            continue
        component = _COMPONENTS.get(name, name)
        if value or component in ("input", "output"):
            if value < 0:  # added up, a negative count could hide in a sum
                raise ValueError(name)
            found[component] = found.get(component, 0) + value
    inside = sum(found.get(name, 0) for name in _INSIDE)
    if total is not None and found and sum(found.values()) != total:
        if inside and sum(found.values()) - inside == total and found.get("input", 0) >= inside:
            found["input"] -= inside
            flags.append("cached_inside_input")
        else:
            flags.append("usage_total_differs")
    if total and not found:
        flags.append("usage_total_only")
        return {"tokens": total}  # of what, nobody can say: no price has such a component
    return found
