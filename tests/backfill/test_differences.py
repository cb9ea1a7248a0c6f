"""Why LiteLLM's amount is not the books': each cause, and that the causes are the whole."""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk
from exports import call, causes, ingest, without_details

import costspan
from costspan.adapter import Attempt
from costspan.core import runtime

Row = dict[str, Any]


def with_usage(**details: int) -> Row:
    usage = {"prompt_tokens": 1000, "completion_tokens": 20, "prompt_tokens_details": details}
    return {"usage_object": usage}


def mapped(**entry: object) -> Row:
    """With the entry of LiteLLM's price map that the call was priced by."""
    information = {"model_map_key": "gpt-4o-mini", "model_map_value": {"key": "m", **entry}}
    return {**call()["metadata"], "model_map_information": information}


def broken_down(**parts: float) -> Row:
    return {**call()["metadata"], "cost_breakdown": parts}


def tiered() -> Row:
    """On the priority tier, as it is recorded."""
    return {**with_usage(cached_tokens=0), "cost_breakdown": {"service_tier": "priority"}}


def writes() -> Row:
    """300 tokens written to a cache for five minutes."""
    model = {"model": "claude-sonnet-4-5", "custom_llm_provider": "anthropic"}
    return {**model, "metadata": with_usage(cache_creation_tokens=300)}


def audio() -> Row:
    return {"model": "gpt-4o-audio-preview", "metadata": with_usage(audio_tokens=400)}


def failed(code: str) -> Row:
    error = {"error_code": code, "error_class": "InternalServerError", "llm_provider": "openai"}
    return {"metadata": {"error_information": error}}


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        (call(spend=0.000132), "same"),
        (call(spend=0.000132000001), "rounding"),
        (call(spend=0.0), "zero_recorded"),
        (call(spend=0.0, metadata=mapped(input_cost_per_token=0)), "host_has_no_price"),
        (call(spend=0.5, model_id="d1", metadata=mapped(key="d1")), "custom_price"),
        (call(spend=0.010132, metadata=broken_down(tool_usage_cost=0.01)), "tools_charged"),
        (call(spend=0.000102), "cached_not_charged"),
        (call(spend=0.0027, model="gpt-4o", metadata=tiered()), "tier"),
        (call(spend=0.0042, **writes()), "cache_lifetime"),
        (call(spend=0.0027, **audio()), "audio_as_text"),
        (call(status="failure", spend=0.0, **failed("500")), "failed_call"),
        (call(spend=0.0, completionStartTime="2026-10-05T12:00:00.500Z"), "zero_for_stream"),
        (call(spend=0.000192), "cached_counted_twice"),
        (call(spend=0.000162), "cached_at_full_price"),
        (call(spend=0.0002), "price"),
        (call(spend=None), "no_spend"),
        (call(model="mystery"), "no_price"),
        (without_details(prompt_tokens=0, completion_tokens=0), "no_usage"),
        (call(cache_hit="True"), "cache_hit_charged"),
        (call(cache_hit="True", spend=0.0), "same"),
        (
            call(status="failure", metadata={"error_information": {"error_code": "429"}}),
            "not_billed",
        ),
        (call(spend=0.00014, metadata=broken_down(original_cost=0.000132)), "margin_or_discount"),
    ],
)
def test_differences_have_causes(desk: Desk, row: Row, cause: str) -> None:
    ran = ingest(desk, [row], "--json")
    assert causes(ran) == {cause: 1}
    assert cause in ingest(desk, [row]).out


def test_a_row_in_no_event_is_in_the_sums(desk: Desk) -> None:
    """An old row, without a call id, whose response id two live calls have."""
    costspan.configure(ledger=desk.ledger, spool=desk.spool, background=False)
    for number in (1, 2):
        with costspan.attribute("globex"):
            attempt = Attempt.start(
                layer="gateway", provider="openai", requested_model="gpt-4o-mini",
                operation_ids=(f"litellm:call-{number}",),
            )  # fmt: skip
        attempt.end(usage={"input": 1, "output": 1}, response_id="openai//chatcmpl-1")
    costspan.flush()
    runtime.recorder().rotate()
    desk.run("drain")
    ran = ingest(desk, [call(litellm_call_id=None), call(2)], "--json").json
    assert ran["unmatched"] == ["backfill:litellm/chatcmpl-1"]
    for name in ("theirs", "ours", "difference"):
        parts = [int(each[name].replace(".", "")) for each in ran["differences"]]
        assert sum(parts) == int(ran["totals"][name].replace(".", "")), name
    assert sum(each["rows"] for each in ran["differences"]) == 2
