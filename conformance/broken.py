"""Adapters that are wrong on purpose: the suite tests itself.

Each is the manual adapter with one mistake that a real adapter made, and names the scenario that
must catch it. None of this is for use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

from costspan.adapter import Attempt, Context, new_attempt_id
from costspan.conformance.drivers.manual import Manual
from costspan.conformance.drivers.meter import Meter
from costspan.conformance.suite.driver import CLAIMS, Ask, Reply, Who
from costspan.core.context import current, derive


class Broken(Manual):
    """An adapter with a fault.

    Attributes:
        fault: The mistake, in words.
        caught_by: The scenario, and the mode, that was made for it.
        says: Words that the failure message must have, so that a reader finds the mistake.
    """

    fault: ClassVar[str]
    caught_by: ClassVar[str]
    says: ClassVar[str]


class _EndOnly(Meter):
    """Writes nothing before the request leaves."""

    def start(self) -> Attempt:
        return Attempt(None, (), None, {"layer": "manual", **self.intent()})


class _NoFailures(_EndOnly):
    def end(self) -> Reply:
        self.attempt.attempt_id = new_attempt_id()
        return super().end()

    def fail(self, error: BaseException) -> None:
        """A failure is no event."""


class DropsFailures(Broken):
    """What did not succeed was never there, though the provider bills it."""

    name = "drops-failures"
    meter = _NoFailures
    fault = "a call that fails or is cancelled leaves no trace"
    caught_by = "C03-async"
    says = "leaves no trace"


class _OneForAllTries(Meter):
    def start(self) -> Attempt:
        attempt = Attempt(None, (), None, {"layer": "manual", **self.intent()})
        attempt.attempt_id = self.tried.before[0] if self.tried.before else new_attempt_id()
        return attempt


class MergesByCallId(Broken):
    """A retry has its call's id, so the call's tries are one event."""

    name = "merges-by-call-id"
    meter = _OneForAllTries
    fault = "all tries of a call are merged into one event"
    caught_by = "F07-async"
    says = "tries are merged"


class _Latest(_EndOnly):
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


class _CachedTwice(Meter):
    def tokens(self) -> dict[str, int] | None:
        found = super().tokens()
        if found and "cache_read" in found:
            found["input"] += found["cache_read"]
        return found


class CountsCachedTwice(Broken):
    """The input that a provider reports has the cached tokens inside."""

    name = "counts-cached-twice"
    meter = _CachedTwice
    fault = "cached tokens are counted as input too"
    caught_by = "M01-async"
    says = "cached tokens are counted twice"


class _ByResponse(_EndOnly):
    def result(self) -> dict[str, Any]:
        facts = super().result()
        self.attempt.attempt_id = f"response-{facts['response_id']}"
        return facts


class MergesByResponseId(Broken):
    """Providers and proxies repeat and invent response ids."""

    name = "merges-by-response-id"
    meter = _ByResponse
    fault = "the response id is taken for the identity of a call"
    caught_by = "H06-sync"
    says = "replies of one id are merged"


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


class _MissingIsZero(Meter):
    def tokens(self) -> dict[str, int] | None:
        return super().tokens() or {"input": 0, "output": 0}


class MissingIsZero(Broken):
    """A stream that never told its usage was free."""

    name = "missing-is-zero"
    meter = _MissingIsZero
    fault = "usage that never came is booked as 0"
    caught_by = "S02-sync"
    says = "missing usage for 0"


class _Guessing(Meter):
    def tokens(self) -> dict[str, int] | None:
        return super().tokens() or {"input": len(self.ask.prompt) // 4, "output": 7}


class GuessesInSilence(Broken):
    """An estimate that does not say so."""

    name = "guesses-in-silence"
    meter = _Guessing
    fault = "an estimate passes for the provider's usage"
    caught_by = "S02-async"
    says = "guess is taken for the provider's report"


class _Twice(Meter):
    def end(self) -> Reply:
        reply = super().end()
        again = Attempt.start(context=self.attempt.context, **self.intent())
        again.end(**self.result())
        return reply


class PostsTwice(Broken):
    """The success callback comes once for the call and once for its stream."""

    name = "posts-twice"
    meter = _Twice
    fault = "a late callback is a second event"
    caught_by = "C01-sync"
    says = "2.00 of what it should be"


class _NoCancelledStreams(_NoFailures):
    def end(self) -> Reply:
        return Reply() if self.has_left else super().end()


class LosesCancelledStreams(Broken):
    """Who leaves a stream early has it for nothing."""

    name = "loses-cancelled-streams"
    meter = _NoCancelledStreams
    fault = "a stream whose reader leaves is lost"
    caught_by = "S05-async"
    says = "lost"


class SwallowsExceptions(Broken):
    """The host's caller never learns that its call failed."""

    name = "swallows-exceptions"
    fault = "the host's exception is swallowed"
    caught_by = "F08-sync"
    says = "the host's exception never reached its caller"

    def ask(self, ask: Ask) -> Reply:
        """Make a call; nobody hears of its failure."""
        try:
            return super().ask(ask)
        except Exception:
            return Reply()

    async def aask(self, ask: Ask) -> Reply:
        """Make a call on the event loop; nobody hears of its failure."""
        try:
            return await super().aask(ask)
        except Exception:
            return Reply()


class _RequestedOnly(Meter):
    def result(self) -> dict[str, Any]:
        return {**super().result(), "executed_model": self.ask.call.model}


class PricesTheRequested(Broken):
    """The model is what was asked for, whoever answered."""

    name = "prices-the-requested"
    meter = _RequestedOnly
    fault = "the cost is that of the model asked for, not of the one that answered"
    caught_by = "F10-async"
    says = "priced as"


class _EveryChoice(Meter):
    def tokens(self) -> dict[str, int] | None:
        found = super().tokens()
        return found and {name: count * self.ask.call.n for name, count in found.items()}


class CountsEveryChoice(Broken):
    """Each of n answers repeats the usage of the whole call."""

    name = "counts-every-choice"
    meter = _EveryChoice
    fault = "the usage is counted once for each of n answers"
    caught_by = "C10-sync"
    says = "each choice is priced"


class _NoTier(Meter):
    def result(self) -> dict[str, Any]:
        return {**super().result(), "tier": None}


class IgnoresTheTier(Broken):
    """Batch and flex cost half, priority more."""

    name = "ignores-the-tier"
    meter = _NoTier
    fault = "the service tier is dropped, so the base price is taken"
    caught_by = "M06-sync"
    says = "tier is not read"


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


class _LastTryOnly(_NoFailures):
    """Only the try that succeeded is metered."""


class CountsRetriesOnce(Broken):
    """The provider bills a try that failed; the adapter sees one call."""

    name = "counts-retries-once"
    meter = _LastTryOnly
    fault = "retries are counted once"
    caught_by = "F07-sync"
    says = "tries are merged"


BROKEN: tuple[type[Broken], ...] = (
    DropsFailures,
    CountsRetriesOnce,
    MergesByCallId,
    TenantAtTheEnd,
    LosesThreads,
    CountsCachedTwice,
    MergesByResponseId,
    TrustsAClaim,
    MissingIsZero,
    GuessesInSilence,
    PostsTwice,
    LosesCancelledStreams,
    SwallowsExceptions,
    PricesTheRequested,
    CountsEveryChoice,
    IgnoresTheTier,
    AllIsDirect,
)
"""Every broken adapter; each must fail on the scenario that it names, and say why."""
