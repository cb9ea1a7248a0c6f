"""Under which name a model is compared: dated names, aliases and provider prefixes meet."""

from __future__ import annotations

from functools import lru_cache

from costspan.core.prices import Match, Prices
from costspan.core.prices.names import canonical_provider, undated
from costspan.core.settle.ledger import Ledger

_CACHED = 4096
_NS_PER_DAY = 86_400 * 10**9


class Models:
    """Names of models, by the price books that decided the ledger's latest events.

    Both sides are asked the same question, so that two names of one model meet whatever the books
    know of it; names that differ by a date alone are one model here.
    """

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.named = lru_cache(_CACHED)(self._named)

    def _named(self, name: str | None, provider: str) -> str:
        """The name to compare under, "" for none."""
        if not name:
            return ""
        for verdict in self.prices.explain(name, provider or None):
            row = verdict.row or next(iter(verdict.others), None)
            if row is not None:
                return undated(row.model)
        prefix, _, rest = name.partition("/")
        named = canonical_provider(prefix)
        if rest and named in (None, provider, "models"):
            return undated(rest)
        return undated(name)


class Rows:
    """Price rows by id, compiled, as they priced the ledger's events."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.match = lru_cache(_CACHED)(self._match)

    def _match(self, row_id: str) -> Match | None:
        found = self._ledger.price_row(row_id)
        return None if found is None else Match(found[0], found[1], ())


def prices_of(ledger: Ledger) -> Prices:
    """The books of the policy that is in force now; none if the ledger has no policy."""
    policies, _, books = ledger.policy_parts()
    return Prices([books[sha256] for sha256 in policies[-1].books] if policies else [])
