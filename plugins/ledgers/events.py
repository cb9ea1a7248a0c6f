"""How a settlement finds events, and what it has read of them and not written since."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property

from costspan.core.settle.entries import Posted, Settled
from costspan.core.settle.posting import effective_of
from costspan.plugins.ledgers.event_rows import digest_of
from costspan.plugins.ledgers.journal import JournalTables
from costspan.plugins.ledgers.packing import Packing
from costspan.plugins.ledgers.postings import PostingLookUps


class EventLookUps(JournalTables, PostingLookUps):
    """Events by id, key, parent, session, time and period; each is unpacked once a transaction."""

    _contents: Packing
    _free: int | None = None

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {}

    @cached_property
    def _known(self) -> dict[int, Settled]:
        """What was read in this transaction and not written since."""
        return {}

    @cached_property
    def _digests(self) -> dict[str, int]:
        return {}

    def _digest(self, key: str) -> int:
        digest = self._digests.get(key)
        if digest is None:
            digest = self._digests[key] = digest_of(key)
        return digest

    def _written(self) -> None:
        """What was read may have changed."""
        self._known.clear()
        self._numbers.clear()
        self._digests.clear()

    def _next_number(self) -> int:
        if self._free is None:
            self._free = self._ask.number("SELECT coalesce(max(n), 0) + 1 FROM events")
        number, self._free = self._free, self._free + 1
        return number

    # --- by id and key -------------------------------------------------------------------------

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
        found.update(self._read("id", missing))
        return found

    def indexed(self, keys: Collection[str]) -> dict[str, Settled]:
        """The events under any of these keys; perhaps some others: look at their names."""
        sql = "SELECT event FROM keys WHERE key IN ({keys})"
        found: dict[str, Settled] = {}
        missing: list[int] = []
        for number in {row[0] for row in self._ask.among(sql, [*map(self._digest, keys)])}:
            known = self._known.get(number)
            if known is None:
                missing.append(number)
            else:
                found[known.event.id] = known
        found.update(self._read("n", missing))
        return found

    def _read(self, column: str, keys: list[str] | list[int]) -> Iterator[tuple[str, Settled]]:
        unpack = self._contents.unpack
        sql = f"SELECT n, id, content FROM {self._ask.events} WHERE {column} IN ({{keys}})"  # noqa: S608
        for number, event_id, content in self._ask.among(sql, keys):
            each = self._known[number] = unpack(content)
            self._numbers[event_id] = number
            yield event_id, each

    def unindexed(self, keys: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those (key, event id) of these under which the event is not found."""
        sql = f"""
            SELECT key, id FROM {self._ask.events} JOIN keys ON keys.event = n
            WHERE key IN ({{keys}})"""  # noqa: S608
        found = set(self._ask.among(sql, {self._digest(key) for key, _ in keys}))
        return [(key, id) for key, id in keys if (self._digest(key), id) not in found]

    # --- by what they say ----------------------------------------------------------------------

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        return self._ids_of("parent", names)

    def in_sessions(self, sessions: Collection[str]) -> set[str]:
        """The events of these sessions."""
        return self._ids_of("session", sessions)

    def _ids_of(self, column: str, values: Collection[str]) -> set[str]:
        sql = f"SELECT id FROM {self._ask.events} WHERE {column} IN ({{keys}})"  # noqa: S608
        return {row[0] for row in self._ask.among(sql, values)}

    def started_since(self, at_ns: int) -> set[str]:
        """The events that started at or after this time."""
        sql = f"SELECT id FROM {self._ask.events} WHERE coalesce(started_at, 0) >= ?"  # noqa: S608
        return {row[0] for row in self._ask.rows(sql, at_ns)}

    def in_period(self, period: str) -> set[str]:
        """The events ever posted on lines of a period, and those in it without an amount."""
        posted = """
            SELECT DISTINCT event_id FROM lines JOIN postings ON line = lines.id
            WHERE effective_period = ? AND bucket NOT IN ('allocated', 'adjustment')"""
        # What stands for a period is "PERIOD OWNER", and '!' is what comes after the space.
        unknown = f"""
            SELECT id FROM {self._ask.events} WHERE status IN ('unpriced', 'unmeasured')
              AND status NOT IN ('posted', 'not_money') AND about >= ? AND about < ?"""  # noqa: S608
        found = {row[0] for row in self._ask.rows(posted, period)}
        found.update(row[0] for row in self._ask.rows(unknown, f"{period} ", f"{period}!"))
        # Those without an amount stand nowhere: restating is rare, so each is looked at.
        for (content,) in self._ask.each("SELECT content FROM events WHERE status = 'not_money'"):
            event = self._contents.unpack(content).event
            if effective_of(event, None)[0] == period:
                found.add(event.id)
        return found

    def awaiting(self, what: str, until_ns: int, at_most: int) -> list[str]:
        """The open events that await this, started at or before `until_ns`, oldest first."""
        # The third condition follows from the first: it is that of the partial index.
        sql = f"""
            SELECT id FROM {self._ask.events}
            WHERE status = 'open' AND about = ? AND status NOT IN ('posted', 'not_money')
              AND coalesce(started_at, 0) <= ?
            ORDER BY coalesce(started_at, 0), id LIMIT ?"""  # noqa: S608
        return [row[0] for row in self._ask.rows(sql, what, until_ns, at_most)]

    # --- observations that speak of none -------------------------------------------------------

    def waiting(self, keys: Collection[str]) -> set[str]:
        """The oids that wait under any of these keys; perhaps some others, which do no harm."""
        if self._ask.one("SELECT 1 FROM waiting LIMIT 1") is None:
            return set()
        sql = "SELECT observation FROM waiting WHERE key IN ({keys})"
        numbers = {row[0] for row in self._ask.among(sql, [*map(self._digest, keys)])}
        return {seen.oid or "" for _, seen in self._rows(numbers)}

    # --- a rebuild -----------------------------------------------------------------------------

    def copied(self, event_ids: Collection[str] | None = None) -> dict[str, Posted]:
        """Event id -> what copied postings sum up to, of events not saved yet (None: all such)."""
        if not self._has_copied():
            return {}
        if event_ids is None:
            ids = [row[0] for row in self._ask.rows("SELECT event_id FROM copied")]
        else:
            sql = "SELECT event_id FROM copied WHERE event_id IN ({keys})"
            ids = [row[0] for row in self._ask.among(sql, event_ids)]
        posted = self._posted_for(ids)
        return {event_id: posted.get(event_id, ()) for event_id in ids}

    def come_to(self, event_ids: Collection[str]) -> None:
        """Copied postings of these are accounted for."""
        if event_ids and self._has_copied():
            self._ask.run_among("DELETE FROM copied WHERE event_id IN ({keys})", event_ids)

    def _has_copied(self) -> bool:
        return self._ask.one("SELECT 1 FROM copied LIMIT 1") is not None
