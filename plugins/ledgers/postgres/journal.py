"""The journal's tables in PostgreSQL: writers, and the evidence of whose a session is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

from costspan.core.ledger_errors import LedgerError
from costspan.core.schema import Observation, oid_of
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers import journal
from costspan.plugins.ledgers.appending import Numbered
from costspan.plugins.ledgers.journal_rows import EPOCH_BITS, epoch_of, journal_row, split_oid
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.queries import PostgresQueries

Epoch = tuple[str, int]
"""A writer and its epoch."""

_JOURNAL = {"id": "bigint", "payload": "bytea", "crc": "bigint"}
_LOW = (1 << EPOCH_BITS) - 1


class JournalTables(journal.JournalTables):
    """What was recorded. Every value is bound; every write is in the caller's transaction."""

    def __init__(self, db: Database) -> None:
        super().__init__(PostgresQueries(db))
        self._db = db
        self._writer_ids: dict[Epoch, int] = {}

    def _places(self, arrived: Collection[Observation]) -> list[int]:
        """The rows of observations in their normal form; a writer that is new is kept."""
        places = [_place_of(seen) for seen in arrived]
        self._know({epoch for epoch, _ in places}, create=True)
        return [self._writer_ids[epoch] << EPOCH_BITS | low for epoch, low in places]

    def numbers(self, oids: Collection[str]) -> dict[str, int]:
        """Oid -> its row, whether it is there or not, of those whose writer is known."""
        if not oids:
            return {}
        places = {oid: _place_of_oid(oid) for oid in oids}
        self._know({epoch for epoch, _ in places.values()}, create=False)
        ids = self._writer_ids
        return {
            oid: ids[epoch] << EPOCH_BITS | low
            for oid, (epoch, low) in places.items()
            if epoch in ids
        }

    def _know(self, epochs: Collection[Epoch], *, create: bool) -> None:
        """Look up the numbers of writers; those that are new are made, if asked for."""
        known = self._writer_ids
        if missing := [epoch for epoch in epochs if epoch not in known]:
            known.update(self._find_writers(missing))
        if create and (new := sorted(epoch for epoch in epochs if epoch not in known)):
            sql = """
                INSERT INTO writers (name, epoch, greatest, kept)
                SELECT name, epoch, 0, 0 FROM unnest(%b::text[], %b::bigint[]) AS new (name, epoch)
                ON CONFLICT DO NOTHING"""
            self._db.run(sql, *map(list, zip(*new, strict=True)))
            known.update(self._find_writers(new))

    def _find_writers(self, epochs: list[Epoch]) -> dict[Epoch, int]:
        sql = """
            SELECT name, epoch, id FROM writers JOIN unnest(%b::text[], %b::bigint[])
            AS wanted (name, epoch) USING (name, epoch)"""
        rows = self._db.rows(sql, *map(list, zip(*epochs, strict=True)))
        return {(name, epoch): number for name, epoch, number in rows}

    def _withdraw(self, withdrawn: list[Numbered]) -> None:
        """Take out of the journal what lost its oid to another payload, and its evidence."""
        if not withdrawn:
            return
        numbers = [number for number, _ in withdrawn]
        self._db.run("DELETE FROM journal WHERE id = ANY(%b::bigint[])", numbers)
        seen = [each for _, each in withdrawn]
        self._witness(seen, -1)
        sql = """
            DELETE FROM directory
            WHERE session = ANY(%b::text[]) AND source = 'evidence' AND witnesses = 0"""
        self._db.run(sql, [each.session for each in seen if each.session])

    def _insert(self, fresh: dict[int, Observation], stored: Collection[int]) -> None:
        """Keep observations by their rows, and their evidence; of these rows some were there."""
        if not fresh:
            return
        rows = [journal_row(number, seen) for number, seen in sorted(fresh.items())]
        source, bound = self._db.load("arrived", _JOURNAL, rows)
        sql = f"INSERT INTO journal SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
        if self._db.run(sql, *bound) != len(fresh):
            raise LedgerError("another settler writes at the same time, without the lease")
        greatest: dict[int, int] = {}
        kept: Counter[int] = Counter()
        for number in fresh:
            writer = number >> EPOCH_BITS
            greatest[writer] = max(greatest.get(writer, 0), number & _LOW)
            kept[writer] += number not in stored
        sql = """
            UPDATE writers SET greatest = greatest(writers.greatest, grown.greatest),
                               kept = writers.kept + grown.kept
            FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[]) AS grown (id, greatest, kept)
            WHERE writers.id = grown.id"""
        ids = sorted(greatest)
        self._db.run(sql, ids, [greatest[each] for each in ids], [kept[each] for each in ids])
        self._witness(fresh.values(), 1)

    def _witness(self, seen: Iterable[Observation], sign: int) -> None:
        """Count who says whose a session is."""
        sessions = Counter(
            (each.session or "", each.tenant or "") for each in seen if authenticates(each)
        )
        if not sessions:
            return
        sql = """
            INSERT INTO directory
            SELECT session, tenant, 'evidence', 0, witnesses
            FROM unnest(%b::text[], %b::text[], %b::bigint[]) AS said (session, tenant, witnesses)
            ON CONFLICT (session, source, tenant)
            DO UPDATE SET witnesses = directory.witnesses + excluded.witnesses"""
        ordered = sorted(sessions)
        columns = [list(column) for column in zip(*ordered, strict=True)]
        self._db.run(sql, *columns, [sign * sessions[each] for each in ordered])


def _place_of(seen: Observation) -> tuple[Epoch, int]:
    """Where an observation in its normal form is kept: the writer's epoch, the number in it."""
    writer, seq = seen.writer, seen.seq
    if writer is None or seq is None or writer == seen.oid:
        return _place_of_oid(oid_of(seen))
    epoch, low = epoch_of(seq)
    return (writer, epoch), low


def _place_of_oid(oid: str) -> tuple[Epoch, int]:
    writer, seq = split_oid(oid)
    epoch, low = epoch_of(seq)
    return (writer, epoch), low
