"""Closing a period: what is posted in it is sealed; late truth goes to the first open month."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from costspan.core.checkpoints import Key, hash_of, signed
from costspan.core.journal.records import Close
from costspan.core.periods import is_period, month_after, month_of
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.merkle import Tree, canonical_posting
from costspan.core.settle.settle import settle
from costspan.core.settle.settlement import Settlement

POSTINGS_PER_TELL = 5000


class CloseError(ValueError):
    """A period that cannot be closed; the text says why. Nothing was changed."""


def close_period(
    ledger: Ledger,
    period: str,
    by: str,
    reason: str,
    now_ns: int,
    *,
    key: Key | None = None,
    against: Callable[[], Sequence[str]] = tuple,
    force: bool = False,
    before_seal: Callable[[Settlement], object] = lambda settlement: None,
    timeout_seconds: int = 30,
    tell: Callable[[int], None] = lambda done: None,
) -> Close:
    """Seal everything posted up to and with a period (YYYY-MM, UTC) that no close has sealed.

    The record of it keeps the Merkle root of the entries it sealed, in the order of their numbers,
    and the hash of the close before.

    Args:
        ledger: The books.
        period: The last month to seal.
        by: Whose hand this is.
        reason: Why.
        now_ns: The time it is (ns UTC).
        key: What signs the record, if anything does.
        against: What stands against it, a text each; asked while nobody else can settle.
        force: Close in spite of that; the record keeps what it was.
        before_seal: Posts what is to be sealed with the rest (allocation), in the same transaction:
            a close that is refused or fails takes it back.
        timeout_seconds: How long to wait for another settler.
        tell: Called now and then with how many postings were read.

    Raises:
        CloseError: if it is no period, is not over, or not after the last one that is closed; if
            anything stands against it and it is not forced; without `by` or `reason`.
        LedgerBusy: if another settler holds the lease longer than this.
    """
    check_period_to_close(period, now_ns)
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip():
            raise CloseError(f"`{name}` is empty: a close has a name and a reason")
    with ledger.settling(timeout_seconds) as settlement:
        before = check_still_open(ledger, period)
        found = tuple(against())
        if found and not force:
            raise CloseError(f"{period} stays open: {'; '.join(found)}")
        before_seal(settlement)
        tree = Tree()
        sealed = ledger.sealed(period, None if before is None else before.period)
        for number, posting in sealed:
            tree.add(canonical_posting(number, posting))
            if tree.size % POSTINGS_PER_TELL == 0:
                tell(tree.size)
        previous = "" if before is None else hash_of(before)
        close = signed(
            Close(period, tree.root(), tree.size, by, reason, now_ns, previous, found), key
        )
        settle(settlement, [], [close])
    return close


def check_period_to_close(period: str, now_ns: int) -> None:
    """Refuse what is no month, or is not over.

    Raises:
        CloseError: saying which.
    """
    if not is_period(period):
        raise CloseError(f"{period!r} is no period: write YYYY-MM")
    if period >= month_of(now_ns):
        raise CloseError(f"{period} is not over: it can be closed from {month_after(period)} on")


def check_still_open(ledger: Ledger, period: str) -> Close | None:
    """Refuse a period that is closed; else the last close, if there is any.

    Raises:
        CloseError: saying which was the last.
    """
    closes = ledger.closes()
    before = closes[-1] if closes else None
    if before is not None and period <= before.period:
        raise CloseError(f"{period} is closed: {before.period} is the last that was")
    return before


def broken_seals(ledger: Ledger) -> list[Close]:
    """The closes whose entries are not those they sealed, the earliest first."""
    closes = ledger.closes()
    trees = sealed_trees(ledger, closes)
    return [
        close
        for close, tree in zip(closes, trees, strict=True)
        if (tree.root(), tree.size) != (close.root, close.postings)
    ]


def sealed_trees(
    ledger: Ledger,
    closes: Sequence[Close],
    *,
    after: str | None = None,
    tell: Callable[[int], None] = lambda done: None,
) -> list[Tree]:
    """The tree of what each of these closes sealed, read once however many there are.

    Args:
        ledger: The books.
        closes: The earliest first, without gaps.
        after: The period that was closed before the first of them.
        tell: Called now and then with how many postings were read.
    """
    periods = [close.period for close in closes]
    trees = [Tree() for _ in periods]
    if not periods:
        return trees
    for done, (number, posting) in enumerate(ledger.sealed(periods[-1], after), 1):
        trees[bisect_left(periods, posting.posted_period)].add(canonical_posting(number, posting))
        if done % POSTINGS_PER_TELL == 0:
            tell(done)
    return trees
