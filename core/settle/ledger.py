"""What a ledger must offer: a journal that forgets nothing, and a place for derived books.

A ledger decides nothing. It keeps observations by their oid, finds them by the ids they name, keeps
one `Settled` per event, and appends postings. One settler at a time holds a `Settlement`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

from costspan.core.decide import RuleSet
from costspan.core.invoices.store import InvoiceStore
from costspan.core.journal.records import (
    Assignment,
    Close,
    Control,
    FreePostings,
    Policy,
    Restatement,
)
from costspan.core.ledger_errors import LedgerError
from costspan.core.prices import ChargeBook, PriceBook, PriceRow
from costspan.core.privacy.archive import Archive
from costspan.core.privacy.persons import PersonStore
from costspan.core.schema import Observation
from costspan.core.settle.entries import Appended, Posted, Posting, RollUp, Settled, Sum


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
        """Keep control records; returns those not kept before."""
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


class Ledger(Protocol):
    """A store of the books."""

    url: str

    def settling(self, timeout_seconds: float) -> AbstractContextManager[Settlement]:
        """Hold the settler's lease.

        Raises:
            LedgerBusy: if another settler holds it longer than this.
        """
        ...

    def rebuilding(self) -> AbstractContextManager[Ledger]:
        """An empty ledger to fill; left normally, its books replace this one's, all at once.

        Holds the settler's lease throughout. Leaving with an exception changes nothing.
        """
        ...

    def snapshot(self) -> AbstractContextManager[None]:
        """One state of the books for everything that is read within."""
        ...

    def roll_ups(
        self,
        period: str | None = None,
        owner: str | None = None,
        posted_period: str | None = None,
    ) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on.

        Those of one effective period, of one owner, or posted in one period, where named.
        """
        ...

    def added_up(self) -> Iterator[RollUp]:
        """What `roll_ups` should say: the same lines, added up from the postings themselves."""
        ...

    def sums(
        self,
        by: Sequence[str],
        *,
        period: str | None = None,
        owner: str | None = None,
        since_day: str | None = None,
        until_day: str | None = None,
    ) -> Iterator[tuple[tuple[str, ...], Sum]]:
        """The lines added up by some fields of `Line`, named as there ('' for no pool).

        Those of one effective period, of one owner, of days from `since_day` on and before
        `until_day` (YYYY-MM-DD; a line without day is before all, one of free postings is of the
        end of its effective period), where named. An event that
        stands on several lines of a group counts that often: `untold` has those events.
        """
        ...

    def untold(self) -> Iterator[Settled]:
        """The events of which the lines do not tell all, in no order.

        Those open, swept, of unknown cost, or standing on several lines.
        """
        ...

    def unknown(self, owner: str, period: str) -> int:
        """How many events of unknown cost would stand in this period for this owner."""
        ...

    def events(self, ids: Collection[str] | None = None) -> Iterator[Settled]:
        """Every event, or these; in order of id."""
        ...

    def find_events(self, name: str, at_most: int = 10_000) -> list[str]:
        """The ids of the events of this id, request, trace, span, operation, response or session.

        So many at most; looks at none but those.
        """
        ...

    def search_events(self, name: str) -> list[str]:
        """The ids of the events of what no index has; looks at every event.

        The caller's request id, or an operation id without its `HOST:`.
        """
        ...

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        ...

    def named(self, name: str) -> list[str]:
        """The events that a parent reference of this name could mean."""
        ...

    def reading(self) -> Settlement:
        """The settler's look-ups, used only to read."""
        ...

    def postings(self, event_id: str) -> list[Posting]:
        """The entries of an event, oldest first."""
        ...

    def postings_after(self, number: int, at_most: int) -> list[tuple[int, Posting]]:
        """(number, posting) of those numbered higher than this, in order; committed ones only."""
        ...

    def given_away(self, closed_until: str, number: int) -> Iterator[tuple[int, Posting]]:
        """(number, posting) of every event that has an entry which others rely on, in order.

        One posted up to and with a closed period, or numbered up to what a sink has taken.
        """
        ...

    def sealed(self, period: str, after: str | None = None) -> Iterator[tuple[int, Posting]]:
        """(number, posting) of those posted up to and with `period`, and after period `after`."""
        ...

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        ...

    def free_postings(
        self, period: str | None = None, owner: str | None = None
    ) -> Iterator[FreePostings]:
        """The records of free postings in the order they came.

        Those of one effective period, and with a line of one owner, where named.
        """
        ...

    def compact(self, timeout_seconds: int = 5) -> bool:
        """Write the store anew, so that what was deleted is gone from it, byte by byte.

        False where somebody reads or writes for longer than this: then it must be done again.
        """
        ...

    @property
    def persons(self) -> PersonStore:
        """Who is behind the pseudonyms; see `core.privacy`."""
        ...

    @property
    def archive(self) -> Archive:
        """What was pruned, and what could be; see `core.retention`."""
        ...

    @property
    def invoices(self) -> InvoiceStore:
        """What providers bill, beside the books; see `core.invoices`."""
        ...

    def closes(self) -> list[Close]:
        """Every close, the earliest period first."""
        ...

    def problems(self, names: Collection[str] | None = None) -> list[tuple[str, str, str]]:
        """(kind, oid, event id) of what posts nothing, or was refused; all, or of these names.

        A name is an oid or an event's id.
        """
        ...

    def counts(self, *names: str) -> dict[str, int]:
        """How many: observations, events, open, swept, unpriced, postings, refused, ….

        All of these, or those named: some take a look at every event. An event is open, or swept,
        or somebody saw its end; `unpriced` and `unmeasured` are those of unknown cost, swept ones
        included.
        """
        ...

    def damaged(self) -> Iterator[str]:
        """What is wrong with the store itself, a line each that names the place.

        Records that do not match their checksums and hashes, rows that do not say what they follow
        from. Whether the books are right is another matter: see `core.verify`.
        """
        ...

    def journal(self) -> Iterator[Observation]:
        """Every observation kept, in the order it came, losers of a conflict included."""
        ...

    def controls(self) -> list[Control]:
        """Every control record kept, in the order it came."""
        ...

    def price_row(self, row_id: str) -> tuple[PriceRow, PriceBook] | None:
        """A row of a kept price book, and that book without its rows; fast, whatever its size."""
        ...

    def policy_parts(self) -> tuple[list[Policy], dict[str, RuleSet], dict[str, PriceBook]]:
        """Every policy, rule set and price book the books were decided by, by hash."""
        ...

    def charge_books(self) -> dict[str, ChargeBook]:
        """Every charge book that a policy or a restatement names, by hash."""
        ...

    def writers(self) -> list[tuple[str, int, int]]:
        """(writer, greatest seq, records kept) of every writer."""
        ...

    def close(self) -> None:
        """Let go of the store."""
        ...


def open_url(url: str, *, create: bool) -> Ledger:
    """The ledger at `url`, opened by the plugin whose scheme it is.

    Raises:
        LedgerMissing: if there is none and `create` is false.
        LedgerError: if no plugin knows the scheme, or it cannot be opened.
    """
    from costspan.core import hooks

    for implementation in hooks.plugins().hook.open_ledger.get_hookimpls():
        try:
            ledger = cast("Ledger | None", implementation.function(url=url, create=create))
        except (LedgerError, KeyboardInterrupt):
            raise
        except BaseException as error:  # a stranger's plugin stops nobody else's ledgers
            hooks.failed(implementation.plugin_name, "open_ledger", error)
            continue
        if ledger is not None:
            return ledger
    scheme = url.partition(":")[0]
    raise LedgerError(f"no plugin opens ledgers of scheme {scheme!r}: {url}")
