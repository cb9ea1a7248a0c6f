"""Ledgers that are wrong on purpose: the suite tests itself.

Each is SQLite's with one mistake that a real store made, or could make, and names the test that
must catch it. None of this is for use.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import ClassVar

import msgspec

from costspan.conformance.ledgers.sqlite import SqliteLedgers
from costspan.core.schema import Observation
from costspan.core.settle.entries import Amount, Appended, Posting, RollUp, Settled
from costspan.plugins.ledgers.sqlite.settlement import SqliteSettlement
from costspan.plugins.ledgers.sqlite.store import SqliteLedger


class BrokenLedger(SqliteLedger):
    """Gives settlers other hands than its own."""

    hands: type[SqliteSettlement] = SqliteSettlement

    @contextmanager
    def settling(self, timeout_seconds: float) -> Generator[SqliteSettlement]:
        """The same lease."""
        with super().settling(timeout_seconds):
            yield self.hands(self.connection, self._contents, self._lines)


class BrokenLedgers(SqliteLedgers):
    """Ledgers with a fault, which the first line of each class names.

    Attributes:
        broken: The ledger.
        hands: What settles in it.
        caught_by: The test that was made for it.
        says: Words that the failure message must have, so that a reader finds the mistake.
    """

    broken: ClassVar[type[BrokenLedger]] = BrokenLedger
    hands: ClassVar[type[SqliteSettlement]] = SqliteSettlement
    caught_by: ClassVar[str]
    says: ClassVar[str]

    @classmethod
    def ledger(cls, url: str, *, create: bool = True) -> SqliteLedger:
        """Opened without a plugin."""
        opened = cls.broken(url.removeprefix("sqlite:///"), create=create)
        opened.hands = cls.hands
        return opened


class _Forgetful(SqliteSettlement):
    def post(self, postings: Collection[Posting]) -> None:
        super().post(list(postings)[:-1] if len(postings) > 2 else postings)


class LosesAPosting(BrokenLedgers):
    """A posting of a larger batch is lost."""

    name = "loses-a-posting"
    hands = _Forgetful
    caught_by = "test_overlapping_batches_count_once"
    says = "amounts are lost or doubled"


class _Repeating(SqliteSettlement):
    def append(self, observations: Collection[Observation]) -> Appended:
        known = {seen.oid for seen in self.observations([seen.oid or "" for seen in observations])}
        again = [
            msgspec.structs.replace(seen, oid=f"{seen.oid}0", writer=None, seq=None,
                                    attempt_id=f"{seen.attempt_id} again")
            for seen in observations
            if seen.oid in known and seen.attempt_id is not None
        ]  # fmt: skip
        return super().append([*observations, *again])


class CountsADuplicate(BrokenLedgers):
    """A record that comes again in another batch is counted again."""

    name = "counts-a-duplicate"
    hands = _Repeating
    caught_by = "test_a_batch_twice_is_a_batch"
    says = "duplicates are not noticed"


class _LetsIn(BrokenLedger):
    @contextmanager
    def settling(self, timeout_seconds: float) -> Generator[SqliteSettlement]:
        connection = self.connection
        connection.execute("PRAGMA busy_timeout = 60000")
        connection.execute("BEGIN DEFERRED")  # the lock is asked for with the first row written
        try:
            self._notice_rebuild()
            yield SqliteSettlement(connection, self._contents, self._lines)
            connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise


class LetsTwoSettle(BrokenLedgers):
    """Two settlers decide upon the same state of the books."""

    name = "lets-two-settle"
    broken = _LetsIn
    caught_by = "test_while_one_settles_others_are_told_that_it_is_busy"
    says = "two settle at once"


class _CommitsHalves(BrokenLedger):
    @contextmanager
    def settling(self, timeout_seconds: float) -> Generator[SqliteSettlement]:
        with super().settling(timeout_seconds) as settlement:
            try:
                yield settlement
            except ZeroDivisionError:
                self.connection.execute("COMMIT")
                raise


class KeepsHalves(BrokenLedgers):
    """A settlement that fails is not taken back."""

    name = "keeps-halves"
    broken = _CommitsHalves
    caught_by = "test_what_fails_in_the_middle_leaves_nothing"
    says = "a settlement that failed left something"


class _Floats(BrokenLedger):
    def roll_ups(
        self, period: str | None = None, owner: str | None = None, posted_period: str | None = None
    ) -> Iterator[RollUp]:
        for each in super().roll_ups(period, owner, posted_period):
            yield each._replace(cost=int(float(each.cost)), charge=int(float(each.charge)))


class CountsInFloats(BrokenLedgers):
    """Sums are rounded to 53 bits."""

    name = "counts-in-floats"
    broken = _Floats
    caught_by = "test_totals_above_what_an_int64_holds_in_pico"
    says = "roll-up"


class _Overflowing(SqliteSettlement):
    def post(self, postings: Collection[Posting]) -> None:
        half = 2**62
        super().post([
            each._replace(amount=Amount(min(each.amount.cost, half), min(each.amount.charge, half)))
            for each in postings
        ])  # fmt: skip


class ClampsAmounts(BrokenLedgers):
    """An amount above what a column holds is cut."""

    name = "clamps-amounts"
    hands = _Overflowing
    caught_by = "test_totals_above_what_an_int64_holds_in_pico"
    says = "roll-up"


class _Deaf(SqliteSettlement):
    def waiting(self, keys: Collection[str]) -> set[str]:
        return set()


class ForgetsEvidence(BrokenLedgers):
    """Evidence that came before its event is not joined to it."""

    name = "forgets-evidence"
    hands = _Deaf
    caught_by = "test_whichever_witness_comes_first"
    says = "somebody pays for another"


class _Restless(BrokenLedger):
    @contextmanager
    def snapshot(self) -> Generator[None]:
        yield


class HasNoSnapshots(BrokenLedgers):
    """A report shows half of a settlement."""

    name = "has-no-snapshots"
    broken = _Restless
    caught_by = "test_a_reader_sees_one_state_of_the_books"
    says = "a snapshot changed"


class _Locale(BrokenLedger):
    def events(self, ids: Collection[str] | None = None) -> Iterator[Settled]:
        yield from sorted(super().events(ids), key=lambda each: each.event.id.casefold())


class SortsByLocale(BrokenLedgers):
    """The order of texts depends on where the store runs."""

    name = "sorts-by-locale"
    broken = _Locale
    caught_by = "test_texts_come_back_as_they_went"
    says = "order of events"


class _Unsealing(SqliteSettlement):
    def closed_until(self) -> str | None:
        return None


class PostsIntoClosedMonths(BrokenLedgers):
    """Late truth changes a month that is sealed."""

    name = "posts-into-closed-months"
    hands = _Unsealing
    caught_by = "test_late_truth_is_posted_in_the_open_month"
    says = "what was sealed changed"


BROKEN: tuple[type[BrokenLedgers], ...] = (
    LosesAPosting,
    CountsADuplicate,
    LetsTwoSettle,
    KeepsHalves,
    CountsInFloats,
    ClampsAmounts,
    ForgetsEvidence,
    HasNoSnapshots,
    SortsByLocale,
    PostsIntoClosedMonths,
)
"""Every broken ledger; each must fail on the test that it names, and say why."""
