"""The SQLite ledger: one file, WAL, synchronous=FULL, STRICT tables, append-only postings."""

from __future__ import annotations

from costspan.core.hooks import hookimpl
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers.sqlite.store import SqliteLedger

SCHEME = "sqlite:///"


@hookimpl
def open_ledger(url: str, create: bool) -> Ledger | None:
    """The ledger in the file of `sqlite:///path`, or one in memory for `sqlite:///:memory:`."""
    if not url.startswith(SCHEME):
        return None
    return SqliteLedger(url.removeprefix(SCHEME), create=create)
