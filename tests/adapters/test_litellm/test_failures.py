"""Retries, fallbacks and failures: every try is an attempt, linked to the one before."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import litellm
import openai
import pytest
from litellm.router import Router

import costspan
from costspan.adapters.litellm import CostLogger, flush, install

_DOWN = "status=503 retry_after=0"


@pytest.fixture(autouse=True)
def installed() -> None:
    install()


@pytest.fixture
def router(to_provider: Any) -> Router:
    """Two groups: one named as its model, one named by what it is for."""

    def deployment(group: str, model: str) -> dict[str, Any]:
        params = {"model": f"openai/{model}", **to_provider}
        return {"model_name": group, "litellm_params": params, "model_info": {"id": f"at-{model}"}}

    return Router(
        model_list=[deployment("gpt-4o", "gpt-4o"), deployment("fast", "gpt-4o-mini")],
        fallbacks=[{"gpt-4o": ["fast"]}],
        num_retries=1,
        retry_after=0,
    )


def chain(attempts: list[Any]) -> list[tuple[Any, ...]]:
    """Number, link and reason of each try; the link as the number of the try it follows."""
    numbers = {a.attempt_id: a.attempt for a in attempts}
    return [(a.attempt, numbers.get(a.retry_of), a.retry_reason) for a in attempts]


async def test_a_retry_of_the_router_is_a_second_attempt(
    attempts: Any, provider: Any, router: Router, said: Any
) -> None:
    provider.script("once", _DOWN, "in=10 out=5")
    with costspan.attribute("acme"):
        await router.acompletion("gpt-4o", said("[[once]]"))
    await flush()
    failed, ok = attempts(2)
    assert chain([failed, ok]) == [(1, None, None), (2, 1, "provider")]
    assert (failed.provider_result, failed.fault) == ("failed", "provider")
    assert (failed.error_type, failed.provider_billed) == ("ServiceUnavailableError", False)
    assert (ok.provider_result, ok.usage) == ("ok", {"input": 10, "output": 5})
    assert {a.tenant for a in (failed, ok)} == {"acme"}
    assert {a.attempts_hidden for a in (failed, ok)} == {0}
    assert failed.operation_ids != ok.operation_ids
    assert {len(a.observations) for a in (failed, ok)} == {2, 3}  # the price of the reply


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_a_fallback_of_the_router_says_what_was_asked_for_and_what_ran(
    attempts: Any, provider: Any, router: Router, said: Any, sync: bool
) -> None:
    provider.script("twice", _DOWN, _DOWN, "in=10 out=5")
    with costspan.attribute("acme"):
        if sync:
            await asyncio.to_thread(router.completion, "gpt-4o", said("[[twice]]"))
        else:
            await router.acompletion("gpt-4o", said("[[twice]]"))
    found = attempts(3)
    assert chain(found) == [(1, None, None), (2, 1, "provider"), (3, 2, "provider")]
    assert [a.route for a in found] == ["gpt-4o", "gpt-4o", "fast"]
    assert [a.route_reason for a in found] == ["requested", "requested", "fallback"]
    assert [a.deployment for a in found] == ["at-gpt-4o", "at-gpt-4o", "at-gpt-4o-mini"]
    assert {a.requested_model for a in found} == {"gpt-4o"}
    assert found[2].executed_model == "gpt-4o-mini-2024-07-18"
    assert {a.tenant for a in found} == {"acme"}


async def test_when_all_fail_each_try_is_a_failed_attempt(
    attempts: Any, provider: Any, router: Router, said: Any
) -> None:
    provider.script("down", _DOWN)
    with pytest.raises(litellm.exceptions.ServiceUnavailableError):
        await router.acompletion("gpt-4o", said("[[down]]"))
    await flush()
    found = attempts(4)
    assert [n for n, *_ in chain(found)] == [1, 2, 3, 4]
    assert {a.provider_result for a in found} == {"failed"}
    assert {a.usage_source for a in found} == {"missing"}


async def test_operations_that_share_a_metadata_dict_are_not_each_others_retries(
    attempts: Any, provider: Any, router: Router, said: Any
) -> None:
    provider.script("first", _DOWN, "in=10 out=5")
    metadata = {"tenant": "acme"}
    await router.acompletion("gpt-4o", said("[[first]]"), metadata=metadata)
    await router.acompletion("gpt-4o", said("[[in=20 out=5]]"), metadata=metadata)
    await flush()
    assert "previous_models" in metadata  # LiteLLM wrote the first call's failure into it
    assert chain(attempts(3)) == [(1, None, None), (2, 1, "provider"), (1, None, None)]


async def test_operations_of_one_trace_are_not_each_others_retries(
    attempts: Any, router: Router, said: Any
) -> None:
    async def ask(tenant: str, pause: float) -> None:
        words = f"{_DOWN} times=1 in=10 out=5 delay={pause}"
        with costspan.attribute(tenant):
            await router.acompletion(
                "gpt-4o", said(f"[[{words}]] {tenant}"), litellm_trace_id="a-callers-own"
            )

    await asyncio.gather(ask("acme", 0.1), ask("globex", 0.3), ask("initech", 0.2))
    found = attempts(6)
    tenant_of = {a.attempt_id: a.tenant for a in found}
    retries = [a for a in found if a.attempt == 2]
    assert sorted(a.tenant for a in retries) == ["acme", "globex", "initech"]
    assert [tenant_of[a.retry_of] for a in retries] == [a.tenant for a in retries]


async def test_a_failure_nobody_retried_is_not_what_the_next_operation_retries(
    attempts: Any, provider: Any, router: Router, said: Any
) -> None:
    asked: dict[str, Any] = {"litellm_trace_id": "a-callers-own"}
    with pytest.raises(litellm.exceptions.BadRequestError):
        await router.acompletion("gpt-4o", said("[[status=400]]"), disable_fallbacks=True, **asked)
    provider.script("next", _DOWN, "in=10 out=5")
    await router.acompletion("gpt-4o", said("[[next]]"), **asked)
    assert chain(attempts(3))[1:] == [(1, None, None), (2, 1, "provider")]


@pytest.mark.parametrize("sees", [False, True], ids=["hidden", "seen"])
async def test_silent_retries_are_unknown_unless_they_are_forbidden(
    attempts: Any, provider: Any, said: Any, sees: bool
) -> None:
    litellm.callbacks[:] = [CostLogger(see_retries=sees)]
    at = {"api_base": provider.base_url, "api_key": "any"}
    words = f"{_DOWN} times=1 in=10 out=5 case=silent-{sees}"
    asked = litellm.acompletion("openai/gpt-4o", said(f"[[{words}]]"), **at)
    if sees:
        with pytest.raises(litellm.exceptions.ServiceUnavailableError):
            await asked
    else:
        await asked
    [attempt] = attempts(1)
    assert attempt.provider_result == ("failed" if sees else "ok")
    assert attempt.attempts_hidden == (0 if sees else None)
    sent = [row.status for row in provider.truth if row.case == f"silent-{sees}"]
    assert sent == ([503] if sees else [503, 200])


async def test_seeing_retries_leaves_what_the_caller_said(
    attempts: Any, provider: Any, said: Any
) -> None:
    litellm.callbacks[:] = [CostLogger(see_retries=True)]
    at = {"api_base": provider.base_url, "api_key": "any", "max_retries": 1}
    words = f"{_DOWN} times=1 in=10 out=5 case=callers"
    await litellm.acompletion("openai/gpt-4o", said(f"[[{words}]]"), **at)
    [attempt] = attempts(1)
    assert attempt.attempts_hidden is None
    assert [r.status for r in provider.truth if r.case == "callers"] == [503, 200]


async def test_num_retries_of_a_direct_call_are_hidden_whatever_max_retries_says(
    attempts: Any, provider: Any, to_provider: Any, said: Any
) -> None:
    words = f"{_DOWN} times=1 in=10 out=5 case=num"
    await litellm.acompletion("openai/gpt-4o", said(f"[[{words}]]"), num_retries=1, **to_provider)
    [attempt] = attempts(1)
    assert attempt.attempts_hidden is None
    assert [r.status for r in provider.truth if r.case == "num"] == [503, 200]


async def test_fallbacks_of_the_sdk(
    attempts: Any, provider: Any, to_provider: Any, said: Any
) -> None:
    provider.script("sdk", _DOWN, "in=10 out=5")
    await litellm.acompletion(
        "openai/gpt-4o", said("[[sdk]]"), fallbacks=["openai/gpt-4o-mini"], **to_provider
    )
    await flush()
    failed, ok = attempts(2)
    assert chain([failed, ok]) == [(1, None, None), (2, 1, "provider")]
    assert (failed.requested_model, ok.requested_model) == ("gpt-4o", "gpt-4o")
    assert (ok.executed_model, ok.route_reason) == ("gpt-4o-mini-2024-07-18", "fallback")
    assert failed.operation_ids == ok.operation_ids


async def test_retries_of_a_timeout_say_so_and_may_have_been_billed(
    attempts: Any, provider: Any, router: Router, said: Any
) -> None:
    provider.script("slow", "fault=timeout delay=5", "in=10 out=5")
    await router.acompletion("gpt-4o", said("[[slow]]"), timeout=0.5)
    failed, ok = attempts(2)
    assert (failed.error_type, failed.fault) == ("Timeout", "provider")
    assert failed.provider_billed is None
    assert ok.retry_reason == "timeout"


@pytest.mark.parametrize(
    ("step", "fault", "billed"),
    [
        ("status=429 retry_after=0", "provider", False),
        ("status=500 retry_after=0", "provider", None),
        ("status=401", "platform", False),
        ("status=400", "agent", False),
    ],
)
async def test_whose_fault_and_whether_billed(
    attempts: Any, to_provider: Any, said: Any, step: str, fault: str, billed: bool | None
) -> None:
    with pytest.raises(openai.APIStatusError):
        await litellm.acompletion("openai/gpt-4o", said(f"[[{step}]]"), **to_provider)
    [attempt] = attempts(1)
    assert (attempt.fault, attempt.provider_billed) == (fault, billed)
    assert attempt.attempt == 1


def test_a_refused_connection_was_not_billed(attempts: Any, said: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        with pytest.raises(litellm.exceptions.InternalServerError):
            litellm.completion(
                "openai/gpt-4o", said("x"), api_base=url, api_key="any", max_retries=0
            )
    [attempt] = attempts(1)
    assert (attempt.fault, attempt.provider_billed) == ("provider", False)


async def test_a_model_without_a_provider_fails_unbilled(attempts: Any, said: Any) -> None:
    with pytest.raises(litellm.exceptions.BadRequestError):
        await litellm.acompletion("no-such-model", said("x"))
    [attempt] = attempts(1)
    assert (attempt.fault, attempt.provider_billed) == ("agent", False)


async def test_a_stream_that_dies_keeps_the_estimate_of_what_was_sent(
    attempts: Any, to_provider: Any, said: Any
) -> None:
    stream = await litellm.acompletion(
        "openai/gpt-4o",
        said("[[fault=die after=2 out=20 text='a b c d e f g']]"),
        stream=True,
        **to_provider,
    )
    with pytest.raises(litellm.exceptions.MidStreamFallbackError):
        async for _ in stream:
            pass
    await flush()
    [attempt] = attempts(1)
    assert (attempt.provider_result, attempt.fault) == ("failed", "provider")
    assert attempt.provider_billed is None
    assert attempt.usage_source == "estimated"
    assert attempt.usage["output"] > 0


async def test_a_request_refused_before_any_attempt_makes_no_event(
    attempts: Any, router: Router, said: Any
) -> None:
    with pytest.raises(litellm.exceptions.BadRequestError):
        await router.acompletion("no-such-group", said("x"))
    await flush()
    assert attempts(0) == []
