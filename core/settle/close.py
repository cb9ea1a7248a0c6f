"""Closing a period: what is posted in it is sealed; late truth goes to the first open month."""

from __future__ import annotations

from costspan.core.journal.records import Close
from costspan.core.periods import is_period, month_after, month_of
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.merkle import root_of
from costspan.core.settle.settle import settle


class CloseError(ValueError):
    """A period that cannot be closed; the text says why. Nothing was changed."""


def close_period(
    ledger: Ledger,
    period: str,
    by: str,
    reason: str,
    now_ns: int,
    *,
    timeout_seconds: int = 30,
) -> Close:
    """Seal everything posted up to and with a period (YYYY-MM, UTC) that no close has sealed.

    The record of it keeps the Merkle root of the entries it sealed, in the order of their numbers.

    Raises:
        CloseError: if it is no period, is not over, or not after the last one that is closed.
        LedgerBusy: if another settler holds the lease longer than this.
    """
    if not is_period(period):
        raise CloseError(f"{period!r} is no period: write YYYY-MM")
    if period >= month_of(now_ns):
        raise CloseError(f"{period} is not over: it can be closed from {month_after(period)} on")
    with ledger.settling(timeout_seconds) as settlement:
        before = settlement.closed_until()
        if before is not None and period <= before:
            raise CloseError(f"{period} is closed: {before} is the last that was")
        root, postings = root_of(ledger.sealed(period, before))
        close = Close(period, root, postings, by, reason, now_ns)
        settle(settlement, [], [close])
    return close


def broken_seals(ledger: Ledger) -> list[Close]:
    """The closes whose entries are not those they sealed, the earliest first."""
    broken: list[Close] = []
    before: str | None = None
    for close in ledger.closes():
        if root_of(ledger.sealed(close.period, before)) != (close.root, close.postings):
            broken.append(close)
        before = close.period
    return broken
