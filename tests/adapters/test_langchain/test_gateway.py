"""Two layers on one call: a gateway that meters it, or LiteLLM in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI

import costspan
from costspan.adapter import Attempt
from costspan.conformance.provider import LoopbackProvider

ModelOf = Callable[..., ChatOpenAI]
WORDS = "[[tenant=acme in=100 out=20]]"


def metered(provider: LoopbackProvider) -> None:
    """What the gateway itself recorded of the last call it let through."""
    row = provider.truth[-1]
    attempt = Attempt.start(layer="gateway", provider="openai", requested_model="gpt-4o")
    attempt.end(
        usage=dict(row.usage),
        executed_model=row.executed_model,
        response_id=f"openai//{row.response_id}",
    )


@pytest.mark.parametrize("said", ["argument", "environment"])
async def test_a_client_of_a_gateway_is_evidence(
    said: str,
    model_of: ModelOf,
    seen: RunnableConfig,
    ledger: Any,
    provider: LoopbackProvider,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger.configure(gateways=[provider.base_url])
    settings: dict[str, Any] = {}
    if said == "environment":  # read by OpenAI's own client: LangChain does not know of it
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        settings["base_url"] = None
    with costspan.attribute("acme"):
        model_of(**settings).invoke(WORDS, config=seen)
        assert ledger.events() == []
        assert ledger.totals()["unmatched"] > 0
    metered(provider)
    event = ledger.event()
    assert (event["owner"], event["cost"]) == ("acme", "0.000450000000")
    ledger.check()


def test_a_streaming_client_of_a_gateway_makes_no_event(
    model_of: ModelOf, seen: RunnableConfig, ledger: Any, provider: LoopbackProvider
) -> None:
    """It names no response, so it waits in vain: never a second cost, and shown."""
    ledger.configure(gateways=[provider.base_url])
    with costspan.attribute("acme"):
        assert list(model_of(stream_usage=True).stream(WORDS, config=seen))
    metered(provider)
    event = ledger.event()
    assert (event["cost"], event["owner"]) == ("0.000450000000", "@unattributed")
    assert ledger.totals()["unmatched"] > 0
