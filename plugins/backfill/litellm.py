"""LiteLLM's `LiteLLM_SpendLogs`: a row is what the proxy wrote of one call.

Identity. A row names the call id of LiteLLM (`litellm:ID`), as the live callback does: whichever
comes first, a call that both saw is one event. Old rows have no call id; their request id is the
provider's response id, by which they meet. A row mints no attempt: it could only double one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from costspan.adapter import usage
from costspan.core import clean
from costspan.core.backfill.claim import Claim, LeftOut, Rejected
from costspan.core.money import format_usd
from costspan.plugins.backfill import cells
from costspan.plugins.backfill.cells import Row

SOURCE: Final = "backfill:litellm"
TENANT_FROM: Final = ("team_id", "end_user")
KNOWN_FROM: Final = (
    *("team_id", "end_user", "api_key", "user", "organization_id", "agent_id", "session_id"),
    "metadata.",
)
COLUMNS: Final = (
    *("request_id", "call_type", "api_key", "spend", "total_tokens", "prompt_tokens"),
    *("completion_tokens", "startTime", "endTime", "completionStartTime", "model", "model_id"),
    *("model_group", "custom_llm_provider", "api_base", "user", "metadata", "cache_hit"),
    *("request_tags", "team_id", "organization_id", "end_user", "session_id", "status"),
    *("agent_id", "litellm_call_id"),
)
"""What is read of the table: never the messages, the responses or the requests."""

_DISCONNECTED: Final = "Client disconnected the request"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BATCH_COST: Final = "_batch_cost"
_KINDS: Final = {
    **dict.fromkeys(("completion", "text_completion", "responses", "anthropic_messages"), "model"),
    **dict.fromkeys(("generate_content", "generate_content_stream"), "model"),
    **dict.fromkeys(("_arealtime", "_aresponses_websocket", "pass_through_endpoint"), "model"),
    **dict.fromkeys(("create_batch", "retrieve_batch"), "model"),
    "embedding": "embedding",
    **dict.fromkeys(("image_generation", "image_edit", "image_variation", "ocr"), "image"),
    **dict.fromkeys(("create_video", "video_generation", "video_remix"), "image"),
    **dict.fromkeys(("transcription", "speech"), "audio"),
    "rerank": "rerank",
    "moderation": "guardrail",
}


class Converter:
    """Rows to claims.

    Args:
        tenant_from: Where the tenant stands, best first.
        by_row: Every row is a call of its own, whatever call id it names.
    """

    def __init__(self, tenant_from: Sequence[str] = TENANT_FROM, *, by_row: bool = False) -> None:
        self._tenant_from = tenant_from
        self._by_row = by_row

    def __call__(self, row: Row) -> Claim:
        """The claim of one row.

        Raises:
            Rejected: for a row without a request id or a time.
            LeftOut: for a row that is no call of a model and cost nothing.
        """
        flags = ["backfill"]
        metadata = cells.mapping(row, "metadata", flags)
        named = cells.needed(cells.text(row, "request_id"), "request_id")
        started, ended = cells.moment(row, "startTime"), cells.moment(row, "endTime")
        if started is None and ended is None:
            raise Rejected("neither startTime nor endTime is a moment: it has no month")
        if started is None:
            flags.append("invalid:startTime")
        if ended is not None and started is not None and ended < started:
            flags.append("ended_before_started")
        call_type = _call_name(cells.text(row, "call_type"))
        spend = cells.money(row.get("spend"), flags, "spend")
        kind = _KINDS.get(call_type)
        if kind is None and call_type and not spend and not cells.count(row.get("total_tokens")):
            raise LeftOut(f"{call_type} is no call of a model")
        if call_type == "retrieve_batch" and not spend and not cells.count(row.get("total_tokens")):
            raise LeftOut("a poll of an unfinished batch")
        provider = cells.text(row, "custom_llm_provider")
        is_hit = (cells.text(row, "cache_hit") or "").lower() == "true"
        streamed = _is_streamed(row)
        tenant, why = cells.owner(row, self._tenant_from, {"metadata": metadata})
        facts: dict[str, Any] = {
            "oid": f"{SOURCE}:{named}",
            "source": SOURCE,
            "layer": "gateway",
            "phase": "end",
            "kind": kind or "model",
            "provider": provider,
            "started_at": started,
            "ended_at": ended,
            "host_cost": format_usd(spend) if spend else None,
            "tenant": tenant,
            "tenant_source": "metadata" if tenant else None,
            "labels": _labels(row, metadata),
            **_identity(row, metadata, named, kind, provider, is_hit=is_hit, by_row=self._by_row),
            **_models(row, metadata, provider),
            **_people(row, metadata),
            **_result(row, metadata, flags),
        }
        if call_type in ("create_batch", "retrieve_batch"):
            facts.update(_batch(named, call_type))
        if is_hit:
            facts["cache"] = "exact"  # the tokens of the row are those of the fill
        else:
            facts.update(_usage(row, metadata, flags, failed=facts["provider_result"] == "failed",
                                streamed=streamed))  # fmt: skip
        facts["flags"] = tuple(flags)
        seen = clean.observation(facts)
        return Claim(seen, spend, _before_margin(metadata), why, streamed)


def _call_name(call_type: str | None) -> str:
    name = call_type or ""
    return name[1:] if name.startswith("a") and name not in _KINDS else name


def _identity(
    row: Row, metadata: Row, named: str, kind: str | None, provider: str | None,
    *, is_hit: bool, by_row: bool,
) -> dict[str, Any]:  # fmt: skip
    call = cells.text(row, "litellm_call_id") or cells.text(metadata, "litellm_call_id")
    if call is None and _UUID.fullmatch(named):
        call = named  # embeddings, images, failures: the row is named by the call
    found: dict[str, Any] = {}
    # A cache hit repeats the fill's id; only a model's reply has one of the provider's own.
    if kind == "model" and not is_hit and provider is not None and named != call:
        base = cells.base_url(cells.text(row, "api_base"))
        found["response_id"] = f"{provider}/{base}/{named}"
    if by_row:
        return {"operation_ids": (f"litellm-row:{named}",)}
    if call is not None:
        found["operation_ids"] = (f"litellm:{call}",)
    elif "response_id" not in found:
        found["operation_ids"] = (f"litellm-row:{named}",)
    return found


def _batch(named: str, call_type: str) -> dict[str, Any]:
    """A batch is one operation, however often it is polled; its creation used nothing."""
    return {
        "operation_ids": (f"batch:{named.removesuffix(_BATCH_COST)}",),
        "response_id": None,
        "cause": "batch",
        "cause_source": "structure",
        "initiator": "user",
        "tier": "batch",
        "phase": "start" if call_type == "create_batch" else "end",
    }


def _models(row: Row, metadata: Row, provider: str | None) -> dict[str, Any]:
    asked = cells.text(metadata, "original_model_group") or cells.text(row, "model_group")
    priced = cells.text(cells.inner(metadata, "model_map_information"), "model_map_key")
    ran = priced or cells.text(row, "model")
    breakdown = cells.inner(metadata, "cost_breakdown")
    tried = [cells.count(metadata.get(f"attempted_{what}")) for what in ("retries", "fallbacks")]
    numbers = [number for number in tried if type(number) is int and number > 0]
    return {
        "executed_model": cells.without_provider(ran, provider),
        "requested_model": cells.without_provider(asked, provider),
        "deployment": cells.text(row, "model_id"),
        "tier": cells.text(breakdown, "service_tier")
        or cells.text(cells.inner(metadata, "usage_object"), "service_tier"),
        "attempt": 1 + sum(numbers),
        "retry_reason": "provider" if numbers else None,
    }


def _people(row: Row, metadata: Row) -> dict[str, Any]:
    session = cells.text(row, "session_id")
    claims = {
        "end_user": cells.text(row, "end_user"),
        "tags": cells.text(row, "request_tags"),
        "spend_logs_metadata": cells.inner(metadata, "spend_logs_metadata") or None,
    }
    claims = {name: said for name, said in claims.items() if said and said != "[]"}
    return {
        "user": cells.text(row, "user"),
        "session": session,
        "session_origin": "caller" if session else None,
        "client_claims": claims or None,
    }


def _labels(row: Row, metadata: Row) -> dict[str, str]:
    said = {
        "backfill": "litellm",
        "litellm_team": cells.text(row, "team_id"),
        "litellm_organization": cells.text(row, "organization_id"),
        "litellm_key": cells.text(metadata, "user_api_key_alias"),
    }
    return {name: value for name, value in said.items() if value}


def _result(row: Row, metadata: Row, flags: list[str]) -> dict[str, Any]:
    status = (cells.text(row, "status") or cells.text(metadata, "status") or "").lower()
    error = cells.inner(metadata, "error_information")
    if status != "failure":
        if status != "success":
            flags.append("status_missing")  # old versions wrote rows of successes alone
        gone = cells.text(error, "error_message") == _DISCONNECTED
        return {"provider_result": "ok", "delivery": "cancelled_by_user" if gone else None}
    code = cells.count(error.get("error_code"))
    name = cells.text(error, "error_class")
    refused = type(code) is int and 400 <= code < 500 and code not in (408, 499)
    return {
        "provider_result": "failed",
        "error_type": name,
        "fault": _fault(code, name),
        "provider_billed": False if refused or code == 503 else None,
    }


def _fault(code: object, name: str | None) -> str | None:
    """Whose fault it was, as the live adapter says it of the same error."""
    if name == "ContentPolicyViolationError":
        return "user"
    if name == "BudgetExceededError" or code in (401, 403):
        return "platform"
    if type(code) is not int:
        return "provider" if name else None
    return "agent" if 400 <= code < 500 and code not in (408, 429, 499) else "provider"


def _is_streamed(row: Row) -> bool:
    """A reply that is no stream has its first token when it ends."""
    first, ended = cells.moment(row, "completionStartTime"), cells.moment(row, "endTime")
    return first is not None and ended is not None and first < ended


def _usage(
    row: Row, metadata: Row, flags: list[str], *, failed: bool, streamed: bool
) -> dict[str, Any]:
    """Disjoint components. LiteLLM's prompt tokens have cache reads and writes inside."""
    reported = {k: v for k, v in cells.inner(metadata, "usage_object").items() if v is not None}
    reported.pop("cost", None)
    raw: dict[str, Any] = reported
    totals = {n: cells.count(row.get(n)) for n in ("prompt_tokens", "completion_tokens")}
    if not any(reported.values()) or reported.get("prompt_tokens") is None:
        values = cells.inner(metadata, "additional_usage_values")
        more = {k: v for k, v in values.items() if v is not None}
        raw = {**more, **{n: v for n, v in totals.items() if v is not None}}
        if any(totals.values()) and not more:
            flags.append("usage_totals_only")  # cached tokens, if any, were not written down
    elif totals["prompt_tokens"] not in (None, reported.get("prompt_tokens")):
        flags.append("usage_columns_differ")
    counts = cells.components(usage.from_litellm, raw)
    if counts is None:
        return {"usage_source": "missing", "raw_usage": raw or None}
    # What LiteLLM counts itself for a stream has no details of the prompt.
    guessed = streamed and reported.get("prompt_tokens") is not None
    guessed = guessed and reported.get("prompt_tokens_details") is None
    source = "estimated" if failed or guessed else "provider"
    return {"usage": counts, "usage_source": source, "raw_usage": raw}


def _before_margin(metadata: Row) -> int | None:
    breakdown = cells.inner(metadata, "cost_breakdown")
    return cells.money(breakdown.get("original_cost"), [], "original_cost")
