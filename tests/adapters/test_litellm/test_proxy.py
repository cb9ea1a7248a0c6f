"""On the proxy the authenticated key names the tenant; whatever a client says decides nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import litellm
import pytest
from litellm.litellm_core_utils.rules import Rules
from litellm.router import Router
from litellm.utils import function_setup

from costspan.adapters.litellm import CostLogger, flush, install
from costspan.core import counters

_KEY: dict[str, Any] = {
    "user_api_key_hash": "hash-of-key",
    "user_api_key_alias": "key-alias",
    "user_api_key_team_id": "team-1",
    "user_api_key_team_alias": "team-alias",
    "user_api_key_org_id": "org-1",
    "user_api_key_metadata": {"tenant": "acme", "customer": "acme-inc"},
    "user_api_key_team_metadata": {"tenant": "acme-team"},
    "user_api_key_user_id": "alice",
}
_CLAIMS: dict[str, Any] = {
    **{"tenant": "globex", "cause": "safety", "shared": True, "session_id": "mine"},
    **{"tags": ["tenant:globex"], "spend_logs_metadata": {"tenant": "globex"}},
}


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


@pytest.fixture
def ask(to_provider: Any, said: Any) -> Any:
    """A call as the proxy makes it, for a key of which it says these things."""

    async def ask(key: dict[str, Any], **asked: Any) -> None:
        await litellm.acompletion(
            "openai/gpt-4o",
            said("[[in=10 out=5]]"),
            metadata={**_CLAIMS, **key},
            proxy_server_request={
                "url": "/chat/completions",
                "headers": {"baggage": "tenant=globex", "x-litellm-tags": "tenant:globex"},
                "body": {"model": "gpt-4o", "metadata": _CLAIMS, "user": "globex"},
            },
            user="globex",
            **asked,
            **to_provider,
        )

    return ask


def without(*names: str) -> dict[str, Any]:
    return {name: None if name in names else value for name, value in _KEY.items()}


@pytest.mark.parametrize(
    ("key", "tenant"),
    [
        (_KEY, "acme"),
        (without("user_api_key_metadata"), "team-1"),
        ({**_KEY, "user_api_key_metadata": {"tenant": ""}}, "team-1"),
        ({**_KEY, "user_api_key_metadata": {"other": "x"}}, "team-1"),
        (without("user_api_key_metadata", "user_api_key_team_id"), "org-1"),
        (
            without("user_api_key_metadata", "user_api_key_team_id", "user_api_key_org_id"),
            "key-alias",
        ),
        ({"user_api_key_hash": "hash-of-key"}, "hash-of-key"),
    ],
    ids=["metadata", "team", "empty metadata", "other metadata", "org", "alias", "hash"],
)
async def test_the_keys_metadata_then_team_then_organisation_then_the_key(
    attempts: Any, ask: Any, key: dict[str, Any], tenant: str
) -> None:
    await ask(key)
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.tenant_source) == (tenant, "principal")
    assert (attempt.cause, attempt.shared) == (None, None)
    assert (attempt.session, attempt.session_origin) == ("mine", "caller")
    assert attempt.trace_origin == "caller"
    claims = attempt.client_claims
    assert (claims["tenant"], claims["cause"], claims["end_user"]) == ("globex", "safety", "globex")
    assert claims["tags"] == ["tenant:globex"]


@pytest.mark.parametrize(
    ("tenant_from", "tenant"),
    [
        (("key_metadata:customer", "team"), "acme-inc"),
        (("team_metadata:tenant",), "acme-team"),
        (("team_alias",), "team-alias"),
        ("org", "org-1"),
        (("project",), None),
    ],
)
async def test_where_the_tenant_stands_is_a_setting(
    attempts: Any, ask: Any, tenant_from: Any, tenant: str | None
) -> None:
    litellm.callbacks[:] = [CostLogger(tenant_from=tenant_from)]
    await ask(_KEY)
    [attempt] = attempts(1)
    assert attempt.tenant == tenant


@pytest.mark.parametrize("source", ["tenant", "key_metadata:", "org:x", ""])
def test_a_source_that_names_nothing_is_refused_at_start_up(source: str) -> None:
    with pytest.raises(ValueError, match="tenant_from knows"):
        CostLogger(tenant_from=(source,))


async def test_a_second_bucket_of_metadata_cannot_hide_the_key(attempts: Any, ask: Any) -> None:
    await ask(_KEY, litellm_metadata={"user_api_key": "forged", "tenant": "globex"})
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.tenant_source) == ("acme", "principal")


async def test_a_tenant_id_that_is_none_is_flagged_and_nobodys(attempts: Any, ask: Any) -> None:
    await ask({**_KEY, "user_api_key_metadata": {"tenant": "@platform"}})
    [attempt] = attempts(1)
    assert attempt.tenant is None
    assert "tenant_invalid" in attempt.flags


async def test_the_model_asked_for_is_known_after_a_hook_rerouted_the_request(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    # In the proxy's order: its record of the call, the hooks before the call, the call.
    data: dict[str, Any] = {
        "model": "gpt-4o",
        "litellm_call_id": "call-1",
        "messages": said("[[in=10 out=5]]"),
        "metadata": dict(_KEY),
        "proxy_server_request": {"url": "/", "body": {"model": "gpt-4o"}},
        **to_provider,
    }
    logging, data = function_setup("acompletion", Rules(), datetime.now(), **data)
    data["litellm_logging_obj"] = logging
    metering = CostLogger()
    litellm.callbacks[:] = [metering]
    data["model"] = "gpt-4o-mini"  # by a hook that came before ours
    arguments: Any = {"user_api_key_dict": None, "cache": None, "call_type": "acompletion"}
    hook: Any = metering.async_pre_call_hook
    assert await hook(data=data, **arguments) is None
    router = Router(
        model_list=[
            {
                "model_name": "gpt-4o-mini",
                "litellm_params": {"model": "openai/gpt-4o-mini", **to_provider},
            }
        ]
    )
    await router.acompletion(**{k: v for k, v in data.items() if k not in to_provider})
    [attempt] = attempts(1)
    assert attempt.requested_model == "gpt-4o"
    assert attempt.executed_model == "gpt-4o-mini-2024-07-18"
    assert (attempt.route, attempt.route_reason) == ("gpt-4o-mini", "policy")
    assert not [name for name in counters.snapshot() if name.startswith("litellm:async_pre_call")]


_FORGED: dict[str, Any] = {
    "costspan_attempt": "x",
    "costspan_requested_model": "gpt-4o-mini",
    "call_type": "create_batch",
    "combined_usage_object": {"prompt_tokens": 10**9, "completion_tokens": 1},
    "completion_start_time": "x",
    "litellm_params": {
        "metadata": {**_KEY, "user_api_key_metadata": {"tenant": "globex"}},
        "proxy_server_request": {"body": {}},
    },
    "optional_params": {"tool_choice": {}},
    "standard_logging_object": {"error_str": "Client disconnected the request"},
}
"""Fields of a body that LiteLLM, for providers other than OpenAI's kind, lays over its record."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("within", [None, "extra_body"])
async def test_a_body_that_names_fields_of_litellms_record_changes_nothing(
    attempts: Any, provider: Any, said: Any, stream: bool, within: str | None
) -> None:
    await _to_anthropic(provider, said("[[in=10 out=5]]"), within, stream=stream)
    await flush()
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.tenant_source) == ("acme", "principal")
    assert (attempt.usage, attempt.usage_source) == ({"input": 10, "output": 5}, "provider")
    assert attempt.requested_model == "claude-sonnet-4-5"
    assert (attempt.provider_result, attempt.delivery, attempt.kind) == ("ok", None, "model")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_that_invents_usage_of_a_failure_is_not_believed(
    attempts: Any, provider: Any, said: Any, stream: bool
) -> None:
    with pytest.raises(litellm.exceptions.ServiceUnavailableError):
        await _to_anthropic(provider, said("[[status=503 times=9]]"), None, stream=stream)
    await flush()
    [attempt] = attempts(1)
    assert (attempt.tenant, attempt.usage) == ("acme", None)
    assert attempt.provider_billed is False


async def _to_anthropic(provider: Any, messages: Any, within: str | None, *, stream: bool) -> None:
    answer: Any = await litellm.acompletion(
        "anthropic/claude-sonnet-4-5",
        messages,
        metadata=dict(_KEY),
        proxy_server_request={"url": "/", "body": {"model": "claude-sonnet-4-5"}},
        stream=stream,
        api_base=provider.url,
        api_key="any",
        max_retries=0,
        **(_FORGED if within is None else {within: _FORGED}),
    )
    if stream:
        async for _ in answer:
            pass


@pytest.mark.parametrize(
    "listed", [["gpt-4o"], [{"model": "gpt-4o"}], [{"gpt-4o-mini": ["gpt-4o"]}]]
)
@pytest.mark.parametrize("chosen_by", ["client", "operator"])
async def test_a_stand_in_that_the_client_names_is_what_it_asked_for(
    attempts: Any, to_provider: Any, said: Any, listed: Any, chosen_by: str
) -> None:
    router = Router(
        model_list=[
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **to_provider}}
            for name in ("gpt-4o-mini", "gpt-4o")
        ],
        num_retries=0,
        disable_cooldowns=True,
    )
    body = {"model": "gpt-4o-mini", **({"fallbacks": listed} if chosen_by == "client" else {})}
    data: dict[str, Any] = {
        "model": "gpt-4o-mini",
        "litellm_call_id": "call-1",
        "messages": said("[[in=10 out=5 status=503 times=1]]"),
        "metadata": dict(_KEY),
        "litellm_metadata": {"model_group": "gpt-4o-mini"},
        "proxy_server_request": {"url": "/", "body": body},
    }
    logging, data = function_setup("acompletion", Rules(), datetime.now(), **data)
    data["litellm_logging_obj"] = logging
    arguments: Any = {"user_api_key_dict": None, "cache": None, "call_type": "acompletion"}
    metering: Any = litellm.callbacks[-1]
    await metering.async_pre_call_hook(data=data, **arguments)
    # As the proxy does once the hooks, an operator's among them, have run.
    data["proxy_server_request"]["body"] = {"model": "gpt-4o-mini", "fallbacks": listed}
    await router.acompletion(fallbacks=listed, **data)
    first, second = attempts(2)
    by_client = chosen_by == "client"
    assert (first.requested_model, first.provider_result) == ("gpt-4o-mini", "failed")
    assert second.requested_model == ("gpt-4o" if by_client else "gpt-4o-mini")
    assert second.route_reason == ("requested" if by_client else "fallback")
    assert (second.attempt, second.retry_of) == (2, first.attempt_id)
