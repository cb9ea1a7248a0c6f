"""The events that a restatement is about: as they stand before it, and what it changes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import msgspec

from costspan.core.decide.decision import PLATFORM
from costspan.core.journal.records import POLICY_BOOKS, Control, Restatement
from costspan.core.prices import PriceBook
from costspan.core.settle.corrections import restated
from costspan.core.settle.entries import Amount, Settled
from costspan.core.settle.posting import effective_of
from costspan.core.settle.settle import settle
from costspan.core.settle.settlement import Settlement

SELF_HOSTED = "self-hosted "
"""How the ids of the books of self-hosted models begin: a restatement of prices keeps them."""
_EVENTS_AT_ONCE = 5000
TIMEOUT_SECONDS = 30

Tell = Callable[[int], None]


class RestateError(ValueError):
    """What cannot be restated; the text says why. Nothing was changed."""


class Change(msgspec.Struct, frozen=True):
    """What a restatement did, or would do.

    Attributes:
        recorded: whether it stands in the books now: not if it was tried only, or changed nothing
            that stood already.
        events: how many events were decided again.
        changed: how many of them have other amounts, or another owner, than before.
        postings: how many entries were posted.
        differences: owner -> what was added to its cost and charge (pico-USD), where anything was.
        books: hashes of the price books that decide from now on, in order, `POLICY_BOOKS` for those
            of the policy in force for an event; empty if these alone do.
        notes: what is worth knowing.
    """

    recorded: bool
    events: int
    changed: int
    postings: int
    differences: dict[str, Amount]
    books: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Target(NamedTuple):
    """What is restated: exactly one of an event's id and a period (YYYY-MM)."""

    event: str | None
    period: str | None

    @property
    def name(self) -> str:
        """What restatements of it are found by."""
        return self.event or self.period or ""


class Hand(NamedTuple):
    """Whose hand it is, why, and when (ns UTC)."""

    by: str
    reason: str
    at_ns: int

    def check(self) -> None:
        """Refuse a hand without a name.

        Raises:
            RestateError: if it does not say who, or why.
        """
        if not self.by.strip() or not self.reason.strip():
            raise RestateError("say who does it and why: every hand that moves money has a name")


class TriedOnlyError(Exception):
    """Carries what would be out of a settlement that is rolled back."""

    def __init__(self, change: Change) -> None:
        super().__init__("tried only")
        self.change = change


class Scope:
    """The events that a restatement is about, before and after.

    Attributes:
        in_force: what decides them now instead of the policies; None if they do.
        without: what would, if nothing had been said of the event alone.
        said_at: when the latest word was said of the period or any of its events (ns UTC).
    """

    def __init__(self, settlement: Settlement, target: Target) -> None:
        self.settlement = settlement
        self.target = target
        if target.period is not None:
            self._ids = sorted(settlement.in_period(target.period))
            self.in_force = settlement.restatements((target.period,)).get(target.period)
            self.without = None
            self.said_at = self._said_at()
            return
        found = settlement.settled((target.event or "",))
        if not found:
            raise RestateError(f"there is no event {target.event}")
        self._ids = list(found)
        self.in_force = restated(settlement, found).get(target.name)
        (each,) = found.values()
        period, _ = effective_of(each.event, each.decision)
        self.without = settlement.restatements((period,)).get(period)
        self.said_at = None if self.in_force is None else self.in_force.recorded_at

    def events(self) -> Iterator[Settled]:
        """The events as they stand, in order of id."""
        period = self.target.period
        for at in range(0, len(self._ids), _EVENTS_AT_ONCE):
            found = self.settlement.settled(self._ids[at : at + _EVENTS_AT_ONCE])
            for event_id in sorted(found):
                each = found[event_id]
                if period is None or effective_of(each.event, each.decision)[0] == period:
                    yield each

    def book_in_force(self, name: str) -> PriceBook | None:
        """The price book of this id that a restatement put in force; None if none did."""
        names = self._names()
        hashes = () if self.in_force is None else self.in_force.books or ()
        found = [sha256 for sha256 in hashes if names.get(sha256) == name]
        return self.settlement.price_book(found[0]) if found else None

    def in_front_of_policy(self, sha256: str) -> tuple[str, ...]:
        """This book, then those of the policy in force for each event.

        Books of self-hosted models that the period was restated with before are kept.
        """
        already = () if self.in_force is None else self.in_force.books or ()
        names = self._names()
        hosted = [sha for sha in already if names.get(sha, "").startswith(SELF_HOSTED)]
        return _in_front(sha256, [*hosted, POLICY_BOOKS], names)

    def in_front_of_now(self, sha256: str) -> tuple[str, ...]:
        """This book, then those that decide now."""
        already = None if self.in_force is None else self.in_force.books
        behind = (POLICY_BOOKS,) if already is None else already
        return _in_front(sha256, behind, self._names())

    def _names(self) -> dict[str, str]:
        return {sha: name for sha, name, _ in self.settlement.price_book_versions()}

    def record_like_now(self, hand: Hand, books: tuple[str, ...]) -> Restatement:
        """The record that puts other books in force, and leaves the rest as it is."""
        now = self.in_force
        rules, charges = (None, None) if now is None else (now.rules, now.charges)
        event, period = self.target
        at_ns = self._after(hand.at_ns)
        return Restatement(event, period, rules, books, hand.by, hand.reason, at_ns, charges)

    def record(
        self,
        hand: Hand,
        rules: str | None,
        books: tuple[str, ...] | None,
        charges: str | None,
    ) -> Restatement | None:
        """The record to keep; None if it takes back what was never restated."""
        if self.said_at is None and rules is None and books is None and charges is None:
            return None
        event, period = self.target
        at_ns = self._after(hand.at_ns)
        return Restatement(event, period, rules, books, hand.by, hand.reason, at_ns, charges)

    def _after(self, at_ns: int) -> int:
        """The latest counts, whatever the clock says."""
        return at_ns if self.said_at is None else max(at_ns, self.said_at + 1)

    def _said_at(self) -> int | None:
        found = [] if self.in_force is None else [self.in_force.recorded_at]
        if self.settlement.has_restatements():
            events = self.events()
            while some := {each.event.id: each for each in islice(events, _EVENTS_AT_ONCE)}:
                found += [each.recorded_at for each in restated(self.settlement, some).values()]
        return max(found, default=None)

    def is_repeated(self, record: Restatement | None) -> bool:
        """Whether the record says again what the one in force says."""
        if record is None:
            return True
        now = self.in_force
        stands = (None, None, None) if now is None else (now.rules, now.books, now.charges)
        return stands == (record.rules, record.books, record.charges)

    def settle(self, records: Sequence[Control], tell: Tell | None) -> Change:
        """Settle records, and say what changed by it."""
        sums, stood = self._stands()
        report = settle(self.settlement, [], records, progress=tell)
        now, stands = self._stands()
        differences: dict[str, Amount] = {}
        for owner in sorted(sums.keys() | now.keys()):
            was, new = sums.get(owner, [0, 0]), now.get(owner, [0, 0])
            if was != new:
                differences[owner] = Amount(new[0] - was[0], new[1] - was[1])
        changed = sum(stood.get(event_id) != value for event_id, value in stands.items())
        return Change(False, len(stands), changed, report.postings, differences)

    def _stands(self) -> tuple[dict[str, list[int]], dict[str, int]]:
        """Owner -> (cost, charge); and what stands for each event, in a word."""
        sums: dict[str, list[int]] = {}
        stands: dict[str, int] = {}
        for each in self.events():
            stands[each.event.id] = hash(each.posted)
            for line, amount in each.posted:
                total = sums.setdefault(line.owner, [0, 0])
                total[0] += amount.cost
                total[1] += amount.charge
        return sums, stands


def _in_front(sha256: str, behind: Sequence[str], names: dict[str, str]) -> tuple[str, ...]:
    """The book takes its namesake's place."""
    others = (sha for sha in dict.fromkeys(behind) if names.get(sha) != names[sha256])
    return (sha256, *others)


def with_platform(change: Change, cost: int, entries: int) -> Change:
    """The change with entries on the platform's account in it, pico-USD."""
    differences = dict(change.differences)
    was = differences.pop(PLATFORM, Amount(0, 0))
    if was.cost + cost or was.charge:
        differences[PLATFORM] = Amount(was.cost + cost, was.charge)
    postings = change.postings + entries
    return msgspec.structs.replace(change, postings=postings, differences=differences)


class Tried:
    """What a settlement came to, whether it was kept or rolled back."""

    change: Change


@contextmanager
def trying() -> Generator[Tried]:
    """Catches what rolls a settlement back, and keeps what it says."""
    tried = Tried()
    try:
        yield tried
    except TriedOnlyError as error:
        tried.change = error.change


def keep_only_what_counts(change: Change, is_repeated: bool, dry_run: bool) -> None:
    """Roll back what is only tried, and what says again what stands already.

    Raises:
        TriedOnlyError: which `trying` catches outside of the settlement.
    """
    if dry_run or (is_repeated and not change.postings):
        raise TriedOnlyError(change)
