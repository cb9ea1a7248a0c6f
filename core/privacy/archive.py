"""What a ledger must offer for its old observations to be moved into an archive, and back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Protocol

from costspan.core.schema import Observation


class Archive(Protocol):
    """The archived observations of a ledger. Whatever writes does so in the caller's settlement."""

    def count(self) -> int:
        """How many observations are archived."""
        ...

    def choose(self, events: Iterable[tuple[str, Collection[str], bool]]) -> int:
        """Choose the observations that may go; how many.

        Given every event as (id, oids of what speaks of it, whether it may go). An observation
        goes if all events it speaks of may go, and nothing that stays could ever be joined
        differently without it.
        """
        ...

    def chosen(self) -> Iterator[Observation]:
        """What was chosen, in the order of the journal."""
        ...

    def take_away(self, archived: Iterable[Observation]) -> int:
        """Put digests in the place of what an archive holds by now; how many."""
        ...

    def bring_back(self, archived: Iterable[Observation]) -> int:
        """Put archived observations into the journal again, those that are the very same."""
        ...

    def contested(self) -> list[Observation]:
        """The other payloads of the oids that came back, taken out of the conflicts.

        What was archived stood, whatever came: now the same one wins as if it had never gone.
        """
        ...

    def late(self) -> list[Observation]:
        """What was set aside because it speaks of archived events."""
        ...
