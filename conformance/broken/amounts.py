"""What a call cost: mistakes about usage, models and tiers."""

from __future__ import annotations

from typing import Any

from costspan.conformance.broken.adapter import Broken
from costspan.conformance.drivers.meter import Meter


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
