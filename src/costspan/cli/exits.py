"""What the exit code of a command means, and the code of each error that is expected."""

from __future__ import annotations

OK = 0
BAD = 1
USAGE = 2
NOT_FOUND = 3
VARIANCE = 3
LEDGER = 4
INTERRUPTED = 130

MEANING = """\
exit codes:
  0  done, and the answer is good
  1  done, and the answer is bad: books not balanced, a replay or rebuild that differs,
     lines rejected, a finding of severity error
  2  a usage, settings or input file that cannot be used
  3  no ledger there, or nothing has that name; reconcile: a variance stands that nobody reviewed,
     or there is no invoice to compare with
  4  the ledger could not be read or written (nothing was lost: the text says what was kept)
"""


class UsageError(ValueError):
    """An option or an input file that cannot be used; the text says what would be right."""


def code_of(error: Exception) -> int | None:
    """The exit code of an expected error; None for one that is a bug and keeps its traceback."""
    # Imported where something went wrong already: the way there stays short.
    import sqlite3

    from costspan.core.ledger_errors import LedgerError, LedgerMissing
    from costspan.core.read.books import NotFound

    if isinstance(error, (LedgerMissing, NotFound)):
        return NOT_FOUND
    if isinstance(error, (LedgerError, sqlite3.Error)):
        return LEDGER
    # Every ValueError of our own says what input cannot be used.
    ours = isinstance(error, ValueError) and type(error).__module__.startswith("costspan.")
    if ours or isinstance(error, OSError):
        return USAGE
    return None
