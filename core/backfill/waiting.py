"""Rows that wait to be compared: in memory while they are few, on disk when they are many."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from costspan.core.backfill.claim import Told

_ROWS_AT_A_TIME = 1000


class Waiting:
    """Rows, each once: what stands twice in an export costs once.

    Of two that have one name and say different things, the same one waits, in whatever order they
    came.
    """

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)  # a file that is nobody else's
        self._db.execute("CREATE TABLE rows (oid TEXT PRIMARY KEY, told BLOB) WITHOUT ROWID")
        self._db.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._db.close()

    @property
    def rows(self) -> int:
        """How many wait."""
        return int(self._db.execute("SELECT count(*) FROM rows").fetchone()[0])

    def add(self, chunk: Sequence[Told]) -> None:
        """Keep a chunk.

        Raises:
            OSError: if there is no room for it.
        """
        try:
            self._db.executemany(
                "INSERT INTO rows VALUES (?, ?)"
                " ON CONFLICT DO UPDATE SET told = min(told, excluded.told)",
                [(told.oid, msgspec.json.encode(told, order="deterministic")) for told in chunk],
            )
        except sqlite3.Error as error:
            raise OSError(f"no room for the rows that wait to be compared: {error}") from error

    def __iter__(self) -> Iterator[list[Told]]:
        """Every row, by name, some at a time."""
        found = self._db.execute("SELECT told FROM rows ORDER BY oid")
        while chunk := found.fetchmany(_ROWS_AT_A_TIME):
            yield [msgspec.json.decode(told, type=Told) for (told,) in chunk]
