"""Whose a call is, and why it was made: mistakes about the context."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar

from costspan.adapter import Attempt, Context, new_attempt_id
from costspan.conformance.broken.adapter import Broken, EndOnly
from costspan.conformance.drivers.manual import Manual
from costspan.conformance.drivers.meter import Meter
from costspan.conformance.suite.driver import CLAIMS, Reply, Who
from costspan.core.context import current, derive


class _Latest(EndOnly):
    """Reads the owner when the callback comes: by then the variable is somebody else's."""

    _latest: ClassVar[dict[str | None, Context]] = {}

    def start(self) -> Attempt:
        self._latest[current().tenant] = current()
        return super().start()

    def end(self) -> Reply:
        self.attempt.attempt_id = new_attempt_id()
        mine = current().tenant
        others = [context for tenant, context in self._latest.items() if tenant != mine]
        self.attempt.context = (others or [current()])[-1]
        return super().end()


class TenantAtTheEnd(Broken):
    """One variable for the whole process: whoever came last pays."""

    name = "tenant-at-the-end"
    meter = _Latest
    fault = "the owner is read when the call ends"
    caught_by = "C01-async"
    says = "the owner is read when the call ends"


_thread = threading.local()


class _ThreadLocal(Meter):
    def start(self) -> Attempt:
        context: Context = getattr(_thread, "context", Context())
        return Attempt.start(context=context, **self.intent())


class LosesThreads(Broken):
    """A pool that was warm before the request knows nothing of it."""

    name = "loses-threads"
    meter = _ThreadLocal
    fault = "the owner is kept in a variable of the thread"
    caught_by = "W07-sync"
    says = "threads know nobody's context"

    def serve(self, who: Who, body: Callable[[], None]) -> None:
        """Keep the owner where only this thread finds it."""

        def kept() -> None:
            _thread.context = current()
            body()

        super().serve(who, kept)


class _Believing(Meter):
    def start(self) -> Attempt:
        context = derive(current(), tenant=CLAIMS["tenant"]) if self.ask.call.claims else None
        return Attempt.start(context=context, **self.intent())


class TrustsAClaim(Broken):
    """A header names the tenant, and anybody can write one."""

    name = "trusts-a-claim"
    can = Manual.can | {"claims_headers", "claims_metadata"}
    meter = _Believing
    fault = "what a caller asserts names the tenant"
    caught_by = "H05-async"
    says = "is believed"


class _AllDirect(Meter):
    def start(self) -> Attempt:
        context = derive(current(), cause="primary", initiator="user")
        return Attempt.start(context=context, **self.intent())


class AllIsDirect(Broken):
    """Whatever runs in a tenant's context is that tenant's wish."""

    name = "all-is-direct"
    meter = _AllDirect
    fault = "agent work and overhead are booked as direct user work"
    caught_by = "W01-async"
    says = "overhead"
