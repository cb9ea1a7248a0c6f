"""What people decided about variances, and who is told of new ones.

A review names a variance by its id, which is of its amounts too: when an amount changes, that is
another variance, open again, and the old one is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from costspan.core import hooks
from costspan.core.invoices.invoice import Review, State
from costspan.core.invoices.store import InvoiceStore
from costspan.core.reconcile.variance import Variance

FOUND_BY = "costspan"
"""Who opens a variance: nobody has looked at it yet."""
_HOOK = "variance_found"


class ReviewError(ValueError):
    """A review that cannot be kept; the text says why."""


class Reviewed(msgspec.Struct, frozen=True):
    """Variances with the latest review of each, and the reviews of those that are gone."""

    latest: dict[str, Review]
    gone: list[Review]

    def state(self, variance: Variance) -> State:
        """The state a variance is in; open if nobody said anything."""
        review = self.latest.get(variance.id)
        return "open" if review is None else review.state

    def stands(self, variance: Variance) -> bool:
        """Whether it is flagged and nobody has reviewed it, or somebody left it open."""
        return variance.is_over_threshold and self.state(variance) == "open"


def reviewed(store: InvoiceStore, period: str, variances: Iterable[Variance]) -> Reviewed:
    """The latest reviews of a period's variances."""
    latest = {
        review.variance: review
        for review in store.reviews()
        if review.variance.startswith(f"{period}.")
    }
    now = {variance.id for variance in variances}
    gone = [review for name, review in latest.items() if name not in now]
    return Reviewed({name: latest[name] for name in latest.keys() & now}, gone)


def keep(
    store: InvoiceStore,
    variances: Sequence[Variance],
    names: Sequence[str],
    *,
    state: State,
    by: str,
    note: str,
    at: int,
) -> list[Variance]:
    """Keep a review of the variances of these ids, or whose ids begin so; `at` is ns UTC.

    Raises:
        ReviewError: if no variance, or more than one, has a name; or without `by` and `note`.
            Then nothing was kept.
    """
    if not by.strip() or not note.strip():
        raise ReviewError("a review needs --by and --note: who says so, and why")
    found = [_named(variances, name) for name in names]
    for each in found:
        store.keep_review(Review(variance=each.id, state=state, by=by, note=note, at=at))
    return found


def _named(variances: Iterable[Variance], name: str) -> Variance:
    found = [each for each in variances if each.id == name or each.id.startswith(name)]
    if len(found) != 1:
        many = "no variance has" if not found else f"{len(found)} variances begin with"
        raise ReviewError(f"{many} the id {name!r}: costspan reconcile --all lists them")
    return found[0]


def announce(store: InvoiceStore, variances: Iterable[Variance], at: int) -> int:
    """Tell plugins of each flagged variance that is new, once; returns how many there were.

    It is then listed as open. Where a plugin failed it stays new, and is told again next time.
    """
    known = {review.variance for review in store.reviews()}
    many = 0
    for variance in variances:
        if not variance.is_over_threshold or variance.id in known:
            continue
        many += 1
        told = sum(1 for _ in hooks.call(_HOOK, variance=variance))
        if told == len(hooks.implementations(_HOOK)):
            note = f"{variance.what} {' '.join(part for part in variance.grain if part)}:"
            note += f" invoice - ledger = {variance.said(variance.difference)}"
            review = Review(variance=variance.id, state="open", by=FOUND_BY, note=note, at=at)
            store.keep_review(review)
    return many


def open_variances(store: InvoiceStore, period: str) -> list[Review]:
    """The variances of a period that were found, and that nobody has reviewed yet.

    As the last `reconcile` of the period found them: nothing is compared here.
    """
    latest = {
        review.variance: review
        for review in store.reviews()
        if review.variance.startswith(f"{period}.")
    }
    return [review for review in latest.values() if review.state == "open"]
