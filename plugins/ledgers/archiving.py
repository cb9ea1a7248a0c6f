"""Which observations stand in an archive, which may go there, and how they come back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from costspan.core.schema import Observation
from costspan.plugins.ledgers.appending import digest_of_payload
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.journal_rows import (
    EPOCH_BITS,
    journal_row,
    observation_of,
    seq_of,
    split_oid,
)
from costspan.plugins.ledgers.look_ups import LookUps
from costspan.plugins.ledgers.queries import Queries, Row

_ROWS_PER_WRITE = 1000
_IF_NEW = "ON CONFLICT DO NOTHING"
_STAYS_FOR_WHAT_WAITS = """
    INSERT INTO stays
    SELECT id FROM waiting JOIN keys ON keys.key = waiting.key JOIN {events} ON n = keys.event
    WHERE TRUE ON CONFLICT DO NOTHING"""
"""Events that an observation leads to which speaks of none: it might, once others are gone."""
_STAYS_TOGETHER = """
    INSERT INTO stays
    SELECT others.event FROM stays AS s JOIN speaks AS mine ON mine.event = s.event
    JOIN speaks AS others ON others.observation = mine.observation
    WHERE TRUE ON CONFLICT DO NOTHING"""
"""What speaks of several events goes when all of them go."""
_CHOSEN = """
    FROM journal WHERE id IN (SELECT observation FROM speaks)
    AND NOT EXISTS (SELECT 1 FROM speaks JOIN stays USING (event)
                    WHERE observation = journal.id)"""
Spoken = tuple[str, Collection[str], bool]
"""An event, the oids that speak of it, and whether they may go."""


class Archiving(ABC):
    """What `core.retention` asks of the ledger; every write is in the caller's settlement."""

    def __init__(self, ask: Queries, journal: LookUps) -> None:
        self._ask = ask
        self._journal = journal
        self._contested: list[Observation] = []

    @abstractmethod
    def _begin(self) -> None:
        """Make the temporary tables that choosing needs, or empty them.

        `speaks` (observation, event) has the rows of the journal that speak of an event, `stays`
        (event) the events whose rows stay; neither has a row twice.
        """

    def count(self) -> int:
        """How many observations are archived."""
        return self._ask.number("SELECT count(*) FROM archived")

    def choose(self, events: Iterable[Spoken]) -> int:
        """Choose what may go; see the protocol."""
        self._begin()
        read = iter(events)
        while some := list(islice(read, _ROWS_PER_WRITE)):
            self._consider(some)
        self._ask.run(_STAYS_FOR_WHAT_WAITS.format(events=self._ask.events))
        while self._ask.run(_STAYS_TOGETHER) > 0:
            pass
        return self._ask.number(f"SELECT count(*) {_CHOSEN}")

    def _consider(self, events: list[Spoken]) -> None:
        numbers = self._journal.numbers({oid for _, oids, _ in events for oid in oids})
        speaks: list[Row] = [
            (numbers[oid], event_id)
            for event_id, oids, _ in events
            for oid in oids
            if oid in numbers
        ]
        # A child that names its parent by an oid finds it through the journal.
        sql = f"SELECT DISTINCT parent FROM {self._ask.events} WHERE parent IN ({{keys}})"  # noqa: S608
        named = {row[0] for row in self._ask.among(sql, list(numbers))}
        stays: list[Row] = [
            (id,) for id, oids, may_go in events if not may_go or not named.isdisjoint(oids)
        ]
        self._ask.insert("speaks", speaks, _IF_NEW)
        self._ask.insert("stays", stays, _IF_NEW)

    def chosen(self) -> Iterator[Observation]:
        """What was chosen, in the order of the journal."""
        names: dict[int, tuple[str, int]] = {}
        for number, payload in self._ask.each(f"SELECT id, payload {_CHOSEN} ORDER BY id"):
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
            self._ask.insert("archived", rows)
            self._ask.run_among(
                "DELETE FROM journal WHERE id IN ({keys})", [row[0] for row in rows]
            )
            taken += len(rows)
        return taken

    def bring_back(self, archived: Iterable[Observation]) -> int:
        """Put archived observations into the journal again, those that are the very same."""
        brought = 0
        for seen in archived:
            number = next(iter(self._journal.numbers((seen.oid or "",)).values()), None)
            digest = digest_of_payload(seen)
            sql = "DELETE FROM archived WHERE id = ? AND digest = ?"
            if number is None or not self._ask.run(sql, number, digest):
                continue
            self._ask.insert("journal", [journal_row(number, seen)])
            self._contest(number, seen)
            brought += 1
        return brought

    def _contest(self, number: int, seen: Observation) -> None:
        """Take up the other payloads of its oid: some may have come while it was archived."""
        sql = "DELETE FROM conflicts WHERE observation = ? RETURNING payload"
        for (payload,) in self._ask.rows(sql, number):
            self._contested.append(observation_of(*split_oid(seen.oid or ""), payload))

    def contested(self) -> list[Observation]:
        """The other payloads of what came back, which must be kept again; see the protocol."""
        return self._contested

    def late(self) -> list[Observation]:
        """What was set aside because it speaks of archived events."""
        sql = "SELECT DISTINCT oid FROM problems WHERE kind = 'archived' ORDER BY oid"
        return list(self._journal.observations([row[0] for row in self._ask.rows(sql)]))
