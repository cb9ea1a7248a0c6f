"""Which observations stand in an archive: choosing them in PostgreSQL."""

from __future__ import annotations

from costspan.plugins.ledgers.archiving import Archiving
from costspan.plugins.ledgers.look_ups import LookUps
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.queries import PostgresQueries

_CHOOSING = """
    DROP TABLE IF EXISTS pg_temp.speaks;
    DROP TABLE IF EXISTS pg_temp.stays;
    CREATE TEMPORARY TABLE speaks (
        observation bigint NOT NULL,
        event text COLLATE "C" NOT NULL,
        PRIMARY KEY (event, observation)
    ) ON COMMIT DROP;
    CREATE INDEX ON pg_temp.speaks (observation);
    CREATE TEMPORARY TABLE stays (event text COLLATE "C" PRIMARY KEY) ON COMMIT DROP"""


class PostgresArchive(Archiving):
    """The table `archived`."""

    def __init__(self, db: Database, journal: LookUps) -> None:
        super().__init__(PostgresQueries(db), journal)
        self._db = db

    def _begin(self) -> None:
        self._db.script(_CHOOSING)
