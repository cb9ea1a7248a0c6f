"""The journal's tables: observations by oid, and the other payloads of an oid that was taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property

from costspan.core.schema import Observation
from costspan.core.settle.entries import Appended
from costspan.plugins.ledgers.appending import Numbered, payload_hash, sort_out
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.controls import ControlTables
from costspan.plugins.ledgers.journal_rows import (
    EPOCH_BITS,
    normal,
    observation_of,
    payload_of,
    seq_of,
)
from costspan.plugins.ledgers.persons import Persons

_IF_NEW = "ON CONFLICT DO NOTHING"


class JournalTables(ControlTables, ABC):
    """What was recorded. Every value is bound; every write is in the caller's transaction."""

    def append(self, observations: Collection[Observation]) -> Appended:
        """Keep observations; an oid already kept with the same payload is a duplicate."""
        arrived = [normal(given) for given in observations]
        if not arrived:
            return Appended([], [], 0, 0)
        numbers = self._places(arrived)
        stored = dict(self._rows(set(numbers)))
        done = sort_out(zip(numbers, arrived, strict=True), stored, self.archived_digests(numbers))
        losers = self._new_losers(done.losers)
        again = len(done.losers) - len(losers)
        Persons(self._ask).hide(done.fresh, losers)
        self._keep_losers(losers)
        self._withdraw(done.withdrawn)
        self._insert(done.fresh, stored.keys())
        replaced = [held for _, held in done.withdrawn]
        return Appended(
            list(done.fresh.values()), replaced, done.duplicates + again, done.conflicts - again
        )

    @abstractmethod
    def _places(self, arrived: Collection[Observation]) -> list[int]:
        """The rows of observations in their normal form; a writer that is new is kept."""

    @abstractmethod
    def _withdraw(self, withdrawn: list[Numbered]) -> None:
        """Take out of the journal what lost its oid to another payload, and its evidence."""

    @abstractmethod
    def _insert(self, fresh: dict[int, Observation], stored: Collection[int]) -> None:
        """Keep observations by their rows, and their evidence; of these rows some were there."""

    # --- what is there -------------------------------------------------------------------------

    @abstractmethod
    def numbers(self, oids: Collection[str]) -> dict[str, int]:
        """Oid -> its row, whether it is there or not, of those whose writer is known."""

    def observations(self, oids: Collection[str]) -> Iterable[Observation]:
        """The observations of these oids that are kept."""
        return [seen for _, seen in self._rows(self.numbers(oids).values())]

    def _rows(self, numbers: Collection[int]) -> Iterator[tuple[int, Observation]]:
        """(row id, observation) of the rows there are, in order."""
        sql = "SELECT id, payload FROM journal WHERE id IN ({keys}) ORDER BY id"
        rows = list(self._ask.among(sql, sorted(numbers)))
        names = self.writer_names({number >> EPOCH_BITS for number, _ in rows})
        for number, payload in rows:
            writer, epoch = names[number >> EPOCH_BITS]
            yield number, observation_of(writer, seq_of(epoch, number), payload)

    def writer_names(self, writer_ids: Collection[int]) -> dict[int, tuple[str, int]]:
        """Writer -> (name, epoch)."""
        sql = "SELECT id, name, epoch FROM writers WHERE id IN ({keys})"
        return {row[0]: (row[1], row[2]) for row in self._ask.among(sql, writer_ids)}

    def has_archive(self) -> bool:
        """Whether any observation stands in an archive."""
        return self._has_archive

    @cached_property
    def _has_archive(self) -> bool:
        return self._ask.one("SELECT 1 FROM archived LIMIT 1") is not None

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
        sql = "SELECT id, digest FROM archived WHERE id IN ({keys})"
        return {row[0]: row[1] for row in self._ask.among(sql, numbers)}

    # --- other payloads ------------------------------------------------------------------------

    def _new_losers(self, losers: list[Numbered]) -> list[Numbered]:
        """Those that are not kept yet, each once: of all others nothing is kept again."""
        if not losers:
            return losers
        sql = "SELECT observation, sha256 FROM conflicts WHERE observation IN ({keys})"
        known = set(self._ask.among(sql, sorted({number for number, _ in losers})))
        named = {(number, payload_hash(loser)): (number, loser) for number, loser in losers}
        return [loser for key, loser in named.items() if key not in known]

    def _keep_losers(self, losers: list[Numbered]) -> None:
        """Keep them, and list that there is a conflict."""
        named = [(number, payload_hash(loser), payload_of(loser)) for number, loser in losers]
        self._ask.insert("conflicts", [(*row, checksum(*row)) for row in named], _IF_NEW)
        problems = [("conflict", loser.oid, "") for _, loser in losers]
        self._ask.insert("problems", problems, _IF_NEW)
