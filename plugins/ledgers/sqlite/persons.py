"""Who is behind a pseudonym, in SQLite."""

from __future__ import annotations

import sqlite3

from costspan.plugins.ledgers.persons import Persons
from costspan.plugins.ledgers.sqlite.queries import SqliteQueries


class SqlitePersons(Persons):
    """The table `persons`; every write is in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(SqliteQueries(connection))

    def forget(self, pseudonym: str) -> bool:
        """Delete who is behind a pseudonym, its bytes too; whether anybody was."""
        self._ask.run("PRAGMA secure_delete = ON")
        return super().forget(pseudonym)
