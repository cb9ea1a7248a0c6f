"""One settlement transaction: the look-ups and writes that `costspan.core.settle` asks for."""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from costspan.core.decide import RuleSet
from costspan.core.join.identity import goes_by_response
from costspan.core.journal.records import Control, Policy, Refusals, SessionOwner
from costspan.core.prices import PriceBook
from costspan.core.schema import Observation, canonical
from costspan.core.settle.ledger import Appended, Node, Posting, Settled
from costspan.core.settle.settle import authenticates_session
from costspan.plugins.ledgers.sqlite.rows import (
    normal,
    observation_of,
    pack,
    payload_of,
    select_in,
    split_oid,
    unpack,
)

_PICO = 10**12
_encode_control = msgspec.msgpack.Encoder().encode
_decode_control = msgspec.msgpack.Decoder(Policy | SessionOwner).decode
_OPERATION, _RESPONSE, _BY_RESPONSE = "o:", "r:", "R:"
_LOOSE = "\t"
"""Begins the link to an observation without an attempt; no attempt id begins so: ids are printable.
"""
_SPAN = 3


class SqliteSettlement:
    """The settler's hands. Every value is bound; every write is in the caller's transaction."""

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
            target = seen.attempt_id or f"{_LOOSE}{writer}:{seq}"
            links.update((_OPERATION + operation, target) for operation in seen.operation_ids)
            if seen.response_id is not None:
                links.add((_RESPONSE + seen.response_id, target))
                if goes_by_response(seen, gateways):
                    links.add((_BY_RESPONSE + seen.response_id, target))
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
                (loose if target.startswith(_LOOSE) else new_attempts).add(target)
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

    def events_of_response(self, response_id: str) -> list[str]:
        """The events that carry a response id, given whole or as the provider's own last part."""
        sql = (
            "SELECT target FROM links WHERE key = ? OR (key >= 'r:' AND key < 'r;' AND key LIKE ?)"
        )
        escaped = "%/" + response_id
        targets = [row[0] for row in self._db.execute(sql, (_RESPONSE + response_id, escaped))]
        attempts = {target for target in targets if not target.startswith(_LOOSE)}
        for seen in self._loose([target for target in targets if target.startswith(_LOOSE)]):
            attempts.update(self.resolve([*seen.operation_ids, seen.oid or ""]).values())
        return sorted(attempts)

    # --- events --------------------------------------------------------------------------------

    def settled(self, event_ids: Collection[str]) -> dict[str, Settled]:
        """The events of these ids that exist."""
        sql = "SELECT id, content FROM events WHERE id IN ({keys})"
        return {row[0]: unpack(row[1]) for row in select_in(self._db, sql, event_ids)}

    def place(self, events: Collection[Settled], before: Collection[Settled]) -> None:
        """Make events findable by their names, with their new facts; forget those without any."""
        gone = {each.event.id for each in before} - {each.event.id for each in events}
        self._db.executemany("DELETE FROM events WHERE id = ?", [(id,) for id in sorted(gone)])
        self.save(events)
        old, new = _names(before), _names(events)
        self._db.executemany(
            "DELETE FROM names WHERE name = ? AND rank = ? AND event_id = ?", sorted(old - new)
        )
        self._db.executemany("INSERT INTO names VALUES (?, ?, ?)", sorted(new - old))

    def save(self, events: Collection[Settled]) -> None:
        """Keep events as they stand."""
        self._db.executemany(
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [_event_row(each) for each in events],
        )

    def resolve(self, references: Collection[str]) -> dict[str, str]:
        """Reference -> event id: attempt id, else operation id, oid or span id (least event)."""
        sql = "SELECT id FROM events WHERE is_attempt AND id IN ({keys})"
        found = {row[0]: row[0] for row in select_in(self._db, sql, references)}
        spans: dict[str, str] = {}
        sql = "SELECT name, rank, event_id FROM names WHERE name IN ({keys}) ORDER BY 2, 3"
        for name, rank, event_id in select_in(self._db, sql, references):
            (spans if rank == _SPAN else found).setdefault(name, event_id)
        for reference in references:
            if reference not in found and (named := self._by_oid(reference)) is not None:
                found[reference] = named
        return {**spans, **found}

    def _by_oid(self, oid: str) -> str | None:
        """The least event an observation speaks of: rarely asked, so not kept in `names`."""
        seen = next(iter(self.observations((oid,))), None)
        if seen is None:
            return None
        keys = {_OPERATION + operation for operation in seen.operation_ids}
        if seen.response_id is not None:
            keys.add(_RESPONSE + seen.response_id)
        sql = "SELECT target FROM links WHERE key IN ({keys})"
        targets: set[str] = {row[0] for row in select_in(self._db, sql, keys)}
        if seen.attempt_id is not None:
            targets.add(seen.attempt_id)
        events = self.settled([target for target in targets if not target.startswith(_LOOSE)])
        return min((id for id, each in events.items() if oid in each.event.oid_names), default=None)

    def nodes(self, event_ids: Collection[str]) -> dict[str, Node]:
        """What these events tell their descendants."""
        sql = "SELECT id, tenant, session, parent, kind FROM events WHERE id IN ({keys})"
        return {row[0]: Node(*row[1:]) for row in select_in(self._db, sql, event_ids)}

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

    # --- policy --------------------------------------------------------------------------------

    def policies(self) -> list[Policy]:
        """Every policy record, oldest `effective_from` first."""
        found = [record for record in self.kept_controls() if isinstance(record, Policy)]
        return sorted(found, key=lambda policy: policy.effective_from)

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

    def price_book_versions(self) -> list[tuple[str, str, str | None]]:
        """(sha256, id, source version) of every kept snapshot."""
        return [tuple(r) for r in self._db.execute("SELECT sha256, name, version FROM price_books")]

    # --- postings ------------------------------------------------------------------------------

    def post(self, postings: Collection[Posting]) -> None:
        """Append postings and roll them up, in this transaction."""
        self._db.executemany(
            """INSERT INTO postings (event_id, owner, bucket, pool, effective_period, posted_period,
                                     day, model, currency, cost, charge, events)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'USD', ?, ?, ?)""",
            [
                (p.event_id, p.line.owner, p.line.bucket, p.line.pool, p.line.effective_period,
                 p.posted_period, p.line.day, p.line.model, p.amount.cost, p.amount.charge,
                 p.events)
                for p in postings
            ],
        )  # fmt: skip
        sums: dict[tuple[str, ...], list[int]] = {}
        for p in postings:
            line = p.line
            key = (line.owner, line.effective_period, line.bucket, line.pool or "", line.day,
                   line.model, p.posted_period, "USD")  # fmt: skip
            total = sums.setdefault(key, [0, 0, 0])
            total[0] += p.amount.cost
            total[1] += p.amount.charge
            total[2] += p.events
        # Remainders are kept in [0, 1 USD), so that equal sums are equal rows in any batching.
        self._db.executemany(
            """INSERT INTO rollup VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               ON CONFLICT DO UPDATE SET
                 cost_usd = cost_usd + excluded.cost_usd
                            + (cost_pico + excluded.cost_pico) / 1000000000000,
                 cost_pico = (cost_pico + excluded.cost_pico) % 1000000000000,
                 charge_usd = charge_usd + excluded.charge_usd
                              + (charge_pico + excluded.charge_pico) / 1000000000000,
                 charge_pico = (charge_pico + excluded.charge_pico) % 1000000000000,
                 events = events + excluded.events""",
            [
                (*key, *divmod(cost, _PICO), *divmod(charge, _PICO), events)
                for key, (cost, charge, events) in sorted(sums.items())
            ],
        )

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


def _keys(seen: Observation, gateways: Sequence[str]) -> set[str]:
    """The links that lead from an observation to others it could be joined with."""
    keys = {_OPERATION + operation for operation in seen.operation_ids}
    if seen.response_id is not None:
        found_by = _RESPONSE if goes_by_response(seen, gateways) else _BY_RESPONSE
        keys.add(found_by + seen.response_id)
    return keys


def _names(events: Collection[Settled]) -> set[tuple[str, int, str]]:
    """(name, rank, event id) of every name a parent may use, but attempt ids and their oids."""
    return {
        (name, rank, each.event.id)
        for each in events
        for rank, group in (
            (1, each.event.operation_names),
            (2, () if each.event.facts.attempt_id else each.event.oid_names),
            (_SPAN, each.event.span_names),
        )
        for name in group
    }


def _hash(seen: Observation) -> str:
    """What decides between two payloads of one oid: the smaller SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(seen)).hexdigest()


def _event_row(each: Settled) -> tuple[Any, ...]:
    event, decision = each.event, each.decision
    facts = event.facts
    if decision is None:
        status = "open"
    elif decision.cost is None:
        status = "unmeasured" if "unmeasured" in decision.flags else "unpriced"
    else:
        status = "posted" if decision.is_money else "not_money"
    return (
        event.id, facts.attempt_id is not None, status, facts.tenant, facts.session, facts.parent,
        facts.kind, event.at_ns, facts.request_id, facts.trace_id, pack(each),
    )  # fmt: skip
