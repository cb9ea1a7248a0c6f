"""The journal's tables: observations by oid, control records, and what follows from those alone."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator

import msgspec

from costspan.core.journal.records import (
    Assignment,
    Close,
    Control,
    Counts,
    Erasure,
    FreePostings,
    Policy,
    Pruned,
    Refusals,
    Restatement,
    SessionOwner,
)
from costspan.core.schema import Observation, oid_of
from costspan.core.settle.corrections import restated_order_of
from costspan.core.settle.entries import Appended
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers.appending import sort_out
from costspan.plugins.ledgers.sqlite.archived import ArchivedTable
from costspan.plugins.ledgers.sqlite.conflicts import ConflictTable
from costspan.plugins.ledgers.sqlite.persons import SqlitePersons
from costspan.plugins.ledgers.sqlite.rows import (
    EPOCH_BITS,
    epoch_of,
    journal_row,
    normal,
    observation_of,
    select_in,
    seq_of,
    split_oid,
)

Kept = Policy | SessionOwner | Assignment | Restatement | FreePostings | Erasure | Pruned | Close
"""The control records that are kept one by one."""
_encode_control = msgspec.msgpack.Encoder().encode
decode_control = msgspec.msgpack.Decoder(Kept).decode
"""A control record from the bytes of its row."""


class JournalTables:
    """What was recorded. Every value is bound; every write is in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._writer_ids: dict[tuple[str, int], int | None] = {}
        self.archive = ArchivedTable(connection)
        self.conflicts = ConflictTable(connection)

    # --- observations --------------------------------------------------------------------------

    def append(self, observations: Collection[Observation]) -> Appended:
        """Keep observations; an oid already kept with the same payload is a duplicate."""
        numbered: list[tuple[int, Observation]] = []
        for given in observations:
            seen = normal(given)
            numbered.append((self._row_id(seen, create=True), seen))
        numbers = {number for number, _ in numbered}
        stored = dict(self._rows(numbers))
        archived = self.archive.digests(numbers)
        done = sort_out(numbered, stored, archived)
        for number, held in done.withdrawn:
            self._withdraw(number, held)
        new = self.conflicts.new(done.losers)
        again = len(done.losers) - len(new)
        SqlitePersons(self._db).hide(done.fresh, new)
        self.conflicts.keep(new)
        self._insert(done.fresh, [number for number in done.fresh if number not in stored])
        replaced = [held for _, held in done.withdrawn]
        return Appended(
            list(done.fresh.values()), replaced, done.duplicates + again, done.conflicts - again
        )

    def has_archive(self) -> bool:
        """Whether any observation stands in an archive."""
        return not self.archive.is_empty

    def archived(self, oids: Collection[str]) -> set[str]:
        """Those of these oids whose observations stand in an archive."""
        numbers = self.numbers(oids)
        archived = self.archive.digests(numbers.values())
        return {oid for oid, number in numbers.items() if number in archived}

    def observations(self, oids: Collection[str]) -> Iterable[Observation]:
        """The observations of these oids that are kept."""
        numbers = self.numbers(oids).values()
        return [seen for _, seen in self._rows(numbers)] if numbers else []

    def numbers(self, oids: Collection[str]) -> dict[str, int]:
        """Oid -> its row, whether it is there or not, of those whose writer is known."""
        found: dict[str, int] = {}
        for oid in oids:
            number = self._number(*split_oid(oid), create=False)
            if number is not None:
                found[oid] = number
        return found

    def _rows(self, numbers: Collection[int]) -> Iterator[tuple[int, Observation]]:
        """(row id, observation) of the rows there are."""
        sql = "SELECT id, payload FROM journal WHERE id IN ({keys})"
        rows = list(select_in(self._db, sql, sorted(numbers)))
        names = self.writer_names({number >> EPOCH_BITS for number, _ in rows})
        for number, payload in rows:
            writer, epoch = names[number >> EPOCH_BITS]
            yield number, observation_of(writer, seq_of(epoch, number), payload)

    def writer_names(self, writer_ids: Collection[int]) -> dict[int, tuple[str, int]]:
        """Writer -> (name, epoch)."""
        sql = "SELECT id, name, epoch FROM writers WHERE id IN ({keys})"
        return {row[0]: (row[1], row[2]) for row in select_in(self._db, sql, writer_ids)}

    def _row_id(self, seen: Observation, *, create: bool) -> int:
        """The row of an observation in its normal form."""
        writer, seq = seen.writer, seen.seq
        if writer is None or seq is None or writer == seen.oid:
            writer, seq = split_oid(oid_of(seen))
        number = self._number(writer, seq, create=create)
        assert number is not None
        return number

    def _number(self, writer: str, seq: int, *, create: bool) -> int | None:
        epoch, low = epoch_of(seq)
        key = (writer, epoch)
        known = self._writer_ids.get(key)
        if known is None:
            if create:
                self._db.execute(
                    "INSERT OR IGNORE INTO writers (name, epoch, greatest, kept)"
                    " VALUES (?, ?, 0, 0)",
                    key,
                )
            sql = "SELECT id FROM writers WHERE name = ? AND epoch = ?"
            row = self._db.execute(sql, key).fetchone()
            if row is None:
                return None
            known = self._writer_ids[key] = int(row[0])
        return known << EPOCH_BITS | low

    def _withdraw(self, number: int, loser: Observation) -> None:
        """Take out of the journal what lost its oid to another payload, and its evidence."""
        self._db.execute("DELETE FROM journal WHERE id = ?", (number,))
        if authenticates(loser):
            row = (loser.session, loser.tenant)
            self._db.execute(
                """UPDATE directory SET witnesses = witnesses - 1
                   WHERE session = ? AND source = 'evidence' AND tenant = ?""",
                row,
            )
            self._db.execute(
                """DELETE FROM directory WHERE session = ? AND source = 'evidence' AND tenant = ?
                   AND witnesses = 0""",
                row,
            )

    def _insert(self, fresh: dict[int, Observation], new: list[int]) -> None:
        self._db.executemany(
            "INSERT INTO journal VALUES (?, ?, ?)",
            [journal_row(number, seen) for number, seen in sorted(fresh.items())],
        )
        grown: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for number in new:
            counts = grown[number >> EPOCH_BITS]
            counts[0] = max(counts[0], number & (1 << EPOCH_BITS) - 1)
            counts[1] += 1
        self._db.executemany(
            "UPDATE writers SET greatest = max(greatest, ?), kept = kept + ? WHERE id = ?",
            [(*counts, writer) for writer, counts in grown.items()],
        )
        sessions: Counter[tuple[str, str]] = Counter()
        for seen in fresh.values():
            if seen.session is not None and authenticates(seen):
                sessions[seen.session, seen.tenant or ""] += 1
        self._db.executemany(
            """INSERT INTO directory VALUES (?, ?, 'evidence', 0, ?)
               ON CONFLICT DO UPDATE SET witnesses = witnesses + excluded.witnesses""",
            [(*session, witnesses) for session, witnesses in sorted(sessions.items())],
        )

    # --- control records -----------------------------------------------------------------------

    def append_control(self, records: Iterable[Control]) -> list[Control]:
        """Keep control records; returns those not kept before."""
        new: list[Control] = []
        for record in records:
            if isinstance(record, Refusals | Counts):
                self._count(record.writer, type(record).__name__, record.counts)
            elif isinstance(record, Kept) and self._keep_control(record):
                new.append(record)
        return new

    def _count(self, writer: str, kind: str, counts: dict[str, int]) -> None:
        self._db.executemany(
            """INSERT INTO counted VALUES (?1, ?2, ?3, ?4, checksum(?1, ?2, ?3, ?4))
               ON CONFLICT DO UPDATE SET times = excluded.times, crc = excluded.crc
               WHERE excluded.times > times""",
            [(writer, kind, name, times) for name, times in counts.items()],
        )

    def _keep_control(self, record: Kept) -> bool:
        payload = _encode_control(record)
        before = self._db.total_changes
        self._db.execute(
            "INSERT OR IGNORE INTO controls (sha256, kind, payload) VALUES (?, ?, ?)",
            (hashlib.sha256(payload).hexdigest(), type(record).__name__, payload),
        )
        if self._db.total_changes == before:
            return False
        if isinstance(record, SessionOwner):
            self._db.execute(
                """INSERT INTO directory VALUES (?, ?, 'operator', ?, 1)
                   ON CONFLICT DO UPDATE
                   SET recorded_at = max(recorded_at, excluded.recorded_at)""",
                (record.session, record.tenant, record.recorded_at),
            )
        if isinstance(record, Assignment):
            self._db.execute(
                "INSERT OR IGNORE INTO assignments VALUES (?, ?, ?, ?, ?)",
                (record.event, record.recorded_at, record.tenant, record.by, record.reason),
            )
        if isinstance(record, FreePostings):
            # The control's row: `last_insert_rowid` does not change in tables without row ids.
            self._db.executemany(
                "INSERT INTO free_owners VALUES (?, last_insert_rowid())",
                [(owner,) for owner in sorted({line.owner for line in record.lines})],
            )
        if isinstance(record, Restatement):
            self._db.execute(
                "INSERT OR IGNORE INTO restatements VALUES (?, last_insert_rowid())",
                (record.event or record.period,),
            )
        return True

    def kept_controls(self, kind: str | None = None) -> list[Kept]:
        """The control records kept, all or of one kind, in the order they came."""
        if kind is None:
            rows = self._db.execute("SELECT payload FROM controls ORDER BY id")
        else:
            sql = "SELECT payload FROM controls WHERE kind = ? ORDER BY id"
            rows = self._db.execute(sql, (kind,))
        return [decode_control(row[0]) for row in rows]

    def free_postings(self, period: str | None, owner: str | None) -> Iterator[FreePostings]:
        """The records of free postings of a period, and about an owner, where named."""
        sql = "SELECT payload FROM controls WHERE kind = 'FreePostings' ORDER BY id"
        bound: tuple[str, ...] = ()
        if owner is not None:
            sql = """SELECT payload FROM free_owners JOIN controls ON id = control
                     WHERE owner = ? ORDER BY id"""
            bound = (owner,)
        for (payload,) in self._db.execute(sql, bound):
            record = decode_control(payload)
            assert isinstance(record, FreePostings)
            if period is None or record.period == period:
                yield record

    def policies(self) -> list[Policy]:
        """Every policy record, oldest `effective_from` first."""
        found = [each for each in self.kept_controls("Policy") if isinstance(each, Policy)]
        return sorted(found, key=lambda policy: policy.effective_from)

    def closes(self) -> list[Close]:
        """Every close, the earliest period first."""
        found = [each for each in self.kept_controls("Close") if isinstance(each, Close)]
        return sorted(found, key=lambda close: close.period)

    def closed_until(self) -> str | None:
        """The last period that is closed (YYYY-MM); None if none is."""
        return max((close.period for close in self.closes()), default=None)

    def has_assignments(self) -> bool:
        """Whether any event was ever assigned."""
        return self._db.execute("SELECT 1 FROM assignments LIMIT 1").fetchone() is not None

    def assignments(self, names: Collection[str]) -> dict[str, Assignment]:
        """Name -> the assignment in force, for those of these names that have one."""
        sql = """
            SELECT event, tenant, by, reason, recorded_at FROM assignments WHERE event IN ({keys})
            ORDER BY recorded_at, tenant, by, reason"""
        return {row[0]: Assignment(*row) for row in select_in(self._db, sql, names)}

    def has_restatements(self) -> bool:
        """Whether any event or period was ever restated."""
        return self._db.execute("SELECT 1 FROM restatements LIMIT 1").fetchone() is not None

    def restatements(self, names: Collection[str]) -> dict[str, Restatement]:
        """Name of an event, or period -> the restatement in force, for those that have one."""
        sql = """
            SELECT name, payload FROM restatements JOIN controls ON id = control
            WHERE name IN ({keys})"""
        found: dict[str, Restatement] = {}
        for name, payload in select_in(self._db, sql, names):
            record = decode_control(payload)
            assert isinstance(record, Restatement)
            other = found.get(name)
            if other is None or restated_order_of(other) < restated_order_of(record):
                found[name] = record
        return found

    def session_owners(self, sessions: Collection[str]) -> dict[str, str]:
        """The operator's latest row; else the evidence, where it is of one mind."""
        sql = """
            SELECT session, source, tenant FROM directory WHERE session IN ({keys})
            ORDER BY source, recorded_at, tenant"""
        evidence: dict[str, set[str]] = {}
        owners: dict[str, str] = {}
        for session, source, tenant in select_in(self._db, sql, sessions):
            if source == "operator":
                owners[session] = tenant
            else:
                evidence.setdefault(session, set()).add(tenant)
        for session, tenants in evidence.items():
            if len(tenants) == 1 and session not in owners:
                (owners[session],) = tenants
        return owners
