"""The control records' tables, what settlement asks of them, and what the books are decided by."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping

from costspan.core.decide import RuleSet
from costspan.core.journal.records import (
    Assignment,
    Close,
    Control,
    FreePostings,
    Policy,
    Restatement,
    SessionOwner,
)
from costspan.core.prices import ChargeBook, PriceBook
from costspan.core.settle.corrections import restated_order_of
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.control_rows import (
    Counted,
    Kept,
    counted_rows,
    decode_control,
    encode_control,
)
from costspan.plugins.ledgers.queries import Queries

_IF_NEW = "ON CONFLICT DO NOTHING"
_IF_MORE = """
    ON CONFLICT (writer, kind, name) DO UPDATE SET times = excluded.times, crc = excluded.crc
    WHERE excluded.times > counted.times"""
_IF_LATER = """
    ON CONFLICT (session, source, tenant) DO UPDATE SET recorded_at = excluded.recorded_at
    WHERE excluded.recorded_at > directory.recorded_at"""
_KEEP = """
    INSERT INTO controls
    SELECT (SELECT coalesce(max(id), 0) + 1 FROM controls), ?, ?, ? WHERE TRUE
    ON CONFLICT (sha256) DO NOTHING RETURNING id"""


class ControlTables:
    """Every value is bound; every write is in the caller's transaction."""

    def __init__(self, ask: Queries) -> None:
        self._ask = ask

    def append_control(self, records: Iterable[Control]) -> list[Control]:
        """Keep control records; returns those not kept before."""
        new: list[Control] = []
        counted: list[Counted] = []
        for record in records:
            if isinstance(record, Counted):
                counted.append(record)
            elif self._keep_control(record):
                new.append(record)
        self._count(counted)
        return new

    def _count(self, records: Collection[Counted]) -> None:
        most: dict[tuple[str, str, str], int] = {}
        for record in records:
            for kind, name, times in counted_rows(record):
                key = (record.writer, kind, name)
                most[key] = max(times, most.get(key, times))
        rows = [(*key, times, checksum(*key, times)) for key, times in sorted(most.items())]
        self._ask.insert("counted", rows, _IF_MORE)

    def _keep_control(self, record: Kept) -> bool:
        payload = encode_control(record)
        digest = hashlib.sha256(payload).hexdigest()
        rows = self._ask.rows(_KEEP, digest, type(record).__name__, payload)
        if not rows:
            return False
        ((number,),) = rows
        if isinstance(record, SessionOwner):
            said = (record.session, record.tenant, "operator", record.recorded_at, 1)
            self._ask.insert("directory", [said], _IF_LATER)
        elif isinstance(record, Assignment):
            assigned = (
                record.event, record.recorded_at, record.tenant, record.by, record.reason
            )  # fmt: skip
            self._ask.insert("assignments", [assigned], _IF_NEW)
        elif isinstance(record, FreePostings):
            owners = sorted({line.owner for line in record.lines})
            self._ask.insert("free_owners", [(owner, number) for owner in owners])
        elif isinstance(record, Restatement):
            self._ask.insert("restatements", [(record.event or record.period, number)])
        return True

    def kept_controls(self, kind: str | None = None) -> list[Kept]:
        """The control records kept, all or of one kind, in the order they came."""
        if kind is None:
            rows = self._ask.rows("SELECT payload FROM controls ORDER BY id")
        else:
            rows = self._ask.rows("SELECT payload FROM controls WHERE kind = ? ORDER BY id", kind)
        return [decode_control(row[0]) for row in rows]

    def free_postings(self, period: str | None, owner: str | None) -> Iterator[FreePostings]:
        """The records of free postings of a period, and about an owner, where named."""
        sql = "SELECT payload FROM controls WHERE kind = 'FreePostings' ORDER BY id"
        bound: tuple[str, ...] = ()
        if owner is not None:
            sql = """SELECT payload FROM free_owners JOIN controls ON id = control
                     WHERE owner = ? ORDER BY id"""
            bound = (owner,)
        for (payload,) in self._ask.each(sql, *bound):
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
        return self._ask.one("SELECT 1 FROM assignments LIMIT 1") is not None

    def assignments(self, names: Collection[str]) -> dict[str, Assignment]:
        """Name -> the assignment in force, for those of these names that have one."""
        # The columns are event, recorded_at, tenant, by, reason: the latest comes last.
        sql = "SELECT * FROM assignments WHERE event IN ({keys}) ORDER BY 2, 3, 4, 5"
        return {
            event: Assignment(event, tenant, by, reason, recorded_at)
            for event, recorded_at, tenant, by, reason in self._ask.among(sql, names)
        }

    def has_restatements(self) -> bool:
        """Whether any event or period was ever restated."""
        return self._ask.one("SELECT 1 FROM restatements LIMIT 1") is not None

    def restatements(self, names: Collection[str]) -> dict[str, Restatement]:
        """Name of an event, or period -> the restatement in force, for those that have one."""
        sql = """
            SELECT name, payload FROM restatements JOIN controls ON id = control
            WHERE name IN ({keys})"""
        found: dict[str, Restatement] = {}
        for name, payload in self._ask.among(sql, names):
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
        for session, source, tenant in self._ask.among(sql, sessions):
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
        if self._ask.one("SELECT 1 FROM problems WHERE kind != 'conflict' LIMIT 1"):
            sql = "DELETE FROM problems WHERE oid IN ({keys}) AND kind != 'conflict'"
            self._ask.run_among(sql, problems)
        rows = [(kind, oid, id) for oid, found in problems.items() for kind, id in found]
        self._ask.insert("problems", rows, _IF_NEW)

    # --- what decides --------------------------------------------------------------------------

    def rule_set(self, sha256: str) -> RuleSet:
        """A kept rule set."""
        return RuleSet.from_bytes(self._content("rule_sets", sha256))

    def price_book(self, sha256: str) -> PriceBook:
        """A kept price-book snapshot."""
        return PriceBook.from_bytes(self.price_book_bytes(sha256))

    def price_book_bytes(self, sha256: str) -> bytes:
        """A kept price-book snapshot as it was kept."""
        return self._content("price_books", sha256)

    def charge_book(self, sha256: str) -> ChargeBook:
        """A kept charge book."""
        return ChargeBook.from_bytes(self._content("charge_books", sha256))

    def _content(self, table: str, sha256: str) -> bytes:
        row = self._ask.one(f"SELECT content FROM {table} WHERE sha256 = ?", sha256)  # noqa: S608
        if row is None:
            raise LookupError(f"the ledger has no {table} {sha256}")
        return bytes(row[0])

    def keep_rule_set(self, rules: RuleSet) -> None:
        """Keep a rule set by its hash."""
        self._ask.insert("rule_sets", [(rules.sha256, rules.to_bytes())], _IF_NEW)

    def keep_price_book(self, book: PriceBook) -> None:
        """Keep a price-book snapshot by its hash."""
        if self._ask.one("SELECT 1 FROM price_books WHERE sha256 = ?", book.sha256) is None:
            row = (book.sha256, book.id, book.source_version, book.to_bytes())
            self._ask.insert("price_books (sha256, name, version, content)", [row])

    def keep_charge_book(self, book: ChargeBook) -> None:
        """Keep a charge book by its hash."""
        self._ask.insert("charge_books", [(book.sha256, book.to_bytes())], _IF_NEW)

    def price_book_versions(self) -> list[tuple[str, str, str | None]]:
        """(sha256, id, source version) of every kept snapshot, in the order they came."""
        sql = f"SELECT sha256, name, version FROM price_books ORDER BY {self._ask.arrival}"  # noqa: S608
        return [(row[0], row[1], row[2]) for row in self._ask.rows(sql)]
