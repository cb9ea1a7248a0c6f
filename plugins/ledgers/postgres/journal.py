"""The journal's tables: observations by oid, and what follows from those alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property

from costspan.core.ledger_errors import LedgerError
from costspan.core.schema import Observation, oid_of
from costspan.core.settle.entries import Appended
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers.appending import Numbered, payload_hash, sort_out
from costspan.plugins.ledgers.postgres.controls import ControlTables
from costspan.plugins.ledgers.postgres.persons import PostgresPersons
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.rows import (
    EPOCH_BITS,
    epoch_of,
    journal_row,
    normal,
    observation_of,
    payload_of,
    seq_of,
    split_oid,
)

Epoch = tuple[str, int]
"""A writer and its epoch."""

_JOURNAL = {"id": "bigint", "payload": "bytea", "crc": "bigint"}
_LOW = (1 << EPOCH_BITS) - 1


class JournalTables(ControlTables):
    """What was recorded. Every value is bound; every write is in the caller's transaction."""

    @cached_property
    def _writer_ids(self) -> dict[Epoch, int]:
        return {}

    def append(self, observations: Collection[Observation]) -> Appended:
        """Keep observations; an oid already kept with the same payload is a duplicate."""
        arrived = [normal(given) for given in observations]
        if not arrived:
            return Appended([], [], 0, 0)
        places = [_place_of(seen) for seen in arrived]
        self._know({epoch for epoch, _ in places}, create=True)
        numbers = [self._writer_ids[epoch] << EPOCH_BITS | low for epoch, low in places]
        stored = dict(self._rows(numbers))
        done = sort_out(zip(numbers, arrived, strict=True), stored, self.archived_digests(numbers))
        losers = self._new_losers(done.losers)
        again = len(done.losers) - len(losers)
        PostgresPersons(self._db).hide(done.fresh, losers)
        self._keep_losers(losers)
        self._withdraw(done.withdrawn)
        self._insert(done.fresh, stored.keys())
        replaced = [held for _, held in done.withdrawn]
        return Appended(
            list(done.fresh.values()), replaced, done.duplicates + again, done.conflicts - again
        )

    # --- what is there -------------------------------------------------------------------------

    def has_archive(self) -> bool:
        """Whether any observation stands in an archive."""
        return self._has_archive

    @cached_property
    def _has_archive(self) -> bool:
        return self._db.one("SELECT 1 FROM archived LIMIT 1") is not None

    def archived(self, oids: Collection[str]) -> set[str]:
        """Those of these oids whose observations stand in an archive."""
        if not self._has_archive:
            return set()
        numbers = self.numbers(oids)
        archived = self.archived_digests(numbers.values())
        return {oid for oid, number in numbers.items() if number in archived}

    def archived_digests(self, numbers: Collection[int]) -> dict[int, bytes]:
        """Row of the journal -> digest, of those of these rows that are archived."""
        if not self._has_archive:
            return {}
        sql = "SELECT id, digest FROM archived WHERE id = ANY(%b::bigint[])"
        return {row[0]: row[1] for row in self._db.rows(sql, list(numbers))}

    def observations(self, oids: Collection[str]) -> Iterable[Observation]:
        """The observations of these oids that are kept."""
        return [seen for _, seen in self._rows(self.numbers(oids).values())]

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

    def _rows(self, numbers: Collection[int]) -> Iterator[tuple[int, Observation]]:
        """(row id, observation) of the rows there are."""
        if not numbers:
            return
        sql = "SELECT id, payload FROM journal WHERE id = ANY(%b::bigint[])"
        rows = self._db.rows(sql, sorted(set(numbers)))
        names = self.writer_names({number >> EPOCH_BITS for number, _ in rows})
        for number, payload in rows:
            writer, epoch = names[number >> EPOCH_BITS]
            yield number, observation_of(writer, seq_of(epoch, number), payload)

    def writer_names(self, writer_ids: Collection[int]) -> dict[int, Epoch]:
        """Writer -> (name, epoch)."""
        if not writer_ids:
            return {}
        sql = "SELECT id, name, epoch FROM writers WHERE id = ANY(%b::bigint[])"
        return {row[0]: (row[1], row[2]) for row in self._db.rows(sql, list(writer_ids))}

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

    # --- what is written -----------------------------------------------------------------------

    def _new_losers(self, losers: list[Numbered]) -> list[Numbered]:
        """Those that are not kept yet, each once: of all others nothing is kept again."""
        if not losers:
            return losers
        sql = "SELECT observation, sha256 FROM conflicts WHERE observation = ANY(%b::bigint[])"
        known = {(row[0], row[1]) for row in self._db.rows(sql, sorted({n for n, _ in losers}))}
        named = {(number, payload_hash(loser)): (number, loser) for number, loser in losers}
        return [loser for key, loser in named.items() if key not in known]

    def _keep_losers(self, losers: list[Numbered]) -> None:
        if not losers:
            return
        named = [(number, payload_hash(loser), payload_of(loser)) for number, loser in losers]
        rows = [(*row, checksum(*row)) for row in named]
        columns = {"observation": "bigint", "sha256": "text", "payload": "bytea", "crc": "bigint"}
        source, bound = self._db.load("losers", columns, rows)
        sql = f"INSERT INTO conflicts SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
        self._db.run(sql, *bound)
        sql = """
            INSERT INTO problems SELECT 'conflict', oid, '' FROM unnest(%b::text[]) AS oid
            ON CONFLICT DO NOTHING"""
        self._db.run(sql, [loser.oid for _, loser in losers])

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
        if not fresh:
            return
        rows = [journal_row(number, seen) for number, seen in sorted(fresh.items())]
        source, bound = self._db.load("arrived", _JOURNAL, rows)
        sql = f"""
            INSERT INTO journal SELECT * FROM {source} ON CONFLICT DO NOTHING
            RETURNING id"""  # noqa: S608
        inserted = [row[0] for row in self._db.rows(sql, *bound)]
        if len(inserted) != len(fresh):
            raise LedgerError("another settler writes at the same time, without the lease")
        greatest: dict[int, int] = {}
        kept: Counter[int] = Counter()
        for number in inserted:
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
