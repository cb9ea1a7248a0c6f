"""Settlement: what became dirty is decided again, and only the difference is posted.

Pure over the `Ledger` protocol. A pure function of the journal: duplicates change nothing, the
order of arrival changes nothing, and settling in any batches equals settling everything at once.
"""

from costspan.core.settle.settle import Report, settle

__all__ = ["Report", "settle"]
