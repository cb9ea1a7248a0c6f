"""What became of a settlement whose connection was lost while it was being committed."""

from __future__ import annotations

from contextlib import closing

from costspan.core.ledger_errors import LedgerError, LedgerUncertain
from costspan.plugins.ledgers.postgres import migrations
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.place import Place

_WAIT_MS = 30_000


def was_committed(place: Place, transaction: str) -> bool:
    """Whether the server kept a transaction, asked over another connection.

    The lease is the transaction's: who gets it after it knows that the transaction is over.

    Args:
        place: The ledger.
        transaction: Its `pg_current_xact_id()`.

    Raises:
        LedgerUncertain: if the server cannot be asked.
    """
    try:
        with closing(Database(place)) as db:
            db.begin(f"SET LOCAL lock_timeout = {_WAIT_MS}; {migrations.lease(place.schema)}")
            status = db.rows("SELECT pg_xact_status(%s::xid8)", transaction)[0][0]
            db.roll_back()
    except LedgerError as error:
        raise LedgerUncertain(
            f"the ledger {place.shown} was lost while it committed, and cannot be asked whether it"
            f" did ({error}): look at the books before you do this again by hand; records are in"
            " the spool still, and settling them again changes nothing that was settled"
        ) from error
    return bool(status == "committed")
