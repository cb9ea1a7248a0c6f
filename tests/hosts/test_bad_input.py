"""Bad input on a real host: a clear, counted outcome, the host's call untouched, nothing lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import costspan
from costspan.adapter import Attempt
from costspan.conformance.provider import DEFAULT_PRICES, LoopbackProvider, contract_toml
from costspan.core import runtime
from costspan.core.journal import spool

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# Warnings of the host libraries about themselves and each other are not what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as provider:
        yield provider
        assert provider.bugs == ()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prices = tmp_path / "contract.toml"
    prices.write_text(contract_toml(), "utf-8")
    costspan.configure(
        ledger=tmp_path / "ledger.db", spool=tmp_path / "spool", prices=prices, background=False
    )
    return tmp_path


def ask(provider: LoopbackProvider, text: str, **options: Any) -> Any:
    """One real LiteLLM call, awaited with its callbacks."""
    import litellm

    from costspan.adapters.litellm import flush

    costspan.install("litellm")

    async def call() -> Any:
        reply = await litellm.acompletion(
            model=options.pop("model", "openai/gpt-4o"),
            messages=[{"role": "user", "content": text}],
            api_base=provider.base_url,
            api_key="loopback",
            max_retries=0,
            **options,
        )
        await flush()
        return reply

    return asyncio.run(call())


def settled() -> list[dict[str, Any]]:
    costspan.flush()
    with costspan.open_ledger() as books:
        assert books.is_balanced()
        return list(books.events())


HOSTILE = [
    "@platform", "", " ", "a\x00b", "x" * 129, "\ud800", "‮acme", "\n", "@unattributed",
]  # fmt: skip


@pytest.mark.parametrize("tenant", HOSTILE, ids=ascii)
def test_a_hostile_tenant_id_owns_nothing_and_is_seen(
    provider: LoopbackProvider, folder: Path, tenant: str
) -> None:
    with costspan.attribute(tenant):
        reply = ask(provider, "[[in=100 out=10]] hello")
    assert reply.choices[0].message.content
    (event,) = settled()
    assert event["owner"] == "@unattributed"
    assert event["cost"] == "0.000350000000"
    assert "tenant_invalid" in event["flags"]


def test_quotes_and_markup_in_a_tenant_id_are_only_text(
    provider: LoopbackProvider, folder: Path
) -> None:
    tenant = "Robert'); DROP TABLE postings;--<script>=1+1"
    with costspan.attribute(tenant):
        ask(provider, "[[in=100 out=10]] hello")
    (event,) = settled()
    assert event["owner"] == tenant


@pytest.mark.parametrize(
    "usage",
    [
        {"input": float("nan"), "output": 1},
        {"input": -1},
        {"input": 10**30},
        {"input": True},
        {"input": "many"},
        {"input": 1.5},
    ],
    ids=str,
)
def test_impossible_token_counts_are_unknown_never_zero(folder: Path, usage: Any) -> None:
    with costspan.attribute("acme"):
        attempt = Attempt.start(layer="sdk", requested_model="gpt-4o")
        attempt.end(usage=usage, executed_model="gpt-4o")
    (event,) = settled()
    assert event["cost"] is None
    assert "invalid_usage" in event["flags"]
    assert event["owner"] == "acme"


def test_ten_megabytes_of_metadata_are_cut_and_the_money_kept(
    provider: LoopbackProvider, folder: Path
) -> None:
    metadata = {"tenant": "acme", "blob": "x" * 10_000_000, "tree": {"a": {"b": {"c": {"d": {}}}}}}
    ask(provider, "[[in=100 out=10]] hello", metadata=metadata)
    (event,) = settled()
    assert (event["owner"], event["cost"]) == ("acme", "0.000350000000")
    assert sum(path.stat().st_size for path in folder.rglob("*.db")) < 5_000_000


def test_an_unknown_model_is_unpriced_and_listed(folder: Path) -> None:
    prices = {**DEFAULT_PRICES, "nobody-knows-9": {"input": "1.00", "output": "1.00"}}
    with LoopbackProvider(prices=prices) as provider, costspan.attribute("acme"):
        ask(provider, "[[in=100 out=10]] hello", model="openai/nobody-knows-9")
    (event,) = settled()
    assert event["executed_model"] == "nobody-knows-9"
    assert event["cost"] is None
    assert "unpriced" in event["flags"]
    with costspan.open_ledger() as books:
        assert books.totals()["totals"]["unpriced_events"] == 1


def test_a_reply_without_usage_is_flagged_never_free(
    provider: LoopbackProvider, folder: Path
) -> None:
    with costspan.attribute("acme"):
        ask(provider, "[[in=100 out=10 usage=none]] hello")
    (event,) = settled()
    # LiteLLM counts tokens itself where the provider says nothing: an estimate, and called one.
    assert event["cost"] is None or "estimated" in event["flags"]
    assert event["cost"] != "0.000000000000"


def test_a_corrupt_spool_file_keeps_its_good_records_and_its_rest(folder: Path) -> None:
    for number in range(20):
        with costspan.attribute("acme"):
            Attempt.start(layer="sdk", requested_model="gpt-4o").end(usage={"input": 100 + number})
    runtime.recorder().rotate()
    (segment,) = spool.segments(folder / "spool")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    drained = costspan.flush()
    assert drained.quarantined == 1
    (torn,) = spool.quarantined(folder / "spool")
    assert 0 < torn.stat().st_size < len(data)
    with costspan.open_ledger() as books:
        events = list(books.events())
    assert len(events) == 20, "one damaged record hides no other: its attempt has another"
    assert all(e["cost"] for e in events if e["outcome"] != "open")


def test_the_hosts_own_exception_passes_unchanged(provider: LoopbackProvider, folder: Path) -> None:
    from litellm.exceptions import RateLimitError

    with costspan.attribute("acme"), pytest.raises(RateLimitError):
        ask(provider, "[[status=429]] hello")
    (event,) = settled()
    assert (event["outcome"], event["cost"]) == ("failed", "0.000000000000")
