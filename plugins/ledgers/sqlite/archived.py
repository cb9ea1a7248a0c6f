"""Which observations stand in an archive: choosing them in SQLite."""

from __future__ import annotations

import sqlite3

from costspan.plugins.ledgers.archiving import Archiving
from costspan.plugins.ledgers.look_ups import LookUps
from costspan.plugins.ledgers.sqlite.queries import SqliteQueries

_CHOOSING = (
    "CREATE TEMP TABLE IF NOT EXISTS speaks"
    " (observation INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (event, observation))"
    " WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS temp.speaks_observation ON speaks (observation)",
    "CREATE TEMP TABLE IF NOT EXISTS stays (event TEXT PRIMARY KEY) WITHOUT ROWID",
    "DELETE FROM temp.speaks",
    "DELETE FROM temp.stays",
)


class SqliteArchive(Archiving):
    """The table `archived`."""

    def __init__(self, connection: sqlite3.Connection, journal: LookUps) -> None:
        super().__init__(SqliteQueries(connection), journal)

    def _begin(self) -> None:
        for statement in _CHOOSING:
            self._ask.run(statement)
