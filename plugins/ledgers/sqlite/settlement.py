"""One settlement transaction: the look-ups and writes that `costspan.core.settle` asks for."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any
from zlib import crc32

from costspan.core.decide import RuleSet
from costspan.core.prices import ChargeBook, PriceBook
from costspan.core.settle.entries import Posted, Settled
from costspan.core.settle.posting import effective_of, would_be
from costspan.core.settle.sweep import awaited
from costspan.plugins.ledgers.sqlite.contents import Contents
from costspan.plugins.ledgers.sqlite.lines import Lines
from costspan.plugins.ledgers.sqlite.postings import PostingTables
from costspan.plugins.ledgers.sqlite.rows import digest_of, select_in, split_oid


class SqliteSettlement(PostingTables):
    """The settler's hands: the journal and the postings below, and the events between them."""

    def __init__(self, connection: sqlite3.Connection, contents: Contents, lines: Lines) -> None:
        super().__init__(connection, lines)
        self._contents = contents
        self._numbers: dict[str, int] = {}
        self._known: dict[int, Settled] = {}
        """What was read in this transaction and not written since."""
        self._digests: dict[str, int] = {}

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
            sql = "SELECT n, id, content FROM events WHERE id IN ({keys})"
            found.update(self._read(sql, missing))
        return found

    def indexed(self, keys: Collection[str]) -> dict[str, Settled]:
        """The events under any of these keys; perhaps some others: look at their names."""
        digests = [self._digest(key) for key in keys]
        sql = "SELECT event FROM keys WHERE key IN ({keys})"
        numbers: set[int] = {row[0] for row in select_in(self._db, sql, digests)}
        found: dict[str, Settled] = {}
        missing: list[int] = []
        for number in numbers:
            known = self._known.get(number)
            if known is None:
                missing.append(number)
            else:
                found[known.event.id] = known
        if missing:
            sql = "SELECT n, id, content FROM events WHERE n IN ({keys})"
            found.update(self._read(sql, missing))
        return found

    def _read(self, sql: str, keys: Collection[Any]) -> dict[str, Settled]:
        unpack = self._contents.unpack
        found: dict[str, Settled] = {}
        for number, event_id, content in select_in(self._db, sql, keys):
            found[event_id] = self._known[number] = unpack(content)
            self._numbers[event_id] = number
        return found

    def unindexed(self, keys: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those (key, event id) of these under which the event is not found."""
        sql = "SELECT key, event FROM keys WHERE key IN ({keys})"
        found = set(select_in(self._db, sql, {self._digest(key) for key, _ in keys}))
        sql = "SELECT id, n FROM events WHERE id IN ({keys})"
        numbers = dict(select_in(self._db, sql, {event_id for _, event_id in keys}))
        return [
            (key, event_id)
            for key, event_id in keys
            if (self._digest(key), numbers.get(event_id)) not in found
        ]

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        sql = "SELECT id FROM events WHERE parent IN ({keys})"
        return {row[0] for row in select_in(self._db, sql, names)}

    def in_sessions(self, sessions: Collection[str]) -> set[str]:
        """The events of these sessions."""
        sql = "SELECT id FROM events WHERE session IN ({keys})"
        return {row[0] for row in select_in(self._db, sql, sessions)}

    def started_since(self, at_ns: int) -> set[str]:
        """The events that started at or after this time."""
        sql = "SELECT id FROM events WHERE coalesce(started_at, 0) >= ?"
        return {row[0] for row in self._db.execute(sql, (at_ns,))}

    def in_period(self, period: str) -> set[str]:
        """The events ever posted on lines of a period, and those in it without an amount."""
        posted = """
            SELECT DISTINCT event_id FROM lines JOIN postings ON line = lines.id
            WHERE effective_period = ? AND bucket NOT IN ('allocated', 'adjustment')"""
        unknown = """
            SELECT id FROM events WHERE status IN ('unpriced', 'unmeasured')
              AND status NOT IN ('posted', 'not_money') AND about >= ? AND about < ?"""
        found = {row[0] for row in self._db.execute(posted, (period,))}
        # What stands for a period is "PERIOD OWNER", and '!' is what comes after the space.
        found.update(row[0] for row in self._db.execute(unknown, (f"{period} ", f"{period}!")))
        # Those without an amount stand nowhere: restating is rare, so each is looked at.
        none = "SELECT content FROM events WHERE status = 'not_money'"
        for (content,) in self._db.execute(none):
            event = self._contents.unpack(content).event
            if effective_of(event, None)[0] == period:
                found.add(event.id)
        return found

    def awaiting(self, what: str, until_ns: int, at_most: int) -> list[str]:
        """The open events that await this, started at or before `until_ns`, oldest first."""
        # The third condition follows from the first: it lets SQLite use the partial index.
        sql = """
            SELECT id FROM events
            WHERE status = 'open' AND about = ? AND status NOT IN ('posted', 'not_money')
              AND coalesce(started_at, 0) <= ?
            ORDER BY coalesce(started_at, 0), id LIMIT ?"""
        return [row[0] for row in self._db.execute(sql, (what, until_ns, at_most))]

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
        self._known.clear()
        self._numbers.clear()
        self._digests.clear()

    def _next_number(self) -> int:
        if self._free is None:
            sql = "SELECT coalesce(max(n), 0) + 1 FROM events"
            self._free = int(self._db.execute(sql).fetchone()[0])
        number, self._free = self._free, self._free + 1
        return number

    _free: int | None = None

    def forget(self, event_ids: Collection[str]) -> None:
        """Drop events that are none: everything that spoke of them speaks of others."""
        for event_id in event_ids:
            number = self._numbers.pop(event_id, None)
            if number is not None:
                self._known.pop(number, None)
        self._db.executemany("DELETE FROM events WHERE id = ?", [(id,) for id in event_ids])
        self.come_to(event_ids)

    # --- observations that speak of none -------------------------------------------------------

    def waiting(self, keys: Collection[str]) -> set[str]:
        """The oids that wait under any of these keys; perhaps some others, which do no harm."""
        if self._db.execute("SELECT 1 FROM waiting LIMIT 1").fetchone() is None:
            return set()
        sql = "SELECT observation FROM waiting WHERE key IN ({keys})"
        rows = select_in(self._db, sql, [self._digest(key) for key in keys])
        return {seen.oid or "" for _, seen in self._rows({row[0] for row in rows})}

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

    def list_problems(self, problems: Mapping[str, Collection[tuple[str, str]]]) -> None:
        """Replace the listed problems of these oids (but conflicts, which stay)."""
        if self._db.execute("SELECT 1 FROM problems WHERE kind != 'conflict'").fetchone():
            self._db.executemany(
                "DELETE FROM problems WHERE oid = ? AND kind != 'conflict'",
                [(oid,) for oid in problems],
            )
        self._db.executemany(
            "INSERT OR IGNORE INTO problems VALUES (?, ?, ?)",
            [(kind, oid, event_id) for oid, found in problems.items() for kind, event_id in found],
        )

    # --- policy --------------------------------------------------------------------------------

    def rule_set(self, sha256: str) -> RuleSet:
        """A kept rule set."""
        sql = "SELECT content FROM rule_sets WHERE sha256 = ?"
        return RuleSet.from_bytes(self._db.execute(sql, (sha256,)).fetchone()[0])

    def price_book(self, sha256: str) -> PriceBook:
        """A kept price-book snapshot."""
        sql = "SELECT content FROM price_books WHERE sha256 = ?"
        return PriceBook.from_bytes(self._db.execute(sql, (sha256,)).fetchone()[0])

    def keep_rule_set(self, rules: RuleSet) -> None:
        """Keep a rule set by its hash."""
        row = (rules.sha256, rules.to_bytes())
        self._db.execute("INSERT OR IGNORE INTO rule_sets VALUES (?, ?)", row)

    def keep_price_book(self, book: PriceBook) -> None:
        """Keep a price-book snapshot by its hash."""
        row = (book.sha256, book.id, book.source_version, book.to_bytes())
        self._db.execute("INSERT OR IGNORE INTO price_books VALUES (?, ?, ?, ?)", row)

    def charge_book(self, sha256: str) -> ChargeBook:
        """A kept charge book."""
        sql = "SELECT content FROM charge_books WHERE sha256 = ?"
        return ChargeBook.from_bytes(self._db.execute(sql, (sha256,)).fetchone()[0])

    def keep_charge_book(self, book: ChargeBook) -> None:
        """Keep a charge book by its hash."""
        row = (book.sha256, book.to_bytes())
        self._db.execute("INSERT OR IGNORE INTO charge_books VALUES (?, ?)", row)

    def price_book_versions(self) -> list[tuple[str, str, str | None]]:
        """(sha256, id, source version) of every kept snapshot."""
        return [tuple(r) for r in self._db.execute("SELECT sha256, name, version FROM price_books")]

    # --- a rebuild -----------------------------------------------------------------------------

    def copied(self, event_ids: Collection[str] | None = None) -> dict[str, Posted]:
        """Event id -> what copied postings sum up to, of events not saved yet (None: all such)."""
        if self._db.execute("SELECT 1 FROM copied LIMIT 1").fetchone() is None:
            return {}
        if event_ids is None:
            event_ids = [row[0] for row in self._db.execute("SELECT event_id FROM copied")]
        sql = "SELECT event_id FROM copied WHERE event_id IN ({keys})"
        ids = [row[0] for row in select_in(self._db, sql, event_ids)]
        return {event_id: self.posted_for(event_id) for event_id in ids}

    def come_to(self, event_ids: Collection[str]) -> None:
        """Copied postings of these are accounted for."""
        if self._db.execute("SELECT 1 FROM copied LIMIT 1").fetchone() is not None:
            rows = [(event_id,) for event_id in event_ids]
            self._db.executemany("DELETE FROM copied WHERE event_id = ?", rows)


def place_of(each: Settled) -> tuple[Any, ...]:
    """Columns of an event's row: session, parent, started_at, request_id, trace_id."""
    event = each.event
    facts = event.facts
    return (facts.session, facts.parent, event.at_ns, facts.request_id, facts.trace_id)


def state_of(each: Settled) -> tuple[str, str | None, bool]:
    """Columns of an event's row: status, about, is_swept."""
    decision = each.decision
    about: str | None = None
    if decision is None:
        status, about = "open", awaited(each.event)
    elif decision.cost is None:
        status = "unmeasured" if "unmeasured" in decision.flags else "unpriced"
        line = would_be(each.event, decision)
        about = f"{line.effective_period} {line.owner}"
    elif not decision.is_money:
        status = "not_money"
    else:
        status = "posted" if len(each.posted) < 2 else "split"
    return status, about, each.event.is_swept
