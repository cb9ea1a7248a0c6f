"""Who the current work is for: one frozen object in one ContextVar.

`attribute` names the owner, `bind` fills a request's holder after authentication, `work` and
`tool` name a step, `carry` and `ContextExecutor` take the context into threads, `detached` frees a
long-lived worker. The object is captured when a call STARTS and kept on its record: nothing here is
ever set and reset across a `yield` of the host.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token, copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import msgspec

from costspan.core import schema
from costspan.core.clean import Invalid, tenant_id
from costspan.core.counters import count

P = ParamSpec("P")
R = TypeVar("R")

_TRUST = {"assignment": 0, "principal": 1, "signed": 2, "delegating_principal": 3, "context": 4}
TRUST_OF_NOTHING = 9


class Holder:
    """The write-once owner of one request, filled by `bind` from wherever authentication happens.

    It is shared by reference, so what a threadpool copy of the context fills, the request sees.
    `touched` says that an attempt ran under the request: only then is the request itself recorded.
    `ask` fills it once a middleware further in has authenticated: asked whenever the owner matters,
    until it answers True.
    """

    __slots__ = ("_lock", "ask", "session", "tenant", "touched", "user")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.tenant: str | None = None
        self.session: str | None = None
        self.user: str | None = None
        self.touched = False
        self.ask: Callable[[], bool] | None = None

    def look(self) -> None:
        """Ask who has been authenticated by now."""
        ask, self.ask = self.ask, None  # whatever it calls does not ask again
        if ask is not None and not ask():
            self.ask = ask

    def fill(self, tenant: str | None, session: str | None, user: str | None) -> bool:
        """Write what is not written yet; False (and nothing of the clashing field) on a clash."""
        agreed = True
        with self._lock:
            for name, value in (("tenant", tenant), ("session", session), ("user", user)):
                if value is None:
                    continue
                held = getattr(self, name)
                if held is None:
                    setattr(self, name, value)
                elif held != value:
                    agreed = False
        return agreed


class Context(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """What the current work belongs to. `parent` is the attempt id that encloses it.

    `caller_trace` is the trace id that the caller of the request named: a stranger's choice. It has
    a `__dict__` beside its fields, in which the adapter API remembers what it records of them.
    """

    tenant: str | None = None
    tenant_source: schema.TenantSource | None = None
    session: str | None = None
    session_origin: schema.Origin | None = None
    user: str | None = None
    feature: str | None = None
    labels: Mapping[str, str] | None = None
    request_id: str | None = None
    client_request_id: str | None = None
    caller_trace: str | None = None
    cause: schema.Cause | None = None
    initiator: schema.Initiator | None = None
    name: str | None = None
    parent: str | None = None
    parent_origin: schema.Origin | None = None
    holder: Holder | None = None
    flags: tuple[str, ...] = ()

    def owner(self) -> tuple[str | None, schema.TenantSource | None]:
        """The tenant and its source: the more trusted of what was attributed and what was bound."""
        holder = self.holder
        if holder is not None and holder.ask is not None:
            holder.look()
        bound = holder.tenant if holder is not None else None
        if bound is None or _trust(self.tenant_source) <= _TRUST["principal"]:
            return self.tenant, self.tenant_source
        return bound, "principal"


NOTHING = Context()
_current: ContextVar[Context] = ContextVar("costspan_context", default=NOTHING)
_OTEL_KEY = "costspan-context"
_has_mirrored: set[bool] = set()
"""Not empty, once a context was mirrored: before that none need be looked for."""


def _trust(source: str | None) -> int:
    return _TRUST.get(source or "", TRUST_OF_NOTHING)


def current() -> Context:
    """The context in force here; `NOTHING` if there is none.

    Where a thread lost our variable but OpenTelemetry's own context was carried into it, the
    mirror under an OpenTelemetry key is used.
    """
    context = _current.get()
    if context is NOTHING and _has_mirrored:
        return mirrored() or NOTHING
    return context


def mirrored(otel_context: Any = None) -> Context | None:
    """The context mirrored in OpenTelemetry's own: in `otel_context`, else in the one in force."""
    if (otel := _otel()) is None:
        return None
    found = otel.get_value(_OTEL_KEY, otel_context)
    return found if isinstance(found, Context) else None


def _otel() -> Any:
    """OpenTelemetry's context module if the host has it loaded; never imported by us.

    While another thread is importing it, the module is there before its functions are.
    """
    module = sys.modules.get("opentelemetry.context")
    return module if module is not None and hasattr(module, "detach") else None


class scope:
    """`with scope(context)`: the context in force, here and in what is started from here.

    Left in another context than it was entered in (a generator finalised elsewhere), it leaves
    that other context alone and counts it.
    """

    __slots__ = ("_context", "_otel", "_otel_token", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._token: Token[Context] | None = None
        self._otel: Any = None
        self._otel_token: Any = None

    def __enter__(self) -> Context:
        self._token = _current.set(self._context)
        self._otel = otel = _otel()
        if otel is not None:
            _has_mirrored.add(True)
            self._otel_token = otel.attach(otel.set_value(_OTEL_KEY, self._context))
        return self._context

    def __exit__(self, *_: object) -> None:
        try:
            if self._token is not None:
                _current.reset(self._token)
            if self._otel_token is not None:
                self._otel.detach(self._otel_token)
        except ValueError:
            count("context_left_elsewhere")


def derive(base: Context, **changes: Any) -> Context:
    """A copy of `base` with these fields changed; a new parent is not of the old one's origin."""
    if "parent" in changes:
        changes.setdefault("parent_origin", None)
    return msgspec.structs.replace(base, **changes)


def with_owner(
    base: Context,
    tenant: object,
    source: schema.TenantSource,
    *,
    session: str | None = None,
    session_origin: schema.Origin = "ours",
    **changes: Any,
) -> Context:
    """`base` owned by `tenant`, unless `base` has a more trusted owner (that is counted).

    A tenant id that is none leaves the work without an owner, flagged `tenant_invalid`.
    """
    if session is not None:
        changes["session"] = session
        changes["session_origin"] = session_origin
    if tenant is not None:
        held, held_source = base.owner()
        outranked = held is not None and _trust(held_source) < _trust(source)
        try:
            name = tenant_id(tenant)
        except Invalid:
            count("tenant_invalid")
            changes["flags"] = (*changes.get("flags", base.flags), "tenant_invalid")
            if not outranked:
                changes.update(tenant=None, tenant_source=None)
            return derive(base, **changes)
        if not outranked:
            changes.update(tenant=name, tenant_source=source)
        elif held != name:
            count("tenant_disagreement")
    return derive(base, **changes)


@contextmanager
def attribute(
    tenant: str | None = None,
    session: str | None = None,
    user: str | None = None,
    feature: str | None = None,
    request_id: str | None = None,
    labels: Mapping[str, object] | None = None,
) -> Generator[Context]:
    """Everything started inside belongs to `tenant` (and to this session, user, feature).

    What is not given is inherited. Inside a request with an authenticated principal that may not
    delegate, the principal stays the tenant, and the disagreement is counted.
    """
    base = current()
    changes: dict[str, Any] = {}
    if user is not None:
        changes["user"] = user
    if feature is not None:
        changes["feature"] = feature
    if request_id is not None:
        changes["request_id"] = request_id
    if labels is not None:
        try:
            added = {str(k): str(v) for k, v in labels.items()}
        except Exception:  # no mapping, or a hostile __str__: the host's call goes on
            count("labels_invalid")
            changes["flags"] = (*base.flags, "invalid:labels")
        else:
            changes["labels"] = {**(base.labels or {}), **added}
    with scope(with_owner(base, tenant, "context", session=session, **changes)) as context:
        yield context


def bind(tenant: str | None = None, session: str | None = None, user: str | None = None) -> bool:
    """Name the owner of the current request once authentication knows it.

    Works from sync and async FastAPI dependencies, because the request's holder is shared by
    reference. The first value stays; a clash, an invalid tenant or a missing request returns
    False and is counted.
    """
    holder = current().holder
    if holder is None:
        count("bind_outside_request")
        return False
    if tenant is not None:
        try:
            tenant = tenant_id(tenant)
        except Invalid:
            count("tenant_invalid")
            return False
    holder.look()
    agreed = holder.fill(tenant, session, user)
    if not agreed:
        count("bind_disagreement")
    return agreed


@contextmanager
def work(
    cause: schema.Cause, initiator: schema.Initiator | None = None, name: str | None = None
) -> Generator[Context]:
    """What is started inside has this cause, said explicitly.

    The initiator is the platform for overhead causes, the user for what a user asks for directly,
    and the agent otherwise, unless given.
    """
    changes: dict[str, Any] = {"cause": cause, "initiator": initiator or schema.initiator_of(cause)}
    if name is not None:
        changes["name"] = name
    with scope(derive(current(), **changes)) as context:
        yield context


@contextmanager
def detached(*, keep_owner: bool = False) -> Generator[Context]:
    """Free what is started inside from the request that started it.

    A worker that lives longer than the request must not pin the first request's tenant for ever.
    With `keep_owner` the tenant, session and user stay and only the request and the step go.
    """
    base = current()
    fresh = Context(caller_trace=base.caller_trace)  # the trace around us stays whose it is
    if keep_owner:
        tenant, source = base.owner()
        bound = base.holder or Holder()
        session, origin = base.session, base.session_origin
        if origin == "signed" and tenant != base.tenant:
            session = origin = None  # signed beside another owner than the one that was bound
        fresh = Context(
            tenant=tenant,
            tenant_source=source,
            session=session or bound.session,
            session_origin=origin or ("ours" if bound.session else None),
            user=base.user or bound.user,
            feature=base.feature,
            labels=base.labels,
            caller_trace=base.caller_trace,
        )
    with scope(fresh) as context:
        yield context


def carry(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, to be run anywhere (a thread, a pre-warmed pool) with the context of here.

    A coroutine function becomes one whose body runs with it, in a task of its own.
    """
    from inspect import iscoroutinefunction

    captured = copy_context()
    if iscoroutinefunction(function):
        # Calling it only makes the coroutine: its body runs in a task, which gets the context.
        @wraps(function)
        async def carried_there(*args: P.args, **kwargs: P.kwargs) -> Any:
            import asyncio

            coroutine = function(*args, **kwargs)
            return await asyncio.create_task(coroutine, context=captured.copy())

        return cast("Callable[P, R]", carried_there)

    @wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        # A Context object can be entered once at a time: each call runs in a copy of its own.
        return captured.copy().run(function, *args, **kwargs)

    return carried
