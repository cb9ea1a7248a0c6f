"""What a ledger must offer: a journal that forgets nothing, and a place for derived books.

What settles into it holds a `settlement.Settlement`; everything else here is read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

from costspan.core.decide import RuleSet
from costspan.core.invoices.store import InvoiceStore
from costspan.core.journal.records import (
    Close,
    Control,
    FreePostings,
    Policy,
)
from costspan.core.ledger_errors import LedgerError
from costspan.core.ledger_urls import shown_url
from costspan.core.prices import ChargeBook, PriceBook, PriceRow
from costspan.core.privacy.archive import Archive
from costspan.core.privacy.persons import PersonStore
from costspan.core.schema import Observation
from costspan.core.settle.entries import Posting, RollUp, Settled, Sum
from costspan.core.settle.settlement import Settlement


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
    raise LedgerError(f"no plugin opens ledgers of scheme {scheme!r}: {shown_url(url)}")
