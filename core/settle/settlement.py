"""What a settler may do in one transaction: keep records, find events, write and post.

A ledger decides nothing. It keeps observations by their oid, finds them by the ids they name, keeps
one `Settled` per event, and appends postings. One settler at a time holds a `Settlement`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from costspan.core.decide import RuleSet
from costspan.core.journal.records import (
    Assignment,
    Control,
    Policy,
    Restatement,
)
from costspan.core.prices import ChargeBook, PriceBook
from costspan.core.schema import Observation
from costspan.core.settle.entries import Appended, Posted, Posting, Settled


class Settlement(Protocol):
    """One transaction of the settler that holds the lease. Leaving it normally commits it.

    A ledger decides nothing and joins nothing: it finds observations by oid and events by id, by
    the keys that `core.settle.keys` gives them, by parent, session and time.
    """

    # the journal

    def append(self, observations: Collection[Observation]) -> Appended:
        """Keep observations; an oid already kept with the same payload is a duplicate."""
        ...

    def append_control(self, records: Iterable[Control]) -> list[Control]:
        """Keep control records; returns those not kept before.

        Of the records that a writer has many of (`Opened`, `Refusals`, `Counts`) what they come to
        is kept: the greatest counts, and each host and pid once. They are not returned.
        """
        ...

    def observations(self, oids: Collection[str]) -> Iterable[Observation]:
        """The observations of these oids that are kept."""
        ...

    def has_archive(self) -> bool:
        """Whether any observation stands in an archive."""
        ...

    def archived(self, oids: Collection[str]) -> set[str]:
        """Those of these oids whose observations stand in an archive."""
        ...

    def wait(self, keys: Collection[tuple[str, str]]) -> None:
        """Make observations that speak of no event findable: (key, oid)."""
        ...

    def stop_waiting(self, keys: Collection[tuple[str, str]]) -> None:
        """Forget that these waited: (key, oid)."""
        ...

    def waiting(self, keys: Collection[str]) -> set[str]:
        """The oids that wait under any of these keys; perhaps some others, which do no harm."""
        ...

    # the events

    def settled(self, event_ids: Collection[str]) -> dict[str, Settled]:
        """The events of these ids that exist."""
        ...

    def indexed(self, keys: Collection[str]) -> dict[str, Settled]:
        """The events under any of these keys; perhaps some others: look at their names."""
        ...

    def unindexed(self, keys: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those (key, event id) of these under which the event is not found."""
        ...

    def save(self, events: Collection[Settled], keys: Collection[tuple[str, str]]) -> None:
        """Keep events as they stand, and index them: (key, event id). Keys are never taken away."""
        ...

    def forget(self, event_ids: Collection[str]) -> None:
        """Drop events that are none: everything that spoke of them speaks of others."""
        ...

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        ...

    def in_sessions(self, sessions: Collection[str]) -> set[str]:
        """The events of these sessions."""
        ...

    def started_since(self, at_ns: int) -> set[str]:
        """The events that started at or after this time."""
        ...

    def awaiting(self, what: str, until_ns: int, at_most: int) -> list[str]:
        """The open events that await this (`settle.sweep.awaited`), oldest first.

        Those that started at or before `until_ns`; one that nobody gave a time is the oldest.
        """
        ...

    def has_assignments(self) -> bool:
        """Whether any event was ever assigned."""
        ...

    def assignments(self, names: Collection[str]) -> dict[str, Assignment]:
        """Name -> the assignment in force, for those of these names that have one."""
        ...

    def has_restatements(self) -> bool:
        """Whether any event or period was ever restated."""
        ...

    def restatements(self, names: Collection[str]) -> dict[str, Restatement]:
        """Name of an event, or period -> the restatement in force, for those that have one."""
        ...

    def in_period(self, period: str) -> set[str]:
        """The events of an effective period, perhaps some others; open ones need not be there."""
        ...

    def closed_until(self) -> str | None:
        """The last period that is closed (YYYY-MM); None if none is."""
        ...

    def session_owners(self, sessions: Collection[str]) -> dict[str, str]:
        """Session -> tenant where the directory is trusted and of one mind."""
        ...

    def policies(self) -> list[Policy]:
        """Every policy record, oldest `effective_from` first."""
        ...

    def rule_set(self, sha256: str) -> RuleSet:
        """A kept rule set."""
        ...

    def price_book(self, sha256: str) -> PriceBook:
        """A kept price-book snapshot."""
        ...

    def keep_rule_set(self, rules: RuleSet) -> None:
        """Keep a rule set by its hash."""
        ...

    def keep_price_book(self, book: PriceBook) -> None:
        """Keep a price-book snapshot by its hash."""
        ...

    def charge_book(self, sha256: str) -> ChargeBook:
        """A kept charge book."""
        ...

    def keep_charge_book(self, book: ChargeBook) -> None:
        """Keep a charge book by its hash."""
        ...

    def price_book_versions(self) -> list[tuple[str, str, str | None]]:
        """(sha256, id, source version) of every kept snapshot."""
        ...

    def post(self, postings: Collection[Posting]) -> None:
        """Append postings and roll them up, in this transaction."""
        ...

    def copy_postings(self, numbered: Collection[tuple[int, Posting]]) -> None:
        """Append postings of another ledger under their own numbers, and roll them up (rebuild)."""
        ...

    def copied(self, event_ids: Collection[str] | None = None) -> dict[str, Posted]:
        """Event id -> what copied postings sum up to, of events not saved yet (None: all such)."""
        ...

    def come_to(self, event_ids: Collection[str]) -> None:
        """Copied postings of these are accounted for."""
        ...

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        ...

    def move_cursor(self, sink: str, number: int) -> None:
        """Keep that a sink has taken every posting up to this number; it never goes back."""
        ...

    def list_problems(self, problems: Mapping[str, Collection[tuple[str, str]]]) -> None:
        """Replace the listed problems of these oids: oid -> (kind, event id or '')."""
        ...
