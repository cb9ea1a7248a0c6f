"""Which observations stand in an archive, which may go there, and how they come back."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

from costspan.core.schema import Observation
from costspan.plugins.ledgers.appending import digest_of_payload
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.rows import (
    EPOCH_BITS,
    journal_row,
    observation_of,
    select_in,
    seq_of,
    split_oid,
)

if TYPE_CHECKING:
    from costspan.plugins.ledgers.sqlite.journal import JournalTables

_ROWS_PER_WRITE = 1000
_CHOOSING = (
    "CREATE TEMP TABLE IF NOT EXISTS speaks"
    " (observation INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (event, observation))"
    " WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS temp.speaks_observation ON speaks (observation)",
    "CREATE TEMP TABLE IF NOT EXISTS stays (event TEXT PRIMARY KEY) WITHOUT ROWID",
    "DELETE FROM temp.speaks",
    "DELETE FROM temp.stays",
)
_STAYS_FOR_WHAT_WAITS = """
    INSERT OR IGNORE INTO temp.stays
    SELECT events.id FROM waiting
    JOIN keys ON keys.key = waiting.key JOIN events ON events.n = keys.event"""
"""Events that an observation leads to which speaks of none: it might, once others are gone."""
_STAYS_TOGETHER = """
    INSERT OR IGNORE INTO temp.stays
    SELECT others.event FROM temp.stays AS s JOIN temp.speaks AS mine ON mine.event = s.event
    JOIN temp.speaks AS others ON others.observation = mine.observation"""
"""What speaks of several events goes when all of them go."""
_CHOSEN = """
    FROM journal WHERE id IN (SELECT observation FROM temp.speaks)
    AND id NOT IN (SELECT observation FROM temp.speaks JOIN temp.stays USING (event))"""


class ArchivedTable:
    """The table `archived`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    @cached_property
    def is_empty(self) -> bool:
        """Whether nothing was archived when this was first asked."""
        return self._db.execute("SELECT 1 FROM archived LIMIT 1").fetchone() is None

    def digests(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Row of the journal -> digest, of those of these rows that are archived."""
        if self.is_empty:
            return {}
        sql = "SELECT id, digest FROM archived WHERE id IN ({keys})"
        return {row[0]: row[1] for row in select_in(self._db, sql, numbers)}


class SqliteArchive:
    """What `core.retention` asks of the ledger; every write is in the caller's settlement."""

    def __init__(self, connection: sqlite3.Connection, journal: JournalTables) -> None:
        self._db = connection
        self._journal = journal
        self._contested: list[Observation] = []

    def count(self) -> int:
        """How many observations are archived."""
        return int(self._db.execute("SELECT count(*) FROM archived").fetchone()[0])

    def choose(self, events: Iterable[tuple[str, Collection[str], bool]]) -> int:
        """Choose what may go; see the protocol."""
        for statement in _CHOOSING:
            self._db.execute(statement)
        for event_id, oids, may_go in events:
            numbers = self._journal.numbers(oids)
            self._db.executemany(
                "INSERT OR IGNORE INTO temp.speaks VALUES (?, ?)",
                [(number, event_id) for number in numbers.values()],
            )
            # A child that names its parent by an oid finds it through the journal.
            if not may_go or self._has_children(oids):
                self._db.execute("INSERT OR IGNORE INTO temp.stays VALUES (?)", (event_id,))
        self._db.execute(_STAYS_FOR_WHAT_WAITS)
        while self._db.execute(_STAYS_TOGETHER).rowcount > 0:
            pass
        return int(self._db.execute(f"SELECT count(*) {_CHOSEN}").fetchone()[0])

    def _has_children(self, oids: Collection[str]) -> bool:
        sql = "SELECT 1 FROM events WHERE parent IN ({keys}) LIMIT 1"
        return next(select_in(self._db, sql, oids), None) is not None

    def chosen(self) -> Iterator[Observation]:
        """What was chosen, in the order of the journal."""
        names: dict[int, tuple[str, int]] = {}
        sql = f"SELECT id, payload {_CHOSEN} ORDER BY id"
        for number, payload in self._db.execute(sql):
            writer = number >> EPOCH_BITS
            if writer not in names:
                names = self._journal.writer_names({writer})
            name, epoch = names[writer]
            yield observation_of(name, seq_of(epoch, number), payload)

    def take_away(self, archived: Iterable[Observation]) -> int:
        """Put digests in the place of what an archive holds by now; how many."""
        taken = 0
        read = iter(archived)
        while batch := {seen.oid or "": seen for seen in islice(read, _ROWS_PER_WRITE)}:
            rows: list[tuple[int, bytes, int]] = []
            numbers = self._journal.numbers(batch)
            for kept in self._journal.observations(batch):
                number, digest = numbers[kept.oid or ""], digest_of_payload(kept)
                if kept == batch[kept.oid or ""]:
                    rows.append((number, digest, checksum(number, digest)))
            self._db.executemany("INSERT INTO archived VALUES (?, ?, ?)", rows)
            self._db.executemany("DELETE FROM journal WHERE id = ?", [row[:1] for row in rows])
            taken += len(rows)
        return taken

    def bring_back(self, archived: Iterable[Observation]) -> int:
        """Put archived observations into the journal again, those that are the very same."""
        brought = 0
        for seen in archived:
            number = next(iter(self._journal.numbers((seen.oid or "",)).values()), None)
            digest = digest_of_payload(seen)
            sql = "DELETE FROM archived WHERE id = ? AND digest = ?"
            if number is None or not self._db.execute(sql, (number, digest)).rowcount:
                continue
            self._db.execute("INSERT INTO journal VALUES (?, ?, ?)", journal_row(number, seen))
            self._contest(number, seen)
            brought += 1
        return brought

    def _contest(self, number: int, seen: Observation) -> None:
        """Take up the other payloads of its oid: some may have come while it was archived."""
        sql = "SELECT payload FROM conflicts WHERE observation = ?"
        for (payload,) in self._db.execute(sql, (number,)):
            self._contested.append(observation_of(*split_oid(seen.oid or ""), payload))
        self._db.execute("DELETE FROM conflicts WHERE observation = ?", (number,))

    def contested(self) -> list[Observation]:
        """The other payloads of what came back, which must be kept again; see the protocol."""
        return self._contested

    def late(self) -> list[Observation]:
        """What was set aside because it speaks of archived events."""
        sql = "SELECT DISTINCT oid FROM problems WHERE kind = 'archived' ORDER BY oid"
        return list(self._journal.observations([row[0] for row in self._db.execute(sql)]))
