"""Which rules and price books decide an event: the policy in force when it started."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from costspan.core.decide import RuleSet
from costspan.core.join import Event
from costspan.core.journal.records import Restatement
from costspan.core.prices import Prices
from costspan.core.settle.ledger import Settlement


class InForce(NamedTuple):
    """What decides an event."""

    rules: RuleSet
    prices: Prices


_LOADED_MAX = 16
_loaded: dict[tuple[str, tuple[str, ...]], InForce] = {}
"""By content hashes, so it holds for every ledger: a process drains every few seconds, and reading
the price books takes longer than settling what came in between."""


class Policies:
    """Every policy of a ledger, loaded when an event needs it."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement
        self._policies = settlement.policies()
        self._starts = [policy.effective_from for policy in self._policies]

    def at(self, event: Event, restated: Restatement | None = None) -> InForce:
        """The policy in force when the event started; the first one for anything before it.

        A restatement's rules and books go before it.
        """
        policy = self._policies[max(0, bisect_right(self._starts, event.at_ns or 0) - 1)]
        rules, books = policy.rules, policy.books
        if restated is not None:
            rules = restated.rules or rules
            books = books if restated.books is None else restated.books
        return self._load(rules, books)

    def _load(self, rules: str, books: tuple[str, ...]) -> InForce:
        key = (rules, books)
        found = _loaded.get(key)
        if found is None:
            prices = Prices([self._settlement.price_book(sha256) for sha256 in books])
            found = InForce(self._settlement.rule_set(rules), prices)
            if len(_loaded) >= _LOADED_MAX:
                _loaded.clear()
            _loaded[key] = found
        return found
