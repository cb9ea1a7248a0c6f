"""Ledgers of PostgreSQL, a schema each, in the database that the environment names.

COSTSPAN_CONFORMANCE_POSTGRES=postgresql://me@host/empty_database
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.ledgers.fresh import drop_schema, in_schema

DATABASE = "COSTSPAN_CONFORMANCE_POSTGRES"


class PostgresLedgers(LedgerFactory):
    """The ledger for many machines; whoever connects must be allowed to make schemas."""

    name = "postgres"

    def open(self, folder: Path) -> None:
        """Find the database."""
        self.database = os.environ.get(DATABASE, "")
        if not self.database:
            raise LookupError(f"{DATABASE} names no database (postgresql://…)")

    def url(self) -> str:
        """Another schema."""
        return in_schema(self.database, f"conformance_{secrets.token_hex(8)}")

    def gone(self, url: str) -> None:
        """Drop the schema."""
        drop_schema(url)
