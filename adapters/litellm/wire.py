"""The request as LiteLLM is about to send it: shown to `log_pre_api_call`, and ours to complete."""

from __future__ import annotations

from typing import Any, cast

import litellm
from litellm import constants

from costspan.adapters.litellm.tracking import Details, call_name

_MOCK_KEY = "mock-key"
"""The API key that LiteLLM logs for an answer of its own; it shows no request then."""


def is_made_up(details: Details) -> bool:
    """Whether LiteLLM answers the call itself (`mock_response`), whatever asked it to."""
    return details.get("api_key") == _MOCK_KEY and not details.get("additional_args")


def ask_for_usage(details: Details) -> None:
    """Have a stream in OpenAI's protocol report its usage, unless the caller chose."""
    shown: dict[str, Any] = details.get("additional_args") or {}
    sent = shown.get("complete_input_dict")
    request = cast("dict[str, Any]", sent) if isinstance(sent, dict) else {}  # or as text
    if (
        call_name(details.get("call_type")) in ("completion", "text_completion")
        and request.get("stream") is True
        and request.get("stream_options") is None
        and _speaks_openai(details)
    ):
        request["stream_options"] = {"include_usage": True}


def _speaks_openai(details: Details) -> bool:
    """Whether the provider's wire knows `stream_options`: others would refuse the request."""
    provider, model = details.get("custom_llm_provider"), details.get("model")
    alike: list[str] = vars(constants).get("openai_compatible_providers", [])
    wire = ("openai", "azure", *alike)
    if not isinstance(provider, str) or provider not in wire or not isinstance(model, str):
        return False
    known = cast(
        "list[str] | None",
        litellm.get_supported_openai_params(  # pyright: ignore[reportUnknownMemberType]  # bare list
            model=model, custom_llm_provider=provider
        ),
    )
    return "stream_options" in (known or ())
