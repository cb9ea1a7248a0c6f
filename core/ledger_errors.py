"""What a ledger raises: apart, so that a process can say it that may not load any ledger."""


class LedgerError(Exception):
    """A ledger that cannot be opened, read or written; the text says what was kept."""


class LedgerMissing(LedgerError):
    """There is no ledger at this place, and reading creates none."""


class LedgerBusy(LedgerError):
    """Another settler holds the lease; the records stay in the spool."""


class LedgerUnread(LedgerError):
    """It was not read to the end: the way there was lost, or the role may not.

    So nothing is known of what the books hold, good or bad.
    """


class LedgerUncertain(LedgerError):
    """It was lost while it committed, and nobody can say whether it did."""
