"""LiteLLM's `LiteLLM_SpendLogs`: a row is what the proxy wrote of one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from costspan.adapter import usage
from costspan.core import clean
from costspan.core.backfill.claim import Claim, LeftOut, Rejected, Said
from costspan.core.money import format_usd
from costspan.plugins.backfill import cells, litellm_ids
from costspan.plugins.backfill.cells import Row

SOURCE: Final = "backfill:litellm"
TENANT_FROM: Final = ("team_id", "organization_id", "key")
"""As `CostLogger` finds the tenant of a live call: the same traffic has the same tenants."""
KNOWN_FROM: Final = (
    *("team_id", "organization_id", "key", "api_key", "user", "agent_id", "end_user"),
    *("session_id", "metadata."),
)
_CLIENTS_WORD: Final = ("end_user", "session_id", "agent_id", "metadata.")
_AUTHENTICATED: Final = "metadata.user_api_key_"
MEANT: Final = (
    "\\copy \"LiteLLM_SpendLogs\" TO 'rows.csv' CSV HEADER makes the file in psql, or name the"
    " database's URL"
)
COLUMNS: Final = (
    *("request_id", "call_type", "api_key", "spend", "total_tokens", "prompt_tokens"),
    *("completion_tokens", "startTime", "endTime", "completionStartTime", "model", "model_id"),
    *("model_group", "custom_llm_provider", "api_base", "user", "metadata", "cache_hit"),
    *("request_tags", "team_id", "organization_id", "end_user", "session_id", "status"),
    *("agent_id", "litellm_call_id", "mcp_namespaced_tool_name"),
)
"""What is read of the table: never the messages, the responses or the requests."""

_DISCONNECTED: Final = "Client disconnected the request"
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
    "call_mcp_tool": "tool",
}


def recognises(row: Row) -> bool:
    """Whether a row can be one of this table at all."""
    return "request_id" in row and not row.keys().isdisjoint(("startTime", "endTime"))


def trust_of(place: str) -> str:
    """Who says what stands in a place."""
    if place.startswith(_CLIENTS_WORD) and not place.startswith(_AUTHENTICATED):
        return "a client said so"
    return "the proxy authenticated it"


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
        result = _result(row, metadata, flags)
        _leave_out(row, metadata, call_type, spend, result)
        provider = cells.text(row, "custom_llm_provider")
        is_hit = (cells.text(row, "cache_hit") or "").lower() == "true"
        streamed = _is_streamed(row)
        owner = self._owner(row, metadata)
        facts: dict[str, Any] = {
            "oid": cells.own_name(SOURCE, named),
            "source": SOURCE,
            "layer": "gateway",
            "phase": "end",
            "kind": kind or "model",
            "name": cells.text(row, "mcp_namespaced_tool_name"),
            "provider": provider,
            "started_at": started,
            "ended_at": ended,
            "host_cost": format_usd(spend) if spend else None,
            "tenant": owner.tenant,
            "tenant_source": "metadata" if owner.tenant else None,
            "labels": _labels(row, metadata),
            **litellm_ids.identity(
                row, metadata, named, kind, provider, is_hit=is_hit, by_row=self._by_row
            ),
            **_models(row, metadata, provider),
            **_people(row, metadata),
            **result,
        }
        if call_type in ("create_batch", "retrieve_batch"):
            facts.update(litellm_ids.batch(named, call_type))
        if is_hit:
            facts["cache"] = "exact"  # the tokens of the row are those of the fill
        else:
            failed = result["provider_result"] == "failed"
            facts.update(_usage(row, metadata, flags, failed, streamed, bool(spend)))
        facts["flags"] = tuple(flags)
        said = Said(
            spend=spend,
            without=_without(metadata, spend),
            place=owner.place,
            no_tenant=owner.why_none,
            is_streamed=streamed,
            **_priced(row, metadata),
        )
        return Claim(clean.observation(facts), said)

    def _owner(self, row: Row, metadata: Row) -> cells.Owner:
        key = cells.text(metadata, "user_api_key_alias") or cells.text(row, "api_key")
        others = ("team_id", "organization_id", "user", "end_user")
        return cells.owner({**row, "key": key}, self._tenant_from, {"metadata": metadata}, others)


def _leave_out(row: Row, metadata: Row, call_type: str, spend: int | None, result: Row) -> None:
    if spend:
        return
    # A row that the proxy refused names neither an address nor a provider that answered.
    error = cells.inner(metadata, "error_information")
    nowhere = not cells.text(row, "api_base") and not cells.text(error, "llm_provider")
    tokens = cells.count(row.get("total_tokens"))
    if result["provider_result"] == "failed" and error and nowhere and not tokens:
        name, code = cells.text(error, "error_class"), cells.text(error, "error_code")
        raise LeftOut(f"refused by the proxy, no provider was called: {name} {code}")
    if tokens:
        return
    if call_type and (call_type not in _KINDS or _KINDS[call_type] == "tool"):
        raise LeftOut(f"{call_type} is no call of a model")
    if call_type == "retrieve_batch":
        raise LeftOut("a poll of an unfinished batch")


def _call_name(call_type: str | None) -> str:
    name = call_type or ""
    return name[1:] if name.startswith("a") and name not in _KINDS else name


def _models(row: Row, metadata: Row, provider: str | None) -> dict[str, Any]:
    asked = cells.text(metadata, "original_model_group") or cells.text(row, "model_group")
    priced = cells.text(cells.inner(metadata, "model_map_information"), "model_map_key")
    deployment = cells.text(row, "model_id")
    ran = priced if priced and priced != deployment else cells.text(row, "model")
    breakdown = cells.inner(metadata, "cost_breakdown")
    tried = [cells.count(metadata.get(f"attempted_{what}")) for what in ("retries", "fallbacks")]
    numbers = [number for number in tried if type(number) is int and number > 0]
    return {
        "executed_model": cells.without_provider(ran, provider),
        "requested_model": cells.without_provider(asked, provider),
        "deployment": deployment,
        "tier": cells.text(breakdown, "service_tier")
        or cells.text(cells.inner(metadata, "usage_object"), "service_tier"),
        "attempt": 1 + sum(numbers),
        "retry_reason": "provider" if numbers else None,
    }


def _people(row: Row, metadata: Row) -> dict[str, Any]:
    told = cells.text(row, "session_id")
    # Where no client named a session, LiteLLM writes its trace: an id of its own for each call.
    session, trace = (None, told) if told and litellm_ids.is_uuid(told) else (told, None)
    claims = {
        "end_user": cells.text(row, "end_user"),
        "tags": ", ".join(cells.words(row, "request_tags")),
        "spend_logs_metadata": cells.inner(metadata, "spend_logs_metadata") or None,
    }
    claims = {name: said for name, said in claims.items() if said}
    return {
        "user": cells.text(row, "user"),
        "session": session,
        "session_origin": "caller" if session else None,
        "trace_id": trace,
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
    row: Row, metadata: Row, flags: list[str], failed: bool, streamed: bool, charged: bool
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
        if any(totals.values()) and not more and not failed:
            flags.append("usage_totals_only")  # cached tokens, if any, were not written down
        if failed and not charged:
            # The prompt as LiteLLM counted it before it was sent: nobody used it for certain.
            return {"usage_source": "missing", "raw_usage": raw or None}
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


def _without(metadata: Row, spend: int | None) -> dict[str, int]:
    """The amount without LiteLLM's margin or discount; without the tools that it charged for."""
    breakdown = cells.inner(metadata, "cost_breakdown")
    original = cells.money(breakdown.get("original_cost"), [], "original_cost")
    tools = cells.money(breakdown.get("tool_usage_cost"), [], "tool_usage_cost")
    found: dict[str, int] = {}
    if original is not None and original != spend:
        found["margin_or_discount"] = original
    if tools and spend:
        found["tools_charged"] = spend - tools
    return found


def _priced(row: Row, metadata: Row) -> dict[str, bool]:
    """By which of LiteLLM's prices the call was priced, if by any.

    A price of the proxy's own configuration is written under the deployment, not the model.
    """
    priced = cells.inner(cells.inner(metadata, "model_map_information"), "model_map_value")
    deployment = cells.text(row, "model_id")
    rates = [priced.get(f"{which}_cost_per_token") for which in ("input", "output")]
    return {
        "has_own_price": deployment is not None and cells.text(priced, "key") == deployment,
        "has_no_price": bool(priced) and not any(rates),
    }
