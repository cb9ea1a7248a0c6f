"""One settlement transaction: the look-ups and writes that `costspan.core.settle` asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from costspan.core.decide import RuleSet
from costspan.core.join.identity import own_part
from costspan.core.journal.records import Policy
from costspan.core.prices import PriceBook
from costspan.core.settle.ledger import Node, Posting, Settled
from costspan.core.settle.sweep import awaited
from costspan.plugins.ledgers.sqlite.journal import LOOSE, OPERATION, RESPONSE, JournalTables
from costspan.plugins.ledgers.sqlite.rows import pack, select_in, unpack

_PICO = 10**12
_SPAN = 3


class SqliteSettlement(JournalTables):
    """The settler's hands: the journal below, and the books that follow from it."""

    # --- events --------------------------------------------------------------------------------

    def events_of_response(self, response_id: str) -> list[str]:
        """The events that carry a response id, given whole or as the provider's own last part."""
        sql = "SELECT target FROM links WHERE key = ?"
        own = own_part(response_id)
        targets = [row[0] for row in self._db.execute(sql, (RESPONSE + own,))]
        attempts = {target for target in targets if not target.startswith(LOOSE)}
        for seen in self._loose([target for target in targets if target.startswith(LOOSE)]):
            attempts.update(self.resolve([*seen.operation_ids, seen.oid or ""]).values())
        if own == response_id:
            return sorted(attempts)
        events = self.settled(attempts).values()
        return sorted(
            each.event.id for each in events if each.event.facts.response_id == response_id
        )

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
            "INSERT OR REPLACE INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
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
        keys = {OPERATION + operation for operation in seen.operation_ids}
        if seen.response_id is not None:
            keys.add(RESPONSE + own_part(seen.response_id))
        sql = "SELECT target FROM links WHERE key IN ({keys})"
        targets: set[str] = {row[0] for row in select_in(self._db, sql, keys)}
        if seen.attempt_id is not None:
            targets.add(seen.attempt_id)
        events = self.settled([target for target in targets if not target.startswith(LOOSE)])
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

    def awaiting(self, what: str, until_ns: int, at_most: int) -> list[str]:
        """The open events that await this, started at or before `until_ns`, oldest first."""
        # The third condition follows from the first: it lets SQLite use the partial index.
        sql = """
            SELECT id FROM events
            WHERE status = 'open' AND awaits = ? AND status != 'posted'
              AND coalesce(started_at, 0) <= ?
            ORDER BY coalesce(started_at, 0), id LIMIT ?"""
        return [row[0] for row in self._db.execute(sql, (what, until_ns, at_most))]

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

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        return dict(self._db.execute("SELECT sink, posting FROM cursors"))

    def move_cursor(self, sink: str, number: int) -> None:
        """Keep that a sink has taken every posting up to this number; it never goes back."""
        self._db.execute(
            """INSERT INTO cursors VALUES (?, ?)
               ON CONFLICT DO UPDATE SET posting = max(posting, excluded.posting)""",
            (sink, number),
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
        event.id, facts.attempt_id is not None, status, awaited(event), event.is_swept,
        facts.tenant, facts.session, facts.parent, facts.kind, event.at_ns, facts.request_id,
        facts.trace_id, pack(each),
    )  # fmt: skip
