"""The callback: LiteLLM's hooks in the order in which they fire, each a few lines.

Parameter names are LiteLLM's (it calls by keyword). The hooks for single stream chunks and for
rewriting a stream are left alone on purpose: they fire once a chunk, twice on sync streams, and an
override of the streaming hook breaks the proxy's wire.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from importlib.metadata import version
from typing import Any, TypeVar, cast

import litellm
from litellm.exceptions import BadRequestError
from litellm.integrations.custom_logger import CustomLogger

from costspan.adapter import Attempt, current, enclosing_operation
from costspan.adapters.litellm import batch, failure, reply, request
from costspan.adapters.litellm.request import Asked
from costspan.adapters.litellm.tracking import (
    Details,
    Tracked,
    call_name,
    failed_attempts,
    kind_of,
    predecessor,
    track,
    tracked_on,
)
from costspan.core.counters import count

H = TypeVar("H", bound=Callable[..., Any])

_SOURCE = {"source": "litellm", "source_version": version("litellm")}
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
        include_stream_usage: Ask providers that can for the usage of an async stream
            (`stream_options.include_usage`) where the caller did not set `stream_options`. The
            caller then sees one more chunk, which carries the usage. Without it LiteLLM
            guesses the tokens, or reports none. Sync streams offer no place to ask: pass
            `stream_options={"include_usage": True}` yourself.
        principal: On the proxy, the authenticated fields that name the tenant, best first.
    """

    def __init__(
        self,
        *,
        include_stream_usage: bool = True,
        principal: Sequence[str] = ("user_api_key_team_id", "user_api_key_org_id"),
    ) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]  # LiteLLM's untyped kwargs
        self._include_stream_usage = include_stream_usage
        self._principal = tuple(principal)

    # Before I/O. Async calls pass here; what skips it (sync calls) passes `log_pre_api_call`.

    async def async_pre_call_deployment_hook(
        self, kwargs: dict[str, Any], call_type: Any
    ) -> dict[str, Any] | None:
        """Write the intent of one async attempt; may ask a stream for its usage."""
        self._begin_with(kwargs, call_type)
        return self._with_stream_usage(kwargs, call_type)

    @_guarded
    def _begin_with(self, kwargs: dict[str, Any], call_type: object) -> None:
        details = _details_of(kwargs)
        if details is not None:
            self._begin(details, call_type, kwargs)

    @_guarded
    def _with_stream_usage(
        self, kwargs: dict[str, Any], call_type: object
    ) -> dict[str, Any] | None:
        if not (
            self._include_stream_usage
            and kwargs.get("stream") is True
            and kwargs.get("stream_options") is None
            and call_name(call_type) in ("completion", "text_completion")
            and _knows_stream_options(kwargs)
        ):
            return None
        return {**kwargs, "stream_options": {"include_usage": True}}

    @_guarded
    def log_pre_api_call(self, model: Any, messages: Any, kwargs: Any) -> None:
        """Write the intent of an attempt that no hook announced: sync calls."""
        if _NOTHING_SENT not in kwargs:
            self._begin(kwargs, kwargs.get("call_type"), None)

    # After the reply. The deployment hooks run in the caller's task, so what they write is safe
    # before the caller sees the reply; LiteLLM's logging queue is lost when the loop ends early.

    @_guarded
    async def async_post_call_success_deployment_hook(
        self, request_data: Any, response: Any, call_type: Any
    ) -> None:
        """End an async attempt, except a stream: its usage is known when it has been read."""
        details = _details_of(request_data)
        if details is None or details.get("stream") is True or hasattr(response, "__anext__"):
            return
        tracked = tracked_on(details)
        if tracked is not None and not tracked.attempt.ended:
            tracked.attempt.end(**reply.facts_of(details, response))

    @_guarded
    async def async_post_call_failure_deployment_hook(
        self,
        request_data: Mapping[str, Any],
        exception: Exception,
        call_type: Any,
        fallback_depth: int | None = None,
    ) -> None:
        """End each failed async attempt; the proxy's failure event knows only the first."""
        details = _details_of(request_data)
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
        context, owned = request.owner_of(asked, current(), self._principal)
        attempt = Attempt.start(
            layer="gateway",
            kind=kind,
            operation_ids=_operations(details),
            context=context,
            **_SOURCE,
            **facts,
            **owned,
        )
        tracked = Tracked(attempt, facts["attempt"], facts["requested_model"])
        track(details, tracked)
        return tracked

    def _succeed(self, details: Details, response: object) -> None:
        call_type = details.get("call_type")
        if batch.is_batch(call_type):
            context, owned = request.owner_of(Asked(details), current(), self._principal)
            batch.record(details, response, context, {"layer": "gateway", **_SOURCE, **owned})
            return
        tracked = tracked_on(details)
        if tracked is None:
            # A sync cache hit starts nothing before it ends, and runs outside the caller's context.
            tracked = self._begin(details, call_type, None)
            if tracked is None:
                return
            if details.get("cache_hit") is not True:
                count("litellm:start_unseen")
        if tracked.attempt.ended:
            _say_cost(tracked, details)
        elif details.get("cache_hit") is True:
            tracked.cost_said = True
            tracked.attempt.end(**reply.cached_facts(details))
        else:
            tracked.cost_said = True
            facts = reply.facts_of(details, response)
            tracked.attempt.end(host_cost=reply.host_cost(details), **facts)


def _say_cost(tracked: Tracked, details: Details) -> None:
    """LiteLLM prices an async reply after it was handed over, and so after our END."""
    cost = reply.host_cost(details)
    if tracked.cost_said or cost is None or tracked.retry_reason is not None:
        return
    tracked.cost_said = True
    tracked.attempt.evidence(layer="gateway", host_cost=cost, **_SOURCE)


def _fail(details: Details, error: BaseException | None) -> None:
    """End the attempt as failed, once. A request refused before any attempt makes no event."""
    tracked = tracked_on(details)
    if tracked is None or tracked.attempt.ended:
        return
    tracked.retry_reason = failure.retry_reason(error)
    tracked.attempt.fail(error, **failure.facts_of(details, error))
    failed, trace = predecessor(tracked), details.get("litellm_trace_id")
    if failed is not None and isinstance(trace, str) and "model_group" in Asked(details).metadata:
        failed_attempts.remember(trace, failed)


def _operations(details: Details) -> tuple[str, ...]:
    """LiteLLM's call id, and the outer instrument's run if one encloses this call."""
    call_id, enclosing = details.get("litellm_call_id"), enclosing_operation()
    own = (f"litellm:{call_id}",) if call_id else ()
    return own if enclosing is None else (*own, *enclosing.operation_ids)


def _details_of(arguments: Mapping[str, Any]) -> Details | None:
    """LiteLLM's record of the call whose arguments these are."""
    details = getattr(arguments.get("litellm_logging_obj"), "model_call_details", None)
    return cast("Details", details) if isinstance(details, dict) else None


def _knows_stream_options(arguments: Mapping[str, Any]) -> bool:
    """Whether LiteLLM passes `stream_options` on to this model, rather than refusing the call."""
    details = _details_of(arguments) or {}
    model = arguments.get("model") or details.get("model")
    try:
        name, provider, *_ = litellm.get_llm_provider(
            model=str(model or ""),
            custom_llm_provider=arguments.get("custom_llm_provider"),
            api_base=arguments.get("api_base") or arguments.get("base_url"),
        )
    except BadRequestError:  # LiteLLM will say so itself
        return False
    known = cast(
        "list[str] | None",
        litellm.get_supported_openai_params(  # pyright: ignore[reportUnknownMemberType]  # bare list
            model=name, custom_llm_provider=provider
        ),
    )
    return "stream_options" in (known or ())
