"""One settlement transaction: the look-ups and writes that `costspan.core.settle` asks for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from zlib import crc32

from costspan.core.settle.entries import Posted, Settled
from costspan.core.settle.posting import effective_of
from costspan.plugins.ledgers.postgres.contents import Contents
from costspan.plugins.ledgers.postgres.database import Database, Row
from costspan.plugins.ledgers.postgres.lines import Lines
from costspan.plugins.ledgers.postgres.postings import PostingTables
from costspan.plugins.ledgers.sqlite.rows import digest_of
from costspan.plugins.ledgers.sqlite.settlement import place_of, state_of

_KEYS = {"key": "bigint", "event": "bigint"}
_PLACE = {
    "session": "text", "parent": "text", "started_at": "bigint", "request_id": "text",
    "trace_id": "text",
}  # fmt: skip
_STATE = {
    "status": "text", "about": "text", "is_swept": "boolean", "content": "bytea", "crc": "bigint"
}  # fmt: skip
_EVENTS = {"n": "bigint", "id": "text", **_PLACE, **_STATE}
_BY_ID = "SELECT n, id, content FROM events WHERE id = ANY(%b::text[])"
_BY_NUMBER = "SELECT n, id, content FROM events WHERE n = ANY(%b::bigint[])"
_BY_KEY = """
    SELECT n, id, content FROM events
    WHERE n IN (SELECT event FROM keys WHERE key = ANY(%b::bigint[]))"""


class PostgresSettlement(PostingTables):
    """The settler's hands: the journal and the postings below, and the events between them."""

    def __init__(self, db: Database, contents: Contents, lines: Lines) -> None:
        super().__init__(db, lines)
        self._contents = contents
        self._numbers: dict[str, int] = {}
        self._known: dict[int, Settled] = {}
        """What was read in this transaction and not written since."""
        self._digests: dict[str, int] = {}
        self._free: int | None = None

    def _digest(self, key: str) -> int:
        digest = self._digests.get(key)
        if digest is None:
            digest = self._digests[key] = digest_of(key)
        return digest

    # --- finding events ------------------------------------------------------------------------

    def settled(self, event_ids: Collection[str]) -> dict[str, Settled]:
        """The events of these ids that exist."""
        found: dict[str, Settled] = {}
        missing: list[str] = []
        for event_id in event_ids:
            number = self._numbers.get(event_id)
            known = None if number is None else self._known.get(number)
            if known is None:
                missing.append(event_id)
            else:
                found[event_id] = known
        if missing:
            found.update(self._read(_BY_ID, missing))
        return found

    def indexed(self, keys: Collection[str]) -> dict[str, Settled]:
        """The events under any of these keys; perhaps some others: look at their names."""
        if not keys:
            return {}
        sql = "SELECT DISTINCT event FROM keys WHERE key = ANY(%b::bigint[])"
        rows = self._db.rows(sql, [self._digest(key) for key in keys])
        found: dict[str, Settled] = {}
        missing: list[int] = []
        for (number,) in rows:
            known = self._known.get(number)
            if known is None:
                missing.append(number)
            else:
                found[known.event.id] = known
        if missing:
            found.update(self._read(_BY_NUMBER, missing))
        return found

    def _read(self, sql: str, keys: list[Any]) -> dict[str, Settled]:
        unpack = self._contents.unpack
        found: dict[str, Settled] = {}
        for number, event_id, content in self._db.rows(sql, keys):
            found[event_id] = self._known[number] = unpack(content)
            self._numbers[event_id] = number
        return found

    def unindexed(self, keys: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those (key, event id) of these under which the event is not found."""
        sql = """
            SELECT key, id FROM keys JOIN events ON n = event WHERE key = ANY(%b::bigint[])"""
        found = {(row[0], row[1]) for row in self._db.rows(sql, [self._digest(k) for k, _ in keys])}
        return [each for each in keys if (self._digest(each[0]), each[1]) not in found]

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        return self._ids("parent = ANY(%b::text[])", list(names)) if names else set()

    def in_sessions(self, sessions: Collection[str]) -> set[str]:
        """The events of these sessions."""
        return self._ids("session = ANY(%b::text[])", list(sessions)) if sessions else set()

    def started_since(self, at_ns: int) -> set[str]:
        """The events that started at or after this time."""
        return self._ids("coalesce(started_at, 0) >= %s", at_ns)

    def _ids(self, where: str, *bound: Any) -> set[str]:
        sql = f"SELECT id FROM events WHERE {where}"  # noqa: S608
        return {row[0] for row in self._db.rows(sql, *bound)}

    def in_period(self, period: str) -> set[str]:
        """The events ever posted on lines of a period, and those in it without an amount."""
        posted = """
            SELECT DISTINCT event_id FROM lines JOIN postings ON line = lines.id
            WHERE effective_period = %s AND bucket NOT IN ('allocated', 'adjustment')"""
        # What stands for a period is "PERIOD OWNER", and '!' is what comes after the space.
        unknown = """
            status IN ('unpriced', 'unmeasured') AND status NOT IN ('posted', 'not_money')
            AND about >= %s AND about < %s"""
        found = {row[0] for row in self._db.rows(posted, period)}
        found |= self._ids(unknown, f"{period} ", f"{period}!")
        # Those without an amount stand nowhere: restating is rare, so each is looked at.
        for (content,) in self._db.each("SELECT content FROM events WHERE status = 'not_money'"):
            event = self._contents.unpack(content).event
            if effective_of(event, None)[0] == period:
                found.add(event.id)
        return found

    def awaiting(self, what: str, until_ns: int, at_most: int) -> list[str]:
        """The open events that await this, started at or before `until_ns`, oldest first."""
        # The third condition follows from the first: it is that of the partial index.
        sql = """
            SELECT id FROM events
            WHERE status = 'open' AND about = %s AND status NOT IN ('posted', 'not_money')
              AND coalesce(started_at, 0) <= %s
            ORDER BY coalesce(started_at, 0), id LIMIT %s"""
        return [row[0] for row in self._db.rows(sql, what, until_ns, at_most)]

    # --- writing events ------------------------------------------------------------------------

    def save(self, events: Collection[Settled], keys: Collection[tuple[str, str]]) -> None:
        """Keep events as they stand, and index them: (key, event id)."""
        new: list[Row] = []
        decided: list[Row] = []
        moved: list[Row] = []
        for each in events:
            event_id, place = each.event.id, place_of(each)
            content = self._contents.pack(each)
            state = (*state_of(each), content, crc32(content))
            number = self._numbers.get(event_id)
            if number is None:
                number = self._numbers[event_id] = self._next_number()
                new.append((number, event_id, *place, *state))
            else:
                known = self._known.pop(number, None)
                if known is not None and place_of(known) == place:
                    decided.append((number, *state))
                else:
                    moved.append((number, *place, *state))
        if new:
            self._db.copy("events", _EVENTS, new)
        self._update("decided", {"n": "bigint", **_STATE}, decided)
        self._update("moved", {"n": "bigint", **_PLACE, **_STATE}, moved)
        if keys:
            numbers = self._numbers
            rows = sorted({(self._digest(key), numbers[event_id]) for key, event_id in keys})
            source, bound = self._db.load("found_by", _KEYS, rows)
            sql = f"INSERT INTO keys SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
            self._db.run(sql, *bound)
        self.come_to([row[1] for row in new])
        self._known.clear()
        self._numbers.clear()
        self._digests.clear()

    def _update(self, name: str, columns: dict[str, str], rows: list[Row]) -> None:
        if not rows:
            return
        source, bound = self._db.load(name, columns, rows)
        values = ", ".join(f"{column} = {name}.{column}" for column in columns if column != "n")
        self._db.run(f"UPDATE events SET {values} FROM {source} WHERE events.n = {name}.n", *bound)  # noqa: S608

    def _next_number(self) -> int:
        if self._free is None:
            row = self._db.one("SELECT coalesce(max(n), 0) + 1 FROM events")
            assert row is not None
            self._free = int(row[0])
        number, self._free = self._free, self._free + 1
        return number

    def forget(self, event_ids: Collection[str]) -> None:
        """Drop events that are none: everything that spoke of them speaks of others."""
        if not event_ids:
            return
        for event_id in event_ids:
            number = self._numbers.pop(event_id, None)
            if number is not None:
                self._known.pop(number, None)
        self._db.run("DELETE FROM events WHERE id = ANY(%b::text[])", list(event_ids))
        self.come_to(event_ids)

    # --- observations that speak of none -------------------------------------------------------

    def waiting(self, keys: Collection[str]) -> set[str]:
        """The oids that wait under any of these keys; perhaps some others, which do no harm."""
        if not keys or self._db.one("SELECT 1 FROM waiting LIMIT 1") is None:
            return set()
        sql = "SELECT DISTINCT observation FROM waiting WHERE key = ANY(%b::bigint[])"
        rows = self._db.rows(sql, [self._digest(key) for key in keys])
        return {seen.oid or "" for _, seen in self._rows([row[0] for row in rows])}

    def wait(self, keys: Collection[tuple[str, str]]) -> None:
        """Make observations that speak of no event findable: (key, oid)."""
        if not keys:
            return
        columns = {"key": "bigint", "observation": "bigint"}
        source, bound = self._db.load("waiters", columns, self._waiters(keys))
        sql = f"INSERT INTO waiting SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
        self._db.run(sql, *bound)

    def stop_waiting(self, keys: Collection[tuple[str, str]]) -> None:
        """Forget that these waited: (key, oid)."""
        if not keys:
            return
        columns = {"key": "bigint", "observation": "bigint"}
        source, bound = self._db.load("gone", columns, self._waiters(keys))
        sql = f"""
            DELETE FROM waiting USING {source}
            WHERE waiting.key = gone.key AND waiting.observation = gone.observation"""  # noqa: S608
        self._db.run(sql, *bound)

    def _waiters(self, keys: Collection[tuple[str, str]]) -> list[Row]:
        numbers = self.numbers({oid for _, oid in keys})
        return [(self._digest(key), numbers[oid]) for key, oid in keys if oid in numbers]

    # --- a rebuild -----------------------------------------------------------------------------

    def copied(self, event_ids: Collection[str] | None = None) -> dict[str, Posted]:
        """Event id -> what copied postings sum up to, of events not saved yet (None: all such)."""
        if event_ids is None:
            ids = [row[0] for row in self._db.rows("SELECT event_id FROM copied")]
        elif not event_ids or not self._has_copied():
            return {}
        else:
            sql = "SELECT event_id FROM copied WHERE event_id = ANY(%b::text[])"
            ids = [row[0] for row in self._db.rows(sql, list(event_ids))]
        posted = self._posted_for(ids)
        return {event_id: posted.get(event_id, ()) for event_id in ids}

    def come_to(self, event_ids: Collection[str]) -> None:
        """Copied postings of these are accounted for."""
        if event_ids and self._has_copied():
            sql = "DELETE FROM copied WHERE event_id = ANY(%b::text[])"
            self._db.run(sql, list(event_ids))

    def _has_copied(self) -> bool:
        return self._db.one("SELECT 1 FROM copied LIMIT 1") is not None
