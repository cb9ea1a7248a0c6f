"""Where the ledgers of these tests are: a module of its own, for other processes import it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import psycopg
from postgres_server import PostgresServer

from costspan.conformance.ledgers.postgres import PostgresLedgers

_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind = 'r'"
_GUARDS = """
    SELECT format('ALTER TABLE %%I.%%I %%s TRIGGER %%I', nspname, relname, '{}', tgname)
    FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
    JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE nspname = %s AND NOT tgisinternal"""


class ServedLedgers(PostgresLedgers):
    """Schemas on a server of our own, which may be killed.

    One that was used is emptied and used again: to make one takes far longer than most tests.
    """

    def open(self, folder: Path) -> None:
        self._server = PostgresServer()
        self._server.start()
        self.database = self._server.database()
        self._used: list[str] = []

    def close(self) -> None:
        self._server.stop()

    def empty(self) -> str:
        return self._used.pop() if self._used else self.url()

    def gone(self, url: str) -> None:
        schema = dict(parse_qsl(urlsplit(url).query))["schema"]
        with psycopg.connect(self.database) as connection:
            guards = [
                ";".join(row[0] for row in connection.execute(_GUARDS.format(to), [schema]))
                for to in ("DISABLE", "ENABLE ALWAYS")
            ]
            tables = {row[0] for row in connection.execute(_TABLES, [schema])} - {"meta"}
            # What no ledger lets anybody do, the owner of its tables may.
            connection.execute(
                f"SET search_path = {schema}; {guards[0]};"
                f" TRUNCATE {', '.join(tables)} RESTART IDENTITY; {guards[1]}".encode()
            )
        self._used.append(url)

    def restart_server(self) -> bool:
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # so that there is little to recover
        self._server.kill()
        self._server.start()
        return True
