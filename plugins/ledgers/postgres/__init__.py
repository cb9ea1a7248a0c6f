"""The PostgreSQL ledger: the same books as SQLite's, for many machines; one settler at a time.

Needs psycopg 3: `pip install 'costspan[postgres]'`. `docs/postgres.md` says which roles it needs.
"""

from __future__ import annotations

from importlib.util import find_spec

from costspan.core import forks
from costspan.core.hooks import hookimpl
from costspan.core.ledger_errors import LedgerError
from costspan.core.settle.ledger import Ledger

SCHEMES = ("postgresql://", "postgres://")


@hookimpl
def open_ledger(url: str, create: bool) -> Ledger | None:
    """The ledger in the database of `postgresql://user@host/database?schema=costspan`.

    Everything that libpq understands may stand in the URL; `schema` is ours, and is `costspan` if
    it is not named.
    """
    if not url.startswith(SCHEMES):
        return None
    if find_spec("psycopg") is None:
        raise LedgerError("a PostgreSQL ledger needs psycopg: pip install 'costspan[postgres]'")
    with forks.unforked():  # a child waits for ever for a module that a fork cut off
        from costspan.plugins.ledgers.postgres.place import Place
        from costspan.plugins.ledgers.postgres.store import PostgresLedger

    return PostgresLedger(Place(url), create=create)
