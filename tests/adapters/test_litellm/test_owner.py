"""Who may name the owner: the context, then in-process metadata; a client's word is a claim."""

from __future__ import annotations

from typing import Any

import litellm
import pytest

import costspan
from costspan.adapter import OpenOperation, current, open_operation
from costspan.adapters.litellm import install
from costspan.core import counters

_AUTHENTICATED = {"user_api_key_hash": "k", "user_api_key_team_id": "acme"}
_SPOOFED = {
    "cause": "safety",
    "initiator": "platform",
    "shared": True,
    "members": {"globex": 1},
    "delivery": "blocked",
    "flat_cost": "0.00",
    "provider_billed": False,
    "fault": "provider",
    "usage": {"input": 0},
}


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


@pytest.fixture
def ask(to_provider: Any, said: Any) -> Any:
    async def ask(**asked: Any) -> None:
        await litellm.acompletion("openai/gpt-4o", said("[[in=10 out=5]]"), **asked, **to_provider)

    return ask


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "under costspan"])
async def test_metadata_of_the_application_names_the_owner(
    attempts: Any, ask: Any, nested: bool
) -> None:
    owner = {
        **{"tenant": "acme", "session": "s1", "user": "u1", "feature": "chat"},
        "labels": {"team": "blue"},
    }
    await ask(metadata={"costspan": owner} if nested else owner)
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.tenant_source) == ("acme", "metadata")
    assert (attempt.session, attempt.session_origin) == ("s1", "ours")
    assert (attempt.user, attempt.feature, attempt.labels) == ("u1", "chat", {"team": "blue"})
    assert attempt.client_claims is None


async def test_the_context_wins_over_metadata_and_the_disagreement_is_kept(
    attempts: Any, ask: Any
) -> None:
    before = counters.snapshot().get("tenant_disagreement", 0)
    with costspan.attribute("acme"):
        await ask(metadata={"tenant": "globex", "session": "of-globex"})
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.tenant_source, attempt.session) == ("acme", "context", None)
    assert attempt.client_claims == {"tenant": "globex", "session": "of-globex"}
    assert counters.snapshot()["tenant_disagreement"] == before + 1


async def test_metadata_completes_a_context_it_agrees_with(attempts: Any, ask: Any) -> None:
    with costspan.attribute("acme", feature="search"):
        await ask(metadata={"tenant": "acme", "session": "s1", "feature": "chat"})
    [attempt] = attempts(1)
    assert (attempt.tenant_source, attempt.session, attempt.feature) == ("context", "s1", "search")


async def test_an_invalid_tenant_is_flagged_and_nobodys(attempts: Any, ask: Any) -> None:
    await ask(metadata={"tenant": "@platform"})
    [attempt] = attempts(1)
    assert attempt.tenant is None
    assert "tenant_invalid" in attempt.flags


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "under costspan"])
async def test_money_in_metadata_is_a_claim_and_decides_nothing(
    attempts: Any, ask: Any, nested: bool
) -> None:
    await ask(metadata={"costspan": _SPOOFED} if nested else dict(_SPOOFED))
    [attempt] = attempts(1)
    assert (attempt.cause, attempt.initiator, attempt.shared, attempt.members) == (None,) * 4
    assert (attempt.delivery, attempt.flat_cost, attempt.fault) == (None,) * 3
    assert attempt.provider_billed is None
    assert attempt.usage == {"input": 10, "output": 5}
    assert attempt.client_claims == _SPOOFED


async def test_a_metadata_dict_used_for_two_calls_does_not_mix_them(
    attempts: Any, ask: Any
) -> None:
    metadata = {"tenant": "acme"}
    await ask(metadata=metadata)
    metadata["tenant"] = "globex"
    await ask(metadata=metadata)
    first, second = attempts(2)
    assert (first.tenant, second.tenant) == ("acme", "globex")
    assert {o.tenant for o in first.observations} <= {"acme", None}
    assert first.operation_ids != second.operation_ids


async def test_in_the_sdk_the_proxys_own_fields_authenticate_nobody(
    attempts: Any, ask: Any
) -> None:
    await ask(metadata={**_AUTHENTICATED, "tenant": "globex"})
    [attempt] = attempts(1)
    assert attempt.tenant is None
    assert attempt.client_claims["tenant"] == "globex"


async def test_the_operation_that_encloses_the_call_is_named_while_it_is_open(
    attempts: Any, ask: Any
) -> None:
    run = OpenOperation("langchain:R1", current())
    open_operation(run)
    await ask()
    run.is_open = False  # a framework may leave it set: closed, it encloses nothing
    await ask()
    inside, after = attempts(2)
    assert inside.operation_ids[1:] == ("langchain:R1",)
    assert inside.operation_ids[0].startswith("litellm:")
    assert len(after.operation_ids) == 1
