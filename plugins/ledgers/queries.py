"""Statements that all ledgers have in common, asked of each in its own SQL.

A statement is a text of this package: `?` stands for a value, `IN ({keys})` for a list of values.
Every value is bound; names of our own are all that is ever put into a text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import Any, ClassVar

Row = tuple[Any, ...]


class Queries(ABC):
    """A connection to a ledger, and what its tables are called where ledgers differ."""

    events: ClassVar[str] = "events"
    """What events are selected from, with all their columns."""
    arrival: ClassVar[str] = "n"
    """The column that puts `price_books` in the order they came."""
    person: ClassVar[str] = "person"
    """The column of `persons` that has the person's id."""

    @abstractmethod
    def each(self, sql: str, *bound: Any) -> Iterator[Row]:
        """The rows of a statement, however many, a few at a time."""

    @abstractmethod
    def rows(self, sql: str, *bound: Any) -> list[Row]:
        """The rows of a statement that has few."""

    @abstractmethod
    def among(self, sql: str, keys: Collection[Any]) -> Iterator[Row]:
        """The rows of a statement that names a list of texts or of integers, and binds no more."""

    @abstractmethod
    def one(self, sql: str, *bound: Any) -> Row | None:
        """The first row of a statement."""

    @abstractmethod
    def run(self, sql: str, *bound: Any) -> int:
        """How many rows a statement changed."""

    @abstractmethod
    def run_among(self, sql: str, keys: Collection[Any]) -> None:
        """Run a statement that names a list, and binds no more."""

    @abstractmethod
    def insert(self, table: str, rows: Collection[Row], otherwise: str = "") -> None:
        """Insert rows with all their columns; `otherwise` says what becomes of those there are."""

    @abstractmethod
    def holds(self, column: str) -> str:
        """The condition that the bytes of a column hold those of a value, which is bound."""

    def may_read(self, _table: str) -> bool:
        """Whether this connection may read a table, where ledgers know of roles."""
        return True

    def number(self, sql: str, *bound: Any) -> int:
        """What a statement that counts comes to."""
        row = self.one(sql, *bound)
        return 0 if row is None else int(row[0])
