"""Reading the books in PostgreSQL."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from costspan.core.invoices.store import InvoiceStore
from costspan.plugins.ledgers import reading
from costspan.plugins.ledgers.postgres.archived import PostgresArchive
from costspan.plugins.ledgers.postgres.contents import Contents
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.lines import Lines
from costspan.plugins.ledgers.postgres.persons import PostgresPersons
from costspan.plugins.ledgers.postgres.queries import PostgresQueries
from costspan.plugins.ledgers.postgres.settlement import PostgresSettlement


class Reading(reading.Reading):
    """The look-ups of readers, over the connection that `store` gives them."""

    _lines: Lines

    @property
    def db(self) -> Database:
        """The connection to read from: the settler's own while it settles."""
        raise NotImplementedError

    @property
    def contents(self) -> Contents:
        """What unpacks the events of `db`."""
        raise NotImplementedError

    @property
    def ask(self) -> PostgresQueries:
        """The same connection, for what all ledgers ask."""
        return PostgresQueries(self.db)

    def reading(self) -> PostgresSettlement:
        """The settler's look-ups, used only to read."""
        return PostgresSettlement(self.db, self.contents, self._lines)

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """One state of the books for everything that is read within."""
        with self.db.snapshot():
            yield

    @property
    def persons(self) -> PostgresPersons:
        """Who is behind the pseudonyms; see `core.privacy`."""
        return PostgresPersons(self.db)

    @property
    def archive(self) -> PostgresArchive:
        """What was pruned, and what could be; see `core.retention`."""
        return PostgresArchive(self.db, self.reading())

    @property
    def invoices(self) -> InvoiceStore:
        """What providers bill, beside the books."""
        from costspan.plugins.ledgers.postgres.invoices import PostgresInvoices

        return PostgresInvoices(self.db)

    def damaged(self) -> Iterator[str]:
        """What is wrong with the rows themselves, a line each; see `damage`."""
        from costspan.plugins.ledgers.postgres.damage import damaged

        return damaged(self)
