"""Starlette, FastAPI and any other ASGI application: every request gets an owner and a lineage.

    app.add_middleware(AttributionMiddleware, resolve=tenant_of)

`resolve` names the owner from what the application has authenticated. An application that
authenticates in a FastAPI dependency leaves it out and calls `costspan.bind` there. Nothing that a
stranger can write (a header, baggage, `traceparent`, the query) names an owner, a cause or a cost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from inspect import isawaitable
from typing import Any, TypeAlias

import msgspec

from costspan.adapter import Context, context_fields, evidence, new_attempt_id, tracing
from costspan.adapters.asgi.signed import SignedContext
from costspan.core.clean import Invalid, tenant_id
from costspan.core.context import NOTHING, Holder, derive
from costspan.core.context import scope as in_force
from costspan.core.counters import count
from costspan.core.schema import TenantSource

__all__ = ["AttributionMiddleware", "Later", "Owner"]

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_MOUNTED = "costspan.attribution"
_NOWHERE: Mapping[str, str] = {}
CLIENT_REQUEST_ID_CHARS_MAX = 128
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


class Owner(msgspec.Struct, frozen=True):
    """Who a request belongs to, as the application authenticated it.

    `may_delegate` marks a principal that acts for others (a gateway, a batch service): its own
    tenant then yields to a context that is signed for another tenant, and to `costspan.bind`.
    """

    tenant: str | None
    session: str | None = None
    user: str | None = None
    feature: str | None = None
    labels: Mapping[str, str] | None = None
    may_delegate: bool = False


_NOBODY = Owner(None)


class Later(msgspec.Struct, frozen=True):
    """Nobody has authenticated yet: ask `again` when the owner matters (it may answer so again).

    What is asked later may name the tenant, session and user; a delegate is not taken from it.
    """

    again: Callable[[], Owner | str | Later | None]


_AT_ONCE = frozenset({str, Owner, Later, type(None)})
Resolved: TypeAlias = Owner | str | Later | None
Resolve: TypeAlias = Callable[[Scope], Resolved | Awaitable[Resolved]]


class AttributionMiddleware:
    """Puts the request's owner and lineage in force for everything that runs under the request.

    A request under which an attempt ran is recorded itself, as one observation of kind `request`:
    attempts made before `costspan.bind` named the owner find it there, through their parent.

    Args:
        app: The ASGI application inside.
        resolve: Given the ASGI scope, the owner (or its tenant id alone), or None; sync or async.
            If it raises or answers something else, the request goes on without an owner, counted.
        record_requests: Whether requests are recorded. Without them, an attempt that ended before
            `costspan.bind` stays unattributed.
        signed: How to believe the signed contexts of other services; without it they are ignored.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        resolve: Resolve | None = None,
        record_requests: bool = True,
        signed: SignedContext | None = None,
    ) -> None:
        self.app = app
        self._resolve = resolve
        self._record_requests = record_requests
        self._signed = signed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the request's context in force; its exceptions pass as is."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if _MOUNTED in scope:  # the outer one speaks for the request
            count("asgi_mounted_twice")
            await self.app(scope, receive, send)
            return
        scope[_MOUNTED] = True
        started_at = time.time_ns()
        client_request_id, caller_trace = _links(scope.get("headers", ()))
        span = tracing.current_span()  # the server's, where its instrumentation is outside of us
        place: Mapping[str, str] = _NOWHERE
        if span is not None or caller_trace is not None:
            place = tracing.request_links(span, caller_trace)
        presented = None if self._signed is None else self._signed.take(scope)
        request_id = new_attempt_id(started_at)
        holder = Holder()
        context = NOTHING
        error_type: str | None = None
        owner: Owner | None = None
        try:
            if self._resolve is not None:
                answer = _asked(self._resolve, scope)
                if type(answer) not in _AT_ONCE:
                    answer = await _awaited(answer)
                named = _named(answer)
                if isinstance(named, Later):
                    holder.ask = _asking(named, holder)
                else:
                    owner = named
            # Fresh, whatever the server's task inherited: a request is a boundary of trust.
            context = _owned(owner or _NOBODY, request_id, client_request_id, holder)
            if presented is not None:
                context = presented.judge(owner, context, is_recorded=self._record_requests)
            if place:
                by_caller = place["trace_id"] if place["trace_origin"] == "caller" else None
                context = derive(context, caller_trace=caller_trace or by_caller)
            if span is not None:
                tracing.mark_request(span, context)
            with in_force(context):
                await self.app(scope, receive, send)
        except BaseException as error:
            error_type = type(error).__qualname__
            raise
        finally:
            scope.pop(_MOUNTED, None)
            if holder.ask is not None:
                _ask_last(holder)
            if span is not None and context.tenant is None and holder.tenant is not None:
                tracing.mark_request(span, context)
            came_with = {} if presented is None else presented.request_facts(context)
            if holder.touched and self._record_requests:
                _record(context, scope, started_at, {**place, **came_with}, error_type)


def _links(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """The client's request id, if it is fit to be kept, and the trace id of its `traceparent`.

    Both are links for a reader, never identity.
    """
    request_id: bytes | None = None
    trace_id: str | None = None
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value
        elif name == b"traceparent":
            if found := _TRACEPARENT.fullmatch(value):
                trace_id = found[1].decode()
            else:
                count("traceparent_invalid")
    if request_id is None:
        return None, trace_id
    text = request_id.decode("latin-1")
    if 0 < len(text) <= CLIENT_REQUEST_ID_CHARS_MAX and text.isascii() and text.isprintable():
        return text, trace_id
    count("client_request_id_invalid")
    return None, trace_id


def _asked(resolve: Resolve, scope: Scope) -> object:
    """What `resolve` says, which may be to await; None if it raises (counted)."""
    try:
        return resolve(scope)
    except Exception:
        count("resolve_failed")
        return None


async def _awaited(answer: object) -> object:
    try:
        return await answer if isawaitable(answer) else answer
    except Exception:
        count("resolve_failed")
        return None


def _named(answer: object) -> Owner | Later | None:
    """What a resolver answered, if it makes sense; None and a count if not."""
    if isinstance(answer, str):
        return Owner(answer)
    if answer is None or isinstance(answer, (Owner, Later)):
        return answer
    count("resolve_invalid")
    return None


def _owned(owner: Owner, request_id: str, client_request_id: str | None, holder: Holder) -> Context:
    """The context of a request that `owner` makes; what of it is invalid is left out and counted.

    The holder learns what is authenticated, so that a later `bind` of another owner is refused
    and counted; not the tenant of a delegate, which may still yield.
    """
    tenant: str | None = None
    labels: dict[str, str] | None = None
    flags: tuple[str, ...] = ()
    try:
        if owner.tenant is not None:
            tenant = tenant_id(owner.tenant)
    except Invalid:
        count("tenant_invalid")
        flags = ("tenant_invalid",)
    try:
        if owner.labels is not None:
            labels = {str(key): str(value) for key, value in owner.labels.items()}
    except Exception:
        count("labels_invalid")
        flags = (*flags, "invalid:labels")
    source: TenantSource = "delegating_principal" if owner.may_delegate else "principal"
    holder.tenant = None if owner.may_delegate else tenant
    holder.session, holder.user = owner.session, owner.user
    return Context(
        tenant=tenant,
        tenant_source=None if tenant is None else source,
        session=owner.session,
        session_origin=None if owner.session is None else "ours",
        user=owner.user,
        feature=owner.feature,
        labels=labels,
        request_id=request_id,
        client_request_id=client_request_id,
        parent=request_id,
        holder=holder,
        flags=flags,
    )


def _asking(later: Later, holder: Holder) -> Callable[[], bool]:
    """What fills `holder` as soon as `later` has an owner to name; it says whether it is done."""

    def ask() -> bool:
        nonlocal later
        try:
            owner = _named(later.again())
        except Exception:
            count("resolve_failed")
            return True
        if isinstance(owner, Later):
            later = owner
            return False
        if owner is not None:
            _fill(holder, owner)
        return True

    return ask


def _fill(holder: Holder, owner: Owner) -> None:
    """Write down who was authenticated inside; a delegate would be believed too much there."""
    tenant: str | None = None
    try:
        if owner.may_delegate:
            count("late_delegate")
        elif owner.tenant is not None:
            tenant = tenant_id(owner.tenant)
    except Invalid:
        count("tenant_invalid")
    if not holder.fill(tenant, owner.session, owner.user):
        count("bind_disagreement")


def _ask_last(holder: Holder) -> None:
    """At the end of a request: whoever has not authenticated by now never will."""
    holder.look()
    if holder.ask is not None:
        holder.ask = None  # and the request's scope is let go
        if holder.touched:
            count("resolve_never_ready")


def _record(
    context: Context,
    scope: Scope,
    started_at: int,
    place: Mapping[str, Any],
    error_type: str | None,
) -> None:
    """Record the finished request with the owner known by now (principal, or what was bound)."""
    try:
        facts = context_fields(context)
        facts.update(
            attempt_id=context.request_id,
            parent=None,
            parent_origin=None,
            layer="framework",
            source="asgi",
            kind="request",
            name=_route_template(scope),
            started_at=started_at,
            ended_at=time.time_ns(),
            provider_result="ok" if error_type is None else "failed",
            error_type=error_type,
        )
        facts.update(place)
        evidence(**facts)
    except Exception as error:
        count(f"asgi_record_failed:{type(error).__name__}")


def _route_template(scope: Scope) -> str | None:
    """The template the router matched (`/chats/{chat_id}`), never the raw path with its ids."""
    try:
        template: object = scope["route"].path
    except Exception:  # no router, or a route of a kind without a template
        return None
    return template if isinstance(template, str) else None
