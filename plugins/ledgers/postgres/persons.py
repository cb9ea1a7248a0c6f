"""Who is behind a pseudonym, in PostgreSQL."""

from __future__ import annotations

from costspan.plugins.ledgers.persons import Persons
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.queries import PostgresQueries


class PostgresPersons(Persons):
    """The table `persons`; every write is in the caller's transaction."""

    def __init__(self, db: Database) -> None:
        super().__init__(PostgresQueries(db))
