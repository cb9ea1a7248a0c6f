"""Which rules and price books decide an event: the policy in force when it started."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from costspan.core.decide import RuleSet
from costspan.core.join import Event
from costspan.core.journal.records import POLICY_BOOKS, Policy, Restatement
from costspan.core.prices import ChargeBook, Prices
from costspan.core.settle.settlement import Settlement


class InForce(NamedTuple):
    """What decides an event."""

    rules: RuleSet
    prices: Prices
    charges: ChargeBook | None


_LOADED_MAX = 16
_Books = tuple[str, ...]
_Key = tuple[str, _Books, str | None]
_loaded: dict[_Key, InForce] = {}
"""By content hashes, so it holds for every ledger: a process drains every few seconds, and reading
the price books takes longer than settling what came in between."""


class Policies:
    """Every policy of a ledger, loaded when an event needs it."""

    def __init__(self, settlement: Settlement) -> None:
        self._settlement = settlement
        self._policies = settlement.policies()
        self._starts = [policy.effective_from for policy in self._policies]
        self._books: dict[tuple[_Books | None, _Books], _Books] = {}

    def at(self, event: Event, restated: Restatement | None = None) -> InForce:
        """The policy in force when the event started; the first one for anything before it.

        A restatement's rules, books and charges go before it.
        """
        policy = self.policy_at(event)
        rules, books, charges = policy.rules, policy.books, policy.charges
        if restated is not None:
            rules = restated.rules or rules
            books = self._restated_books(restated.books, books)
            charges = restated.charges or charges
        return self._load((rules, books, charges))

    def policy_at(self, event: Event) -> Policy:
        """The record of the policy in force when the event started."""
        return self._policies[max(0, bisect_right(self._starts, event.at_ns or 0) - 1)]

    def _restated_books(self, said: _Books | None, own: _Books) -> _Books:
        """A restatement's list, the policy's own books where it leaves a place for them."""
        if said is None or POLICY_BOOKS not in said:
            return own if said is None else said
        if (said, own) not in self._books:
            names = {sha: name for sha, name, _ in self._settlement.price_book_versions()}
            taken = {names[sha] for sha in said if sha != POLICY_BOOKS}
            place = said.index(POLICY_BOOKS)
            behind = [sha for sha in own if names[sha] not in taken]
            self._books[said, own] = (*said[:place], *behind, *said[place + 1 :])
        return self._books[said, own]

    def _load(self, key: _Key) -> InForce:
        found = _loaded.get(key)
        if found is None:
            rules, books, charges = key
            found = InForce(
                self._settlement.rule_set(rules),
                Prices([self._settlement.price_book(sha256) for sha256 in books]),
                None if charges is None else self._settlement.charge_book(charges),
            )
            if len(_loaded) >= _LOADED_MAX:
                _loaded.clear()
            _loaded[key] = found
        return found
