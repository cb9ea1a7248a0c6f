"""Adapters that are wrong on purpose: the suite tests itself.

Each is the manual adapter with one mistake that a real adapter made, and names the scenario that
must catch it. None of this is for use.
"""

from __future__ import annotations

from costspan.conformance.broken.adapter import Broken
from costspan.conformance.broken.amounts import (
    CountsCachedTwice,
    CountsEveryChoice,
    GuessesInSilence,
    IgnoresTheTier,
    MissingIsZero,
    PricesTheRequested,
)
from costspan.conformance.broken.calls import (
    CountsRetriesOnce,
    DropsFailures,
    LosesCancelledStreams,
    MergesByCallId,
    MergesByResponseId,
    PostsTwice,
    SwallowsExceptions,
)
from costspan.conformance.broken.owners import (
    AllIsDirect,
    LosesThreads,
    TenantAtTheEnd,
    TrustsAClaim,
)

__all__ = ["BROKEN", "Broken"]

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
