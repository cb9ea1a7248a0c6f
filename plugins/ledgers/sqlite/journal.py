"""The journal's tables: observations by oid, control records, and the links that join them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from costspan.core.join.identity import goes_by_response, own_part
from costspan.core.journal.records import Control, Policy, Refusals, SessionOwner
from costspan.core.schema import Observation, canonical
from costspan.core.settle.ledger import Appended
from costspan.core.settle.settle import authenticates_session
from costspan.plugins.ledgers.sqlite.rows import (
    normal,
    observation_of,
    payload_of,
    select_in,
    split_oid,
)

_encode_control = msgspec.msgpack.Encoder().encode
_decode_control = msgspec.msgpack.Decoder(Policy | SessionOwner).decode
OPERATION, RESPONSE, _BY_RESPONSE = "o:", "r:", "R:"
"""Responses are found by the provider's own part of their ids: a gateway's client knows no more."""
LOOSE = "\t"
"""Begins the link to an observation without an attempt; no attempt id begins so: ids are printable.
"""


class JournalTables:
    """What was recorded. Every value is bound; every write is in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._writer_ids: dict[str, int] = {}

    # --- the journal ---------------------------------------------------------------------------

    def append(
        self, observations: Collection[Observation], gateways: Sequence[str] = ()
    ) -> Appended:
        """Keep observations; an oid already kept with the same payload is a duplicate."""
        fresh: dict[tuple[int, int], Observation] = {}
        replaced: list[Observation] = []
        duplicates = conflicts = 0
        for given in observations:
            seen = normal(given)
            writer, seq = split_oid(seen.oid or "")
            key = (self._writer_id(writer), seq)
            stored = None if key in fresh else self._held(key, writer)
            held = stored or fresh.get(key)
            if held is None:
                fresh[key] = seen
            elif held == seen or _hash(held) == _hash(seen):
                duplicates += 1
            else:
                conflicts += 1
                winner, loser = sorted((held, seen), key=_hash)
                self._keep_loser(key, loser)
                if winner is seen:
                    fresh[key] = seen
                    if stored is not None:
                        self._withdraw(key, stored)
                        replaced.append(stored)
        self._insert(fresh, gateways)
        return Appended(list(fresh.values()), replaced, duplicates, conflicts)

    def _held(self, key: tuple[int, int], writer: str) -> Observation | None:
        sql = "SELECT payload FROM journal WHERE writer = ? AND seq = ?"
        row = self._db.execute(sql, key).fetchone()
        return observation_of(writer, key[1], row[0]) if row else None

    def _keep_loser(self, key: tuple[int, int], loser: Observation) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO conflicts VALUES (?, ?, ?, ?)",
            (*key, _hash(loser), payload_of(loser)),
        )
        self._db.execute("INSERT OR IGNORE INTO problems VALUES ('conflict', ?, '')", (loser.oid,))

    def _withdraw(self, key: tuple[int, int], loser: Observation) -> None:
        """Take out of the journal what lost its oid to another payload, and its evidence.

        Its links may stay: they only say where to look.
        """
        self._db.execute("DELETE FROM journal WHERE writer = ? AND seq = ?", key)
        if authenticates_session(loser):
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

    def _insert(
        self, fresh: Mapping[tuple[int, int], Observation], gateways: Sequence[str]
    ) -> None:
        self._db.executemany(
            "INSERT INTO journal (writer, seq, attempt, payload) VALUES (?, ?, ?, ?)",
            [(*key, seen.attempt_id, payload_of(seen)) for key, seen in fresh.items()],
        )
        links: set[tuple[str, str]] = set()
        sessions: Counter[tuple[str, str]] = Counter()
        for (writer, seq), seen in fresh.items():
            target = seen.attempt_id or f"{LOOSE}{writer}:{seq}"
            links.update((OPERATION + operation, target) for operation in seen.operation_ids)
            if seen.response_id is not None:
                own = own_part(seen.response_id)
                links.add((RESPONSE + own, target))
                if goes_by_response(seen, gateways):
                    links.add((_BY_RESPONSE + own, target))
            if authenticates_session(seen):
                sessions[seen.session or "", seen.tenant or ""] += 1
        self._db.executemany("INSERT OR IGNORE INTO links VALUES (?, ?)", sorted(links))
        self._db.executemany(
            """INSERT INTO directory VALUES (?, ?, 'evidence', 0, ?)
               ON CONFLICT DO UPDATE SET witnesses = witnesses + excluded.witnesses""",
            [(*session, witnesses) for session, witnesses in sorted(sessions.items())],
        )

    def _writer_id(self, name: str) -> int:
        known = self._writer_ids.get(name)
        if known is None:
            self._db.execute("INSERT OR IGNORE INTO writers (name) VALUES (?)", (name,))
            row = self._db.execute("SELECT id FROM writers WHERE name = ?", (name,)).fetchone()
            known = self._writer_ids[name] = int(row[0])
        return known

    def append_control(self, records: Iterable[Control]) -> list[Control]:
        """Keep control records; returns those not kept before."""
        new: list[Control] = []
        for record in records:
            if isinstance(record, Refusals):
                self._db.executemany(
                    """INSERT INTO refusals VALUES (?, ?, ?) ON CONFLICT DO UPDATE
                       SET refused = max(refused, excluded.refused)""",
                    [(record.writer, reason, times) for reason, times in record.counts.items()],
                )
            if not isinstance(record, (Policy, SessionOwner)):
                continue
            payload = _encode_control(record)
            sha256 = hashlib.sha256(payload).hexdigest()
            before = self._db.total_changes
            self._db.execute(
                "INSERT OR IGNORE INTO controls (sha256, kind, payload) VALUES (?, ?, ?)",
                (sha256, type(record).__name__, payload),
            )
            if self._db.total_changes == before:
                continue
            if isinstance(record, SessionOwner):
                self._db.execute(
                    """INSERT INTO directory VALUES (?, ?, 'operator', ?, 1)
                       ON CONFLICT DO UPDATE
                       SET recorded_at = max(recorded_at, excluded.recorded_at)""",
                    (record.session, record.tenant, record.recorded_at),
                )
            new.append(record)
        return new

    def kept_controls(self) -> list[Policy | SessionOwner]:
        """The control records kept, in the order they came."""
        return [
            _decode_control(row[0])
            for row in self._db.execute("SELECT payload FROM controls ORDER BY id")
        ]

    # --- identity ------------------------------------------------------------------------------

    def component(
        self,
        seeds: Collection[Observation],
        replaced: Collection[Observation] = (),
        gateways: Sequence[str] = (),
    ) -> list[Observation]:
        """Everything joined with the seeds through attempts, operations and response ids.

        And what `replaced` had been joined with, which are kept no longer.
        """
        found: dict[str, Observation] = {
            seen.oid: seen for seen in seeds if seen.attempt_id is None and seen.oid is not None
        }
        asked: set[str] = set()
        attempts: set[str] = set()
        frontier: Iterable[Observation] = (*seeds, *replaced)
        while frontier:
            keys: set[str] = set()
            new_attempts: set[str] = set()
            loose: set[str] = set()
            for seen in frontier:
                keys |= _keys(seen, gateways)
                if seen.attempt_id is not None:
                    new_attempts.add(seen.attempt_id)
            for (target,) in select_in(
                self._db, "SELECT target FROM links WHERE key IN ({keys})", keys - asked
            ):
                (loose if target.startswith(LOOSE) else new_attempts).add(target)
            asked |= keys
            new_attempts -= attempts
            attempts |= new_attempts
            frontier = []
            for seen in (*self._of_attempts(new_attempts), *self._loose(loose)):
                if seen.oid is not None and seen.oid not in found:
                    found[seen.oid] = seen
                    frontier.append(seen)
        return list(found.values())

    def _of_attempts(self, attempts: Collection[str]) -> Iterator[Observation]:
        sql = """
            SELECT name, seq, payload FROM journal JOIN writers ON writers.id = journal.writer
            WHERE attempt IN ({keys})"""
        for name, seq, payload in select_in(self._db, sql, attempts):
            yield observation_of(name, seq, payload)

    def _loose(self, targets: Collection[str]) -> Iterator[Observation]:
        for target in targets:
            writer, seq = target[1:].split(":")
            row = self._db.execute(
                """SELECT name, seq, payload FROM journal JOIN writers ON writers.id = writer
                   WHERE writer = ? AND seq = ?""",
                (int(writer), int(seq)),
            ).fetchone()
            if row is not None:
                yield observation_of(*row)

    def observations(self, oids: Iterable[str]) -> Iterator[Observation]:
        """The observations of these oids that are kept."""
        for oid in oids:
            writer, seq = split_oid(oid)
            row = self._db.execute(
                """SELECT payload FROM journal JOIN writers ON writers.id = writer
                   WHERE name = ? AND seq = ?""",
                (writer, seq),
            ).fetchone()
            if row is not None:
                yield observation_of(writer, seq, row[0])


def _keys(seen: Observation, gateways: Sequence[str]) -> set[str]:
    """The links that lead from an observation to others it could be joined with."""
    keys = {OPERATION + operation for operation in seen.operation_ids}
    if seen.response_id is not None:
        found_by = RESPONSE if goes_by_response(seen, gateways) else _BY_RESPONSE
        keys.add(found_by + own_part(seen.response_id))
    return keys


def _hash(seen: Observation) -> str:
    """What decides between two payloads of one oid: the smaller SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(seen)).hexdigest()
