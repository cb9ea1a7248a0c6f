"""On the proxy the authenticated key names the tenant; whatever a client says decides nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import litellm
import pytest
from litellm.utils import Rules, function_setup

from costspan.adapters.litellm import CostLogger, install
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
    assert await metering.async_pre_call_hook(data=data, **arguments) is None
    router = litellm.Router(
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
