"""The books beside the invoices: compare, explain, review, adjust."""

from costspan.core.reconcile.adjust import adjustments
from costspan.core.reconcile.authority import Authority, AuthorityError
from costspan.core.reconcile.compare import Reconciliation, reconcile
from costspan.core.reconcile.review import (
    Reviewed,
    ReviewError,
    announce,
    keep,
    open_variances,
    reviewed,
)
from costspan.core.reconcile.totals import Total
from costspan.core.reconcile.variance import Amounts, Cause, Evidence, Grain, Variance, plain

__all__ = [
    "Amounts",
    "Authority",
    "AuthorityError",
    "Cause",
    "Evidence",
    "Grain",
    "Reconciliation",
    "ReviewError",
    "Reviewed",
    "Total",
    "Variance",
    "adjustments",
    "announce",
    "keep",
    "open_variances",
    "plain",
    "reconcile",
    "reviewed",
]
