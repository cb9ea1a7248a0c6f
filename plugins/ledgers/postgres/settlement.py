"""One settlement transaction: the look-ups and writes that `costspan.core.settle` asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from zlib import crc32

from costspan.core.settle.entries import Settled
from costspan.plugins.ledgers.event_rows import place_of, state_of
from costspan.plugins.ledgers.events import EventLookUps
from costspan.plugins.ledgers.postgres.contents import Contents
from costspan.plugins.ledgers.postgres.database import Database, Row
from costspan.plugins.ledgers.postgres.lines import Lines
from costspan.plugins.ledgers.postgres.postings import PostingTables

_KEYS = {"key": "bigint", "event": "bigint"}
_WAITING = {"key": "bigint", "observation": "bigint"}
_EVENTS = {
    "n": "bigint", "started_at": "bigint", "status": "text", "about": "text",
    "is_swept": "boolean", "content": "bytea", "crc": "bigint",
}  # fmt: skip
_MOVED = {
    "n": "bigint", "session": "text", "parent": "text", "request_id": "text", "trace_id": "text"
}  # fmt: skip
_PLACES = {**_MOVED, "id": "text"}


class PostgresSettlement(PostingTables, EventLookUps):
    """The settler's hands: the journal and the postings below, and the events between them."""

    def __init__(self, db: Database, contents: Contents, lines: Lines) -> None:
        super().__init__(db, lines)
        self._contents = contents

    # --- writing events ------------------------------------------------------------------------

    def save(self, events: Collection[Settled], keys: Collection[tuple[str, str]]) -> None:
        """Keep events as they stand, and index them: (key, event id)."""
        new: list[Row] = []
        changed: list[Row] = []
        placed: list[Row] = []
        moved: list[Row] = []
        for each in events:
            event_id = each.event.id
            session, parent, started_at, request_id, trace_id = place = place_of(each)
            content = self._contents.pack(each)
            state = (started_at, *state_of(each), content, crc32(content))
            number = self._numbers.get(event_id)
            if number is None:
                number = self._numbers[event_id] = self._next_number()
                new.append((number, *state))
                placed.append((number, session, parent, request_id, trace_id, event_id))
            else:
                changed.append((number, *state))
                known = self._known.pop(number, None)
                if known is None or place_of(known) != place:
                    moved.append((number, session, parent, request_id, trace_id))
        if new:
            self._db.copy("events", _EVENTS, new)
            self._db.copy("places", _PLACES, placed)
        self._update("events", "changed", _EVENTS, changed)
        self._update("places", "moved", _MOVED, moved)
        if keys:
            numbers = self._numbers
            rows = sorted({(self._digest(key), numbers[event_id]) for key, event_id in keys})
            self._db.copy("keys", _KEYS, rows)
        self.come_to([row[-1] for row in placed])
        self._written()

    def _update(self, table: str, name: str, columns: Mapping[str, str], rows: list[Row]) -> None:
        if not rows:
            return
        source, bound = self._db.load(name, columns, rows)
        values = ", ".join(f"{column} = {name}.{column}" for column in columns if column != "n")
        # The server takes a temporary table for larger than it is, and might read the whole of the
        # other: an array of the numbers has it go by the index.
        sql = f"""
            UPDATE {table} SET {values} FROM {source}
            WHERE {table}.n = {name}.n AND {table}.n = ANY(ARRAY(SELECT n FROM {source}))"""  # noqa: S608
        self._db.run(sql, *bound, *bound)

    def forget(self, event_ids: Collection[str]) -> None:
        """Drop events that are none: everything that spoke of them speaks of others."""
        if not event_ids:
            return
        for event_id in event_ids:
            number = self._numbers.pop(event_id, None)
            if number is not None:
                self._known.pop(number, None)
        sql = """
            WITH gone AS (DELETE FROM places WHERE id = ANY(%b::text[]) RETURNING n)
            DELETE FROM events WHERE n = ANY(ARRAY(SELECT n FROM gone))"""
        self._db.run(sql, list(event_ids))
        self.come_to(event_ids)

    # --- observations that speak of none -------------------------------------------------------

    def wait(self, keys: Collection[tuple[str, str]]) -> None:
        """Make observations that speak of no event findable: (key, oid)."""
        if not keys:
            return
        source, bound = self._db.load("waiters", _WAITING, self._waiters(keys))
        sql = f"INSERT INTO waiting SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
        self._db.run(sql, *bound)

    def stop_waiting(self, keys: Collection[tuple[str, str]]) -> None:
        """Forget that these waited: (key, oid)."""
        if not keys:
            return
        source, bound = self._db.load("gone", _WAITING, self._waiters(keys))
        sql = f"""
            DELETE FROM waiting USING {source}
            WHERE waiting.key = gone.key AND waiting.observation = gone.observation"""  # noqa: S608
        self._db.run(sql, *bound)

    def _waiters(self, keys: Collection[tuple[str, str]]) -> list[Row]:
        numbers = self.numbers({oid for _, oid in keys})
        return [(self._digest(key), numbers[oid]) for key, oid in keys if oid in numbers]
