"""One settlement transaction: the look-ups and writes that `costspan.core.settle` asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import Any
from zlib import crc32

from costspan.core.settle.entries import Settled
from costspan.plugins.ledgers.event_rows import place_of, state_of
from costspan.plugins.ledgers.events import EventLookUps
from costspan.plugins.ledgers.journal_rows import split_oid
from costspan.plugins.ledgers.sqlite.contents import Contents
from costspan.plugins.ledgers.sqlite.lines import Lines
from costspan.plugins.ledgers.sqlite.postings import PostingTables


class SqliteSettlement(PostingTables, EventLookUps):
    """The settler's hands: the journal and the postings below, and the events between them."""

    def __init__(self, connection: sqlite3.Connection, contents: Contents, lines: Lines) -> None:
        super().__init__(connection, lines)
        self._contents = contents

    # --- writing events ------------------------------------------------------------------------

    def save(self, events: Collection[Settled], keys: Collection[tuple[str, str]]) -> None:
        """Keep events as they stand, and index them: (key, event id)."""
        new: list[tuple[Any, ...]] = []
        decided: list[tuple[Any, ...]] = []
        moved: list[tuple[Any, ...]] = []
        for each in events:
            event_id, place = each.event.id, place_of(each)
            content = self._contents.pack(each)
            state = (*state_of(each), content, crc32(content))
            number = self._numbers.get(event_id)
            if number is None:
                number = self._next_number()
                new.append((number, event_id, *place, *state))
                self._numbers[event_id] = number
            else:
                known = self._known.pop(number, None)
                if known is not None and place_of(known) == place:
                    decided.append((*state, number))
                else:
                    moved.append((*place, *state, number))
        self._db.executemany(
            """INSERT INTO events (n, id, session, parent, started_at, request_id, trace_id,
                                   status, about, is_swept, content, crc)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            new,
        )
        # An update touches every index that names a column it sets: most set few.
        self._db.executemany(
            "UPDATE events SET status=?, about=?, is_swept=?, content=?, crc=? WHERE n=?",
            decided,
        )
        self._db.executemany(
            """UPDATE events SET session = ?, parent = ?, started_at = ?, request_id = ?,
               trace_id = ?, status = ?, about = ?, is_swept = ?, content = ?, crc = ?
               WHERE n = ?""",
            moved,
        )
        numbers = self._numbers
        self._db.executemany(
            "INSERT OR IGNORE INTO keys VALUES (?, ?)",
            sorted((self._digest(key), numbers[event_id]) for key, event_id in keys),
        )
        self.come_to([row[1] for row in new])
        self._written()

    def forget(self, event_ids: Collection[str]) -> None:
        """Drop events that are none: everything that spoke of them speaks of others."""
        for event_id in event_ids:
            number = self._numbers.pop(event_id, None)
            if number is not None:
                self._known.pop(number, None)
        self._db.executemany("DELETE FROM events WHERE id = ?", [(id,) for id in event_ids])
        self.come_to(event_ids)

    # --- observations that speak of none -------------------------------------------------------

    def wait(self, keys: Collection[tuple[str, str]]) -> None:
        """Make observations that speak of no event findable: (key, oid)."""
        self._db.executemany("INSERT OR IGNORE INTO waiting VALUES (?, ?)", self._waiters(keys))

    def stop_waiting(self, keys: Collection[tuple[str, str]]) -> None:
        """Forget that these waited: (key, oid)."""
        sql = "DELETE FROM waiting WHERE key = ? AND observation = ?"
        self._db.executemany(sql, self._waiters(keys))

    def _waiters(self, keys: Collection[tuple[str, str]]) -> list[tuple[int, int | None]]:
        rows: list[tuple[int, int | None]] = []
        for key, oid in keys:
            writer, seq = split_oid(oid)
            rows.append((self._digest(key), self._number(writer, seq, create=False)))
        return rows
