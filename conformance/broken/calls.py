"""What is a call, and how many there were: mistakes about events."""

from __future__ import annotations

from typing import Any

from costspan.adapter import Attempt, new_attempt_id
from costspan.conformance.broken.adapter import Broken, EndOnly, NoFailures
from costspan.conformance.drivers.meter import Meter
from costspan.conformance.suite.driver import Ask, Reply


class DropsFailures(Broken):
    """What did not succeed was never there, though the provider bills it."""

    name = "drops-failures"
    meter = NoFailures
    fault = "a call that fails or is cancelled leaves no trace"
    caught_by = "C03-async"
    says = "leaves no trace"


class _LastTryOnly(NoFailures):
    """Only the try that succeeded is metered."""


class CountsRetriesOnce(Broken):
    """The provider bills a try that failed; the adapter sees one call."""

    name = "counts-retries-once"
    meter = _LastTryOnly
    fault = "retries are counted once"
    caught_by = "F07-sync"
    says = "tries are merged"


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


class _ByResponse(EndOnly):
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


class _NoCancelledStreams(NoFailures):
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
