"""The policies and prices that a ledger kept, by the time they were in force."""

from __future__ import annotations

from bisect import bisect_right

from costspan.core.journal.records import Policy
from costspan.core.ledger_errors import LedgerError
from costspan.core.prices import PriceBook, PriceError, Prices
from costspan.core.settle.ledger import Ledger


class KeptPolicies:
    """Every policy of a ledger, read once."""

    def __init__(self, ledger: Ledger) -> None:
        self.policies, _, self._books = ledger.policy_parts()
        self._starts = [policy.effective_from for policy in self.policies]
        self._prices: dict[tuple[str, ...], Prices] = {}

    @property
    def books(self) -> list[PriceBook]:
        """Every snapshot, each once."""
        return list(self._books.values())

    def at(self, at_ns: int) -> Policy | None:
        """The policy that decides what started then (ns UTC); None if nothing was ever decided."""
        if not self.policies:
            return None
        return self.policies[max(0, bisect_right(self._starts, at_ns) - 1)]

    def prices_at(self, at_ns: int) -> Prices:
        """The price books in force then, in their order of precedence.

        Raises:
            LedgerError: if the ledger's policy names two books of one id.
        """
        policy = self.at(at_ns)
        hashes = () if policy is None else policy.books
        if hashes not in self._prices:
            try:
                self._prices[hashes] = Prices([self._books[sha256] for sha256 in hashes])
            except PriceError as error:
                raise LedgerError(f"the ledger's price policy cannot be used: {error}") from error
        return self._prices[hashes]
