"""Building the books anew from the journal: the derived tables are thrown away, nothing else.

The new books are complete before they take the old ones' place, and the nets of every owner, bucket
and period are compared first: books that differ are refused and named, not swapped in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from costspan.core.config import Config
from costspan.core.drain import RECORDS_PER_SETTLEMENT
from costspan.core.journal.records import Close, Control, FreePostings
from costspan.core.ledger_errors import LedgerError
from costspan.core.settle import Report, settle
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.settle import withdraw_copied

T = TypeVar("T")

Nets = dict[tuple[str, str, str], tuple[int, int]]
"""(owner, bucket, effective period) -> (cost, charge) in pico-USD."""


def nets(ledger: Ledger) -> Nets:
    """The books by owner, bucket and effective period, without what nets to nothing."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for roll_up in ledger.roll_ups():
        line = roll_up.line
        total = sums.setdefault((line.owner, line.bucket, line.effective_period), [0, 0])
        total[0] += roll_up.cost
        total[1] += roll_up.charge
    return {key: (cost, charge) for key, (cost, charge) in sums.items() if cost or charge}


def copy_books(
    old: Ledger,
    new: Ledger,
    gateways: tuple[str, ...] = (),
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Settle the whole journal of one ledger into another, under the same policies.

    What was sealed by a close, or given to a sink, stands in other people's books: all entries of
    such an event are copied as they are, with their numbers. Everything else is decided and posted
    anew, on top of it.

    Args:
        old: The ledger whose journal is read.
        new: An empty ledger.
        gateways: Those that the old one was settled with, beside the marks in the journal.
        progress: Called after every settlement with what is done so far.
    """
    _, rules, books = old.policy_parts()
    before: list[Control] = []
    sealing: list[Control] = []  # free postings last: in which month they are posted depends on it
    for each in old.controls():
        (sealing if isinstance(each, Close | FreePostings) else before).append(each)
    with new.settling(30.0) as settlement:
        for rule_set in rules.values():
            settlement.keep_rule_set(rule_set)
        for book in books.values():
            settlement.keep_price_book(book)
        for charges in old.charge_books().values():
            settlement.keep_charge_book(charges)
        report = settle(settlement, [], before)
    closed_until = max((close.period for close in old.closes()), default="")
    taken = max(old.cursors().values(), default=0)
    for kept in _batches(old.given_away(closed_until, taken)):
        with new.settling(30.0) as settlement:
            settlement.copy_postings(kept)
    with new.settling(30.0) as settlement:
        settle(settlement, [], sealing)
        for sink, number in old.cursors().items():
            settlement.move_cursor(sink, number)
    for batch in _batches(old.journal()):
        with new.settling(30.0) as settlement:
            report.add(settle(settlement, batch, gateways=gateways))
        if progress is not None:
            progress(report)
    with new.settling(30.0) as settlement:
        report.postings += withdraw_copied(settlement)
    return report


def _batches(records: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(records, RECORDS_PER_SETTLEMENT)):
        yield batch


class Differs(Exception):
    """The rebuilt books differ: a sign of a bug or of tampering, so the old ones stay."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__(f"{len(differences)} lines differ")
        self.differences = differences


def rebuild(settings: Config, progress: Callable[[Report], None] | None = None) -> Report:
    """Rebuild the ledger of the settings in place, in one transaction.

    Raises:
        Differs: if the nets came out different; the old books stay.
        LedgerMissing: if there is no ledger.
        LedgerError: if it cannot be read or written; the old one is as it was.
    """
    ledger = open_url(settings.ledger_url, create=False)
    try:
        if archived := ledger.archive.count():
            raise LedgerError(
                f"{archived:,} observations of the ledger stand in an archive: say where it is"
                " (costspan rebuild --archive DIR)"
            )
        # Nobody may settle into books that are about to be replaced: the lease is held throughout.
        with ledger.rebuilding() as fresh:
            report = copy_books(ledger, fresh, progress=progress)
            before, after = nets(ledger), nets(fresh)
            differences = [
                f"{' '.join(key)}: was {before.get(key)}, rebuilt {after.get(key)}"
                for key in sorted(before.keys() | after.keys())
                if before.get(key) != after.get(key)
            ]
            if differences:
                raise Differs(differences)
        return report
    finally:
        ledger.close()
