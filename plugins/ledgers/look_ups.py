"""What readers ask of a settlement, beside what a settler asks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

from costspan.core.journal.records import Close, FreePostings
from costspan.core.settle.entries import Posting, RollUp, Sum
from costspan.core.settle.settlement import Settlement
from costspan.plugins.ledgers.control_rows import Kept


class LookUps(Settlement, Protocol):
    """The look-ups of a ledger's settlement, used only to read."""

    def kept_controls(self, kind: str | None = None) -> list[Kept]:
        """The control records kept, all or of one kind, in the order they came."""
        ...

    def closes(self) -> list[Close]:
        """Every close, the earliest period first."""
        ...

    def free_postings(self, period: str | None, owner: str | None) -> Iterator[FreePostings]:
        """The records of free postings of a period, and about an owner, where named."""
        ...

    def price_book_bytes(self, sha256: str) -> bytes:
        """A kept price-book snapshot as it was kept."""
        ...

    def numbers(self, oids: Collection[str]) -> dict[str, int]:
        """Oid -> its row of the journal, whether it is there or not; known writers' alone."""
        ...

    def writer_names(self, writer_ids: Collection[int]) -> dict[int, tuple[str, int]]:
        """Writer -> (name, epoch)."""
        ...

    def archived_digests(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Row of the journal -> digest, of those of these rows that are archived."""
        ...

    def find_postings(
        self, where: str, *bound: Any, at_most: int = -1
    ) -> list[tuple[int, Posting]]:
        """(number, posting) in order of number; `where` is a condition of our own."""
        ...

    def each_posting(self, where: str, *bound: Any) -> Iterator[tuple[int, Posting]]:
        """As `find_postings`, of any number of them."""
        ...

    def roll_ups(
        self, owner: str | None, period: str | None, posted_period: str | None
    ) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on."""
        ...

    def added_up(self) -> Iterator[RollUp]:
        """What `roll_ups` should say, added up from the postings themselves."""
        ...

    def sums(
        self, by: Sequence[str], since_day: str | None, until_day: str | None, **only: str | None
    ) -> Iterator[tuple[tuple[str, ...], Sum]]:
        """The lines added up by some fields of `Line`."""
        ...
