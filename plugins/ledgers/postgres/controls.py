"""The control records' tables, and what settlement asks of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from costspan.core.decide import RuleSet
from costspan.core.journal.records import (
    Assignment,
    Close,
    Control,
    Counts,
    FreePostings,
    Policy,
    Refusals,
    Restatement,
    SessionOwner,
)
from costspan.core.prices import ChargeBook, PriceBook
from costspan.core.settle.corrections import restated_order_of
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.journal import Kept, decode_control

_encode_control = msgspec.msgpack.Encoder().encode
_COUNTED = {
    "writer": "text", "kind": "text", "name": "text", "times": "bigint", "crc": "bigint"
}  # fmt: skip


class ControlTables:
    """Every value is bound; every write is in the caller's transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def append_control(self, records: Iterable[Control]) -> list[Control]:
        """Keep control records; returns those not kept before."""
        new: list[Control] = []
        counted: list[Refusals | Counts] = []
        for record in records:
            if isinstance(record, Refusals | Counts):
                counted.append(record)
            elif isinstance(record, Kept) and self._keep_control(record):
                new.append(record)
        self._count(counted)
        return new

    def _count(self, records: Collection[Refusals | Counts]) -> None:
        most: dict[tuple[str, str, str], int] = {}
        for record in records:
            for name, times in record.counts.items():
                key = (record.writer, type(record).__name__, name)
                most[key] = max(times, most.get(key, times))
        if not most:
            return
        rows = [(*key, times, checksum(*key, times)) for key, times in sorted(most.items())]
        source, bound = self._db.load("told", _COUNTED, rows)
        sql = f"""
            INSERT INTO counted SELECT * FROM {source} ON CONFLICT (writer, kind, name)
            DO UPDATE SET times = excluded.times, crc = excluded.crc
            WHERE excluded.times > counted.times"""  # noqa: S608
        self._db.run(sql, *bound)

    def _keep_control(self, record: Kept) -> bool:
        payload = _encode_control(record)
        sql = """
            INSERT INTO controls
            SELECT (SELECT coalesce(max(id), 0) + 1 FROM controls), %s, %s, %b
            ON CONFLICT (sha256) DO NOTHING RETURNING id"""
        row = self._db.one(sql, hashlib.sha256(payload).hexdigest(), type(record).__name__, payload)
        if row is None:
            return False
        (number,) = row
        if isinstance(record, SessionOwner):
            sql = """
                INSERT INTO directory VALUES (%s, %s, 'operator', %s, 1)
                ON CONFLICT (session, source, tenant) DO UPDATE
                SET recorded_at = greatest(directory.recorded_at, excluded.recorded_at)"""
            self._db.run(sql, record.session, record.tenant, record.recorded_at)
        elif isinstance(record, Assignment):
            self._db.run(
                "INSERT INTO assignments VALUES (%s, %s, %s, %s, %s)",
                record.event, record.recorded_at, record.tenant, record.by, record.reason,
            )  # fmt: skip
        elif isinstance(record, FreePostings):
            sql = "INSERT INTO free_owners SELECT owner, %s FROM unnest(%b::text[]) AS owner"
            self._db.run(sql, number, sorted({line.owner for line in record.lines}))
        elif isinstance(record, Restatement):
            sql = "INSERT INTO restatements VALUES (%s, %s)"
            self._db.run(sql, record.event or record.period, number)
        return True

    def kept_controls(self, kind: str | None = None) -> list[Kept]:
        """The control records kept, all or of one kind, in the order they came."""
        sql = "SELECT payload FROM controls WHERE %s::text IS NULL OR kind = %s ORDER BY id"
        return [decode_control(row[0]) for row in self._db.rows(sql, kind, kind)]

    def free_postings(self, period: str | None, owner: str | None) -> Iterator[FreePostings]:
        """The records of free postings of a period, and about an owner, where named."""
        sql = "SELECT payload FROM controls WHERE kind = 'FreePostings' ORDER BY id"
        bound: tuple[str, ...] = ()
        if owner is not None:
            sql = """SELECT payload FROM free_owners JOIN controls ON id = control
                     WHERE owner = %s ORDER BY id"""
            bound = (owner,)
        for (payload,) in self._db.each(sql, *bound):
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
        return self._db.one("SELECT 1 FROM assignments LIMIT 1") is not None

    def assignments(self, names: Collection[str]) -> dict[str, Assignment]:
        """Name -> the assignment in force, for those of these names that have one."""
        sql = """
            SELECT event, tenant, assigned_by, reason, recorded_at FROM assignments
            WHERE event = ANY(%b::text[]) ORDER BY recorded_at, tenant, assigned_by, reason"""
        return {row[0]: Assignment(*row) for row in self._db.rows(sql, list(names))}

    def has_restatements(self) -> bool:
        """Whether any event or period was ever restated."""
        return self._db.one("SELECT 1 FROM restatements LIMIT 1") is not None

    def restatements(self, names: Collection[str]) -> dict[str, Restatement]:
        """Name of an event, or period -> the restatement in force, for those that have one."""
        sql = """
            SELECT name, payload FROM restatements JOIN controls ON id = control
            WHERE name = ANY(%b::text[])"""
        found: dict[str, Restatement] = {}
        for name, payload in self._db.rows(sql, list(names)):
            record = decode_control(payload)
            assert isinstance(record, Restatement)
            other = found.get(name)
            if other is None or restated_order_of(other) < restated_order_of(record):
                found[name] = record
        return found

    def session_owners(self, sessions: Collection[str]) -> dict[str, str]:
        """The operator's latest row; else the evidence, where it is of one mind."""
        if not sessions:
            return {}
        sql = """
            SELECT session, source, tenant FROM directory WHERE session = ANY(%b::text[])
            ORDER BY source, recorded_at, tenant"""
        evidence: dict[str, set[str]] = {}
        owners: dict[str, str] = {}
        for session, source, tenant in self._db.rows(sql, list(sessions)):
            if source == "operator":
                owners[session] = tenant
            else:
                evidence.setdefault(session, set()).add(tenant)
        for session, tenants in evidence.items():
            if len(tenants) == 1 and session not in owners:
                (owners[session],) = tenants
        return owners

    def list_problems(self, problems: Mapping[str, Collection[tuple[str, str]]]) -> None:
        """Replace the listed problems of these oids (but conflicts, which stay)."""
        if not problems:
            return
        if self._db.one("SELECT 1 FROM problems WHERE kind != 'conflict' LIMIT 1"):
            sql = "DELETE FROM problems WHERE oid = ANY(%b::text[]) AND kind != 'conflict'"
            self._db.run(sql, list(problems))
        rows = [(kind, oid, id) for oid, found in problems.items() for kind, id in found]
        if rows:
            columns = {"kind": "text", "oid": "text", "event_id": "text"}
            source, bound = self._db.load("found", columns, rows)
            sql = f"INSERT INTO problems SELECT * FROM {source} ON CONFLICT DO NOTHING"  # noqa: S608
            self._db.run(sql, *bound)

    # --- what decides --------------------------------------------------------------------------

    def rule_set(self, sha256: str) -> RuleSet:
        """A kept rule set."""
        return RuleSet.from_bytes(self._content("rule_sets", sha256))

    def price_book(self, sha256: str) -> PriceBook:
        """A kept price-book snapshot."""
        return PriceBook.from_bytes(self._content("price_books", sha256))

    def charge_book(self, sha256: str) -> ChargeBook:
        """A kept charge book."""
        return ChargeBook.from_bytes(self._content("charge_books", sha256))

    def _content(self, table: str, sha256: str) -> bytes:
        row = self._db.one(f"SELECT content FROM {table} WHERE sha256 = %s", sha256)  # noqa: S608
        if row is None:
            raise LookupError(f"the ledger has no {table} {sha256}")
        return bytes(row[0])

    def keep_rule_set(self, rules: RuleSet) -> None:
        """Keep a rule set by its hash."""
        sql = "INSERT INTO rule_sets VALUES (%s, %b) ON CONFLICT DO NOTHING"
        self._db.run(sql, rules.sha256, rules.to_bytes())

    def keep_price_book(self, book: PriceBook) -> None:
        """Keep a price-book snapshot by its hash."""
        if self._db.one("SELECT 1 FROM price_books WHERE sha256 = %s", book.sha256) is None:
            sql = "INSERT INTO price_books (sha256, name, version, content) VALUES (%s, %s, %s, %b)"
            self._db.run(sql, book.sha256, book.id, book.source_version, book.to_bytes())

    def keep_charge_book(self, book: ChargeBook) -> None:
        """Keep a charge book by its hash."""
        sql = "INSERT INTO charge_books VALUES (%s, %b) ON CONFLICT DO NOTHING"
        self._db.run(sql, book.sha256, book.to_bytes())

    def price_book_versions(self) -> list[tuple[str, str, str | None]]:
        """(sha256, id, source version) of every kept snapshot."""
        sql = "SELECT sha256, name, version FROM price_books ORDER BY n"
        return [(row[0], row[1], row[2]) for row in self._db.rows(sql)]
