"""Reading the books in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator
from contextlib import contextmanager

from costspan.core.invoices.store import InvoiceStore
from costspan.plugins.ledgers import reading
from costspan.plugins.ledgers.sqlite.archived import SqliteArchive
from costspan.plugins.ledgers.sqlite.contents import Contents
from costspan.plugins.ledgers.sqlite.lines import Lines
from costspan.plugins.ledgers.sqlite.persons import SqlitePersons
from costspan.plugins.ledgers.sqlite.queries import SqliteQueries
from costspan.plugins.ledgers.sqlite.settlement import SqliteSettlement


class Reading(reading.Reading):
    """The look-ups of readers, over the connection that `store` opened."""

    _contents: Contents
    _lines: Lines

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this process."""
        raise NotImplementedError

    @property
    def contents(self) -> Contents:
        """What unpacks the events."""
        return self._contents

    @property
    def ask(self) -> SqliteQueries:
        """The same connection, for what all ledgers ask."""
        return SqliteQueries(self.connection)

    def reading(self) -> SqliteSettlement:
        """The settler's look-ups, used only to read."""
        return SqliteSettlement(self.connection, self._contents, self._lines)

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """One state of the books for everything that is read within."""
        connection = self.connection
        if connection.in_transaction:
            yield
            return
        connection.execute("BEGIN")
        try:
            yield
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    @property
    def persons(self) -> SqlitePersons:
        """Who is behind the pseudonyms; see `core.privacy`."""
        return SqlitePersons(self.connection)

    @property
    def archive(self) -> SqliteArchive:
        """What was pruned, and what could be; see `core.retention`."""
        return SqliteArchive(self.connection, self.reading())

    @property
    def invoices(self) -> InvoiceStore:
        """What providers bill, beside the books."""
        from costspan.plugins.ledgers.sqlite.invoices import SqliteInvoices

        return SqliteInvoices(self.connection)

    def damaged(self) -> Iterator[str]:
        """What is wrong with the rows themselves, a line each; see `damage`."""
        from costspan.plugins.ledgers.sqlite.damage import damaged

        return damaged(self)
