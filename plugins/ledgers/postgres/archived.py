"""Which observations stand in an archive, which may go there, and how they come back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from costspan.core.schema import Observation
from costspan.plugins.ledgers.appending import digest_of_payload
from costspan.plugins.ledgers.postgres.database import Database, Row
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.rows import (
    EPOCH_BITS,
    journal_row,
    observation_of,
    seq_of,
    split_oid,
)

if TYPE_CHECKING:
    from costspan.plugins.ledgers.postgres.journal import JournalTables

_ROWS_PER_WRITE = 1000
_CHOOSING = """
    DROP TABLE IF EXISTS pg_temp.speaks;
    DROP TABLE IF EXISTS pg_temp.stays;
    CREATE TEMPORARY TABLE speaks (
        observation bigint NOT NULL,
        event text COLLATE "C" NOT NULL,
        PRIMARY KEY (event, observation)
    ) ON COMMIT DROP;
    CREATE INDEX ON pg_temp.speaks (observation);
    CREATE TEMPORARY TABLE stays (event text COLLATE "C" PRIMARY KEY) ON COMMIT DROP"""
_STAYS_FOR_WHAT_WAITS = """
    INSERT INTO pg_temp.stays
    SELECT events.id FROM waiting
    JOIN keys ON keys.key = waiting.key JOIN events ON events.n = keys.event
    ON CONFLICT DO NOTHING"""
"""Events that an observation leads to which speaks of none: it might, once others are gone."""
_STAYS_TOGETHER = """
    INSERT INTO pg_temp.stays
    SELECT others.event FROM pg_temp.stays AS s
    JOIN pg_temp.speaks AS mine ON mine.event = s.event
    JOIN pg_temp.speaks AS others ON others.observation = mine.observation
    ON CONFLICT DO NOTHING"""
"""What speaks of several events goes when all of them go."""
_CHOSEN = """
    FROM journal WHERE id IN (SELECT observation FROM pg_temp.speaks)
    AND NOT EXISTS (SELECT FROM pg_temp.speaks JOIN pg_temp.stays USING (event)
                    WHERE observation = journal.id)"""
_KEEP = {"observation": "bigint", "event": "text"}
_ARCHIVED = {"id": "bigint", "digest": "bytea", "crc": "bigint"}


class PostgresArchive:
    """What `core.retention` asks of the ledger; every write is in the caller's settlement."""

    def __init__(self, db: Database, journal: JournalTables) -> None:
        self._db = db
        self._journal = journal
        self._contested: list[Observation] = []

    def count(self) -> int:
        """How many observations are archived."""
        row = self._db.one("SELECT count(*) FROM archived")
        return 0 if row is None else int(row[0])

    def choose(self, events: Iterable[tuple[str, Collection[str], bool]]) -> int:
        """Choose what may go; see the protocol."""
        self._db.script(_CHOOSING)
        read = iter(events)
        while some := list(islice(read, _ROWS_PER_WRITE)):
            self._consider(some)
        self._db.run(_STAYS_FOR_WHAT_WAITS)
        while self._db.run(_STAYS_TOGETHER) > 0:
            pass
        row = self._db.one(f"SELECT count(*) {_CHOSEN}")
        return 0 if row is None else int(row[0])

    def _consider(self, events: list[tuple[str, Collection[str], bool]]) -> None:
        numbers = self._journal.numbers({oid for _, oids, _ in events for oid in oids})
        rows: list[Row] = [
            (numbers[oid], event_id)
            for event_id, oids, _ in events
            for oid in oids
            if oid in numbers
        ]
        source, bound = self._db.load("spoken", _KEEP, rows)
        sql = f"INSERT INTO pg_temp.speaks SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
        self._db.run(sql, *bound)
        # A child that names its parent by an oid finds it through the journal.
        sql = "SELECT DISTINCT parent FROM events WHERE parent = ANY(%b::text[])"
        named = {row[0] for row in self._db.rows(sql, list(numbers))}
        staying = [id for id, oids, may_go in events if not may_go or not named.isdisjoint(oids)]
        sql = "INSERT INTO pg_temp.stays SELECT unnest(%b::text[]) ON CONFLICT DO NOTHING"
        self._db.run(sql, staying)

    def chosen(self) -> Iterator[Observation]:
        """What was chosen, in the order of the journal."""
        names: dict[int, tuple[str, int]] = {}
        for number, payload in self._db.each(f"SELECT id, payload {_CHOSEN} ORDER BY id"):
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
            rows: list[Row] = []
            numbers = self._journal.numbers(batch)
            for kept in self._journal.observations(batch):
                number, digest = numbers[kept.oid or ""], digest_of_payload(kept)
                if kept == batch[kept.oid or ""]:
                    rows.append((number, digest, checksum(number, digest)))
            source, bound = self._db.load("taken", _ARCHIVED, rows)
            self._db.run(f"INSERT INTO archived SELECT * FROM {source}", *bound)  # noqa: S608
            sql = "DELETE FROM journal WHERE id = ANY(%b::bigint[])"
            self._db.run(sql, [row[0] for row in rows])
            taken += len(rows)
        return taken

    def bring_back(self, archived: Iterable[Observation]) -> int:
        """Put archived observations into the journal again, those that are the very same."""
        brought = 0
        for seen in archived:
            number = next(iter(self._journal.numbers((seen.oid or "",)).values()), None)
            digest = digest_of_payload(seen)
            sql = "DELETE FROM archived WHERE id = %s AND digest = %b"
            if number is None or not self._db.run(sql, number, digest):
                continue
            self._db.run("INSERT INTO journal VALUES (%s, %b, %s)", *journal_row(number, seen))
            self._contest(number, seen)
            brought += 1
        return brought

    def _contest(self, number: int, seen: Observation) -> None:
        """Take up the other payloads of its oid: some may have come while it was archived."""
        sql = "DELETE FROM conflicts WHERE observation = %s RETURNING payload"
        for (payload,) in self._db.rows(sql, number):
            self._contested.append(observation_of(*split_oid(seen.oid or ""), payload))

    def contested(self) -> list[Observation]:
        """The other payloads of what came back, which must be kept again; see the protocol."""
        return self._contested

    def late(self) -> list[Observation]:
        """What was set aside because it speaks of archived events."""
        sql = "SELECT DISTINCT oid FROM problems WHERE kind = 'archived' ORDER BY oid"
        return list(self._journal.observations([row[0] for row in self._db.rows(sql)]))
