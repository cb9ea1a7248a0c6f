"""The callback: LiteLLM's hooks in the order in which they fire, each a few lines.

Parameter names are LiteLLM's (it calls by keyword). The hooks for single stream chunks and for
rewriting a stream are left alone on purpose: they fire once a chunk, twice on sync streams, and an
override of the streaming hook breaks the proxy's wire.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from functools import wraps
from importlib.metadata import version
from typing import Any, TypeVar, cast
from weakref import ref

from litellm.integrations.custom_logger import CustomLogger

from costspan.adapter import Attempt, OpenOperation, context_fields, current, enclosing_operation
from costspan.adapters.litellm import batch, failure, owner, patches, reply, request, signed, wire
from costspan.adapters.litellm.owner import TENANT_FROM
from costspan.adapters.litellm.request import MOCK, Asked, details_of, model_name
from costspan.adapters.litellm.tracking import (
    Details,
    Tracked,
    kind_of,
    predecessor,
    remember_failure,
    track,
    tracked_on,
)
from costspan.carrier import Keys
from costspan.core.counters import count

H = TypeVar("H", bound=Callable[..., Any])

_SOURCE = {"source": "litellm", "source_version": version("litellm")}
_CLIENT_LEFT = 499
_answering: ContextVar[ref[Any] | None] = ContextVar("costspan_litellm_answering", default=None)
"""LiteLLM's object for the request that a task of the proxy answers; it takes it out of the request
data before it tells of a failure. Weak: other tasks inherit the variable, and live for ever."""

_NOTHING_SENT = "litellm_no_upstream_llm_call"
"""Set by the proxy on the record of a request it refused itself: no provider was called."""


def _guarded(hook: H) -> H:
    """Count what goes wrong in a hook: nothing of ours may reach the host's call."""
    name = hook.__name__
    if inspect.iscoroutinefunction(hook):

        @wraps(hook)
        async def quiet_async(*args: Any, **kwargs: Any) -> Any:
            try:
                return await hook(*args, **kwargs)
            except Exception as error:
                count(f"litellm:{name}:{type(error).__name__}")

        return cast("H", quiet_async)

    @wraps(hook)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        try:
            return hook(*args, **kwargs)
        except Exception as error:
            count(f"litellm:{name}:{type(error).__name__}")

    return cast("H", quiet)


class CostLogger_PROXY_(CustomLogger):
    """Writes every provider attempt LiteLLM makes to the books: SDK, Router and proxy.

        litellm.callbacks.append(CostLogger())

    LiteLLM lets a request silence callbacks with `no-log`, except those whose class name contains
    `_PROXY_`; metering must not be the caller's choice, hence the name.

    Args:
        tenant_from: On the proxy, what of the authenticated key names the tenant, best first; see
            `costspan.adapters.litellm.owner.TENANT_FROM`. In the SDK it says nothing.
        include_usage: Ask OpenAI and those who speak its protocol for the usage of a stream
            (`stream_options.include_usage`) where the caller did not set `stream_options`. The
            caller then sees one more chunk, which carries the usage. Without it LiteLLM guesses
            the tokens (`usage_source` estimated) or reports none (missing). The proxy asks anyway.
        see_retries: Forbid the provider's client to retry in silence (`max_retries=0`) in async
            calls that set neither `max_retries` nor `num_retries`. Every try is an attempt then,
            and **fewer of them are made**: retry with LiteLLM's Router, whose tries are seen.
            Without it such a call's `attempts_hidden` is unknown. Sync calls offer no place to
            say so: pass `max_retries=0` yourself.
        keys: On the proxy, the keys by which clients that are metered themselves say which call
            of theirs this is; see `costspan.adapters.litellm.signed`.

    Raises:
        ValueError: for a source of the tenant that nobody knows.
    """

    def __init__(
        self,
        *,
        tenant_from: Iterable[str] = TENANT_FROM,
        include_usage: bool = False,
        see_retries: bool = False,
        keys: Keys | None = None,
    ) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # LiteLLM's untyped kwargs
        self._tenant_from = owner.checked(tenant_from)
        self._include_usage = include_usage
        self._see_retries = see_retries
        self._keys = keys
        patches.apply()

    # Before I/O. Async calls pass here; what skips it (sync calls) passes `log_pre_api_call`.

    @_guarded
    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: Any
    ) -> None:
        """On the proxy: keep the model that was asked for, whatever a hook makes of it."""
        _answering.set(ref(data["litellm_logging_obj"]))
        request.note_requested(data)

    @_guarded
    async def async_post_call_failure_hook(
        self,
        request_data: dict[str, Any],
        original_exception: Exception,
        user_api_key_dict: Any,
        traceback_str: str | None = None,
    ) -> None:
        """On the proxy: a guardrail or another hook kept the provider's answer from the client."""
        answering = _answering.get()
        record = None if answering is None else answering()
        tracked = None if record is None else tracked_on(record.model_call_details)
        if tracked is None or not tracked.attempt.ended or tracked.retry_reason is not None:
            return
        has_left = getattr(original_exception, "status_code", None) == _CLIENT_LEFT
        delivery = "cancelled_by_user" if has_left else "blocked"
        tracked.attempt.evidence(layer="gateway", delivery=delivery, **_SOURCE)

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """Write the intent of one async attempt; may forbid silent retries."""
        told = self._without_silent_retries(kwargs, call_type)
        self._begin_with(told or kwargs, call_type)
        return told

    @_guarded
    def _begin_with(self, kwargs: dict[str, Any], call_type: object) -> None:
        details = details_of(kwargs)
        if details is not None:
            self._begin(details, call_type, kwargs)

    @_guarded
    def _without_silent_retries(
        self, kwargs: dict[str, Any], call_type: object
    ) -> dict[str, Any] | None:
        said = any(kwargs.get(name) is not None for name in ("max_retries", "num_retries"))
        if not self._see_retries or said or kind_of(call_type) is None:
            return None
        return {**kwargs, "max_retries": 0}

    @_guarded
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Write the intent of an attempt that no hook announced: sync calls.

        LiteLLM shows the very request that it is about to send, which may be completed here.
        """
        if _NOTHING_SENT in kwargs:
            return
        tracked = self._begin(kwargs, kwargs.get("call_type"), None)
        if tracked is None:
            return
        if wire.is_made_up(kwargs):
            tracked.is_mock = True
            tracked.attempt.add(**MOCK)
        elif self._include_usage:
            wire.ask_for_usage(kwargs)

    # After the reply. The deployment hooks run in the caller's task, so what they write is safe
    # before the caller sees the reply; LiteLLM's logging queue is lost when the loop ends early.

    @_guarded
    async def async_post_call_success_deployment_hook(
        self, request_data: Any, response: Any, call_type: Any
    ) -> None:
        """End an async attempt, except a stream: its usage is known when it has been read."""
        details = details_of(request_data)
        if details is None or details.get("stream") is True or hasattr(response, "__anext__"):
            return
        tracked = tracked_on(details)
        if tracked is not None and not tracked.attempt.ended:
            tracked.attempt.end(**_result(tracked, tracked.record(details), response))

    @_guarded
    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """End each failed async attempt; the proxy's failure event knows only the first."""
        details = details_of(request_data)
        if details is not None:
            _fail(details, exception)

    @_guarded
    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """End an async stream or cache hit; add LiteLLM's own price to what has ended."""
        self._succeed(kwargs, response_obj)

    @_guarded
    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """End a sync attempt."""
        self._succeed(kwargs, response_obj)

    @_guarded
    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """End what failed elsewhere than in the call: a stream that died on the way."""
        _fail(kwargs, kwargs.get("exception"))

    @_guarded
    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """End a failed sync attempt."""
        _fail(kwargs, kwargs.get("exception"))

    def _begin(
        self, details: Details, call_type: object, arguments: Mapping[str, Any] | None
    ) -> Tracked | None:
        """The attempt of this call, minted unless one is under way: two hooks may announce it.

        LiteLLM's bridges (Responses over chat, `fallbacks=[...]`) nest calls on one record, so
        an attempt under way there is this one.
        """
        kind = kind_of(call_type)
        if kind is None:
            return None
        tracked = tracked_on(details)
        if tracked is not None and not tracked.attempt.ended:
            return tracked
        asked = Asked(details, arguments)
        facts = request.facts_of(asked)
        facts.update(_repeats(facts, enclosing_operation()))
        context, owned = owner.owner_of(asked, current(), self._tenant_from)
        called = signed.operations_of(asked, self._keys, context_fields(context)["tenant"])
        attempt = Attempt.start(
            layer="gateway",
            kind=kind,
            operation_ids=(*_operations(details), *called),
            context=context,
            prompt=asked.prompt,
            **{**_SOURCE, **facts, **owned},
        )
        tracked = Tracked(attempt, facts["attempt"], facts["requested_model"])
        tracked.note_request(call_type, arguments or {})
        tracked.is_mock = asked.is_mock
        track(details, tracked)
        return tracked

    def _succeed(self, details: Details, response: object) -> None:
        call_type, tracked = details.get("call_type"), tracked_on(details)
        if tracked is None and batch.is_batch(call_type):
            context, owned = owner.owner_of(Asked(details), current(), self._tenant_from)
            batch.record(details, response, context, {"layer": "gateway", **_SOURCE, **owned})
            return
        if tracked is None:
            # A sync cache hit starts nothing before it ends, and runs outside the caller's context.
            tracked = self._begin(details, call_type, None)
            if tracked is None:
                return
            if details.get("cache_hit") is not True:
                count("litellm:start_unseen")
        details = tracked.record(details)
        if tracked.attempt.ended:
            _say_cost(tracked, details)
        elif details.get("cache_hit") is True:
            tracked.cost_said = True
            tracked.attempt.end(**reply.cached_facts(details))
        else:
            tracked.cost_said = True
            facts = _result(tracked, details, response)
            host_cost = None if tracked.is_mock else reply.host_cost(details)
            tracked.attempt.end(host_cost=host_cost, **facts)


def _repeats(facts: Mapping[str, Any], around: OpenOperation | None) -> Mapping[str, Any]:
    """What a framework around knows of a first try here: which of its own tries it is."""
    is_first = facts["attempt"] == 1 and "retry_of" not in facts
    return {} if around is None or not is_first else around.retry


def _result(tracked: Tracked, details: Details, response: object) -> dict[str, Any]:
    """What the reply says; of an answer that LiteLLM made up, nothing about a provider.

    Whether it is an agent's step is inferred by a framework around, which sees the same reply and
    knows what it forced.
    """
    facts = reply.facts_of(details, response)
    if any(not name.startswith("litellm:") for name in tracked.attempt.operation_ids):
        for inferred in ("cause", "cause_source", "initiator"):
            facts.pop(inferred, None)
    named = tracked.stream.executed_model if tracked.stream is not None else None
    if named is not None:
        facts["executed_model"] = model_name(named, facts["provider"])
    if tracked.is_mock:
        for invented in ("usage", "usage_source", "raw_usage", "response_id", "delivered_usage"):
            facts.pop(invented, None)
    return facts


def _say_cost(tracked: Tracked, details: Details) -> None:
    """LiteLLM prices an async reply after it was handed over, and so after our END."""
    cost = reply.host_cost(details)
    if tracked.cost_said or tracked.is_mock or cost is None or tracked.retry_reason is not None:
        return
    tracked.cost_said = True
    tracked.attempt.evidence(layer="gateway", host_cost=cost, **_SOURCE)


def _fail(details: Details, error: BaseException | None) -> None:
    """End the attempt as failed, once. A request refused before any attempt makes no event."""
    tracked = tracked_on(details)
    if tracked is None or tracked.attempt.ended:
        return
    details = tracked.record(details)
    tracked.retry_reason = failure.retry_reason(error)
    facts = failure.facts_of(details, error)
    tracked.attempt.fail(error, **({**facts, **MOCK} if tracked.is_mock else facts))
    failed = predecessor(tracked)
    if failed is not None and "model_group" in Asked(details).metadata:
        remember_failure(details.get("litellm_trace_id"), failed)


def _operations(details: Details) -> tuple[str, ...]:
    """LiteLLM's call id, and the outer instrument's run if one encloses this call."""
    call_id, enclosing = details.get("litellm_call_id"), enclosing_operation()
    own = (f"litellm:{call_id}",) if call_id else ()
    return own if enclosing is None else (*own, *enclosing.operation_ids)
