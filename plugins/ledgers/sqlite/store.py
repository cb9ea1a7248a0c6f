"""The file: opening it, its pragmas, the settler's lease, and what readers ask of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from costspan.core.decide import RuleSet
from costspan.core.journal.records import Control, Policy, Refusals
from costspan.core.prices import PriceBook
from costspan.core.schema import Observation
from costspan.core.settle.ledger import (
    Amount,
    LedgerBusy,
    LedgerError,
    LedgerMissing,
    Line,
    Posting,
    RollUp,
    Settled,
)
from costspan.plugins.ledgers.sqlite.rows import observation_of, select_in, unpack
from costspan.plugins.ledgers.sqlite.settlement import SqliteSettlement

SCHEMA_VERSION = "1"
MEMORY = ":memory:"
_PICO = 10**12
_UNPREFIXED_CHARS_MIN = 8
_POSTING_NOTHING = ("unmatched", "unmatched_downstream", "identity_conflict")


class SqliteLedger:
    """The books in one SQLite file (or in memory). A connection is never used across a fork."""

    def __init__(self, path: str, *, create: bool) -> None:
        self.path = path
        self.url = f"sqlite:///{path}"
        if path != MEMORY and not create and not Path(path).exists():
            raise LedgerMissing(
                f"there is no ledger at {path}; it is created when the first records are drained"
                " (costspan drain), or name another with --ledger"
            )
        self._pid = os.getpid()
        self._connection = self._open(create)

    def _open(self, create: bool) -> sqlite3.Connection:
        connection = None
        try:
            connection = self._connect(create)
            if create:
                connection.execute("PRAGMA journal_mode = WAL")  # the file remembers it
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA recursive_triggers = ON")
            connection.execute("PRAGMA cache_size = -65536")
            self._migrate(connection, create)
        except (sqlite3.Error, OSError, LedgerError) as error:
            if connection is not None:
                connection.close()
            if isinstance(error, LedgerError):
                raise
            raise LedgerError(f"the ledger {self.path} cannot be opened: {error}") from error
        return connection

    def _connect(self, create: bool) -> sqlite3.Connection:
        """A connection; one that may not create asks SQLite itself not to."""
        place, is_uri = self.path, False
        if self.path != MEMORY:
            whole = Path(self.path).absolute()
            if create:
                whole.parent.mkdir(parents=True, exist_ok=True)
            place, is_uri = f"{whole.as_uri()}?mode={'rwc' if create else 'rw'}", True
        return sqlite3.connect(
            place, uri=is_uri, isolation_level=None, check_same_thread=False, timeout=5.0
        )

    def _migrate(self, connection: sqlite3.Connection, create: bool) -> None:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            if not create and self.path != MEMORY:
                raise LedgerMissing(f"{self.path} holds no books of costspan")
            connection.execute("BEGIN IMMEDIATE")
            try:
                if not connection.execute(
                    "SELECT 1 FROM sqlite_master WHERE name = 'meta'"
                ).fetchone():
                    for statement in _statements(_schema()):
                        connection.execute(statement)
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        (version,) = connection.execute(
            "SELECT value FROM meta WHERE key = 'schema_version'"
        ).fetchone()
        if version != SCHEMA_VERSION:
            raise LedgerError(
                f"{self.path} has schema version {version}, this costspan reads {SCHEMA_VERSION}:"
                " use the version of costspan that wrote it, or a newer one"
            )

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection of this process.

        Raises:
            LedgerError: in a forked child: an inherited connection loses committed rows.
        """
        if os.getpid() != self._pid:
            raise LedgerError("this ledger was opened before a fork; open it again in the child")
        return self._connection

    @contextmanager
    def settling(self, timeout_seconds: float) -> Generator[SqliteSettlement]:
        """The write lock from the beginning: no snapshot can go stale under a settler."""
        connection = self.connection
        connection.execute(f"PRAGMA busy_timeout = {max(0, int(timeout_seconds * 1000))}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise LedgerBusy(
                f"the ledger {self.path} is being settled by another process ({error});"
                " the records stay in the spool: try again later"
            ) from error
        try:
            yield SqliteSettlement(connection)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _roll_back(connection)
            raise LedgerError(
                f"the ledger {self.path} could not be written ({error}); nothing was changed and"
                " the records stay in the spool"
            ) from error
        except BaseException:
            _roll_back(connection)
            raise

    @contextmanager
    def rebuilding(self) -> Generator[SqliteLedger]:
        """An empty ledger to fill; left normally, its books replace this one's, all at once."""
        beside = Path(self.path + ".rebuilding")
        _remove(beside)
        fresh = SqliteLedger(str(beside), create=True)
        try:
            with self.settling(30.0):
                yield fresh
                self._adopt(fresh.connection)
        finally:
            fresh.close()
            _remove(beside)

    def _adopt(self, fresh: sqlite3.Connection) -> None:
        """Replace every table's rows by those of a fresh ledger.

        The triggers on postings forbid deleting: that table is dropped and made anew as the schema
        says. An attached database would share this transaction's locks, so the rows are carried.
        """
        connection = self.connection
        connection.execute("DROP TABLE postings")
        for statement in _statements(_schema()):
            if "postings" in statement.split("(")[0]:
                connection.execute(statement)
        connection.execute("PRAGMA defer_foreign_keys = ON")
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (table,) in fresh.execute(tables).fetchall():
            # Table names of our own schema, never anybody's input: names cannot be bound.
            if table != "postings":
                connection.execute(f'DELETE FROM "{table}"')  # noqa: S608
            rows = fresh.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            marks = ",".join("?" * len(rows.description))
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)  # noqa: S608

    def roll_ups(self, period: str | None = None) -> Iterator[RollUp]:
        """Every line that an event stands on or an amount is left on."""
        sql = """
            SELECT owner, bucket, pool, effective_period, day, model, posted_period,
                   cost_usd, cost_pico, charge_usd, charge_pico, events
            FROM rollup WHERE (? IS NULL OR effective_period = ?)
              AND (events != 0 OR cost_usd != 0 OR cost_pico != 0
                   OR charge_usd != 0 OR charge_pico != 0)
            ORDER BY owner, bucket, pool, effective_period, day, model, posted_period"""
        for row in self.connection.execute(sql, (period, period)):
            line = Line(row[0], row[1], row[2] or None, row[3], row[4], row[5])
            cost, charge = row[7] * _PICO + row[8], row[9] * _PICO + row[10]
            yield RollUp(line, row[6], cost, charge, row[11])

    def events(self, ids: Collection[str] | None = None) -> Iterator[Settled]:
        """Every event, or these; in order of id."""
        if ids is None:
            rows: Iterator[Any] = self.connection.execute("SELECT content FROM events ORDER BY id")
        else:
            sql = "SELECT content FROM events WHERE id IN ({keys}) ORDER BY id"
            rows = select_in(self.connection, sql, sorted(ids))
        for (content,) in rows:
            yield unpack(content)

    def find_events(self, name: str) -> list[str]:
        """The events that this names, by any id an event, request, trace or session has.

        Else by a response id, an operation id without its `HOST:`, or the caller's request id.
        """
        sql = """
            SELECT id FROM events WHERE id = :name
            UNION SELECT event_id FROM names WHERE name = :name
            UNION SELECT id FROM events WHERE request_id = :name
            UNION SELECT id FROM events WHERE trace_id = :name
            UNION SELECT id FROM events WHERE session = :name ORDER BY 1"""
        found = [row[0] for row in self.connection.execute(sql, {"name": name})]
        return found or self._settlement().events_of_response(name) or self._search(name)

    def _search(self, name: str) -> list[str]:
        """By what no index has: every event is looked at. A short end could be any number's."""
        if len(name) >= _UNPREFIXED_CHARS_MIN:
            sql = """
                SELECT id FROM events WHERE substr(id, -length(:end)) = :end
                UNION SELECT event_id FROM names
                      WHERE rank = 1 AND substr(name, -length(:end)) = :end ORDER BY 1"""
            found = [row[0] for row in self.connection.execute(sql, {"end": f":{name}"})]
            if found:
                return found
        sql = "SELECT id, content FROM events WHERE instr(content, ?) ORDER BY id"
        rows = self.connection.execute(sql, (name.encode("utf-8", "replace"),))
        return [id for id, whole in rows if unpack(whole).event.facts.client_request_id == name]

    def children(self, names: Collection[str]) -> set[str]:
        """The events whose parent is one of these names."""
        return self._settlement().children(names)

    def named(self, name: str) -> list[str]:
        """The events that a parent reference of this name could mean."""
        sql = """
            SELECT id FROM events WHERE id = :name
            UNION SELECT event_id FROM names WHERE name = :name ORDER BY 1"""
        return [row[0] for row in self.connection.execute(sql, {"name": name})]

    def component_of(self, event_ids: Collection[str]) -> list[Observation]:
        """Every observation that identity could join with these events."""
        oids = [oid for each in self.events(event_ids) for oid in each.event.oid_names]
        settlement = self._settlement()
        return settlement.component(list(settlement.observations(oids)))

    def _settlement(self) -> SqliteSettlement:
        """The settler's look-ups, used only to read."""
        return SqliteSettlement(self.connection)

    def postings(self, event_id: str) -> list[Posting]:
        """The entries of an event, oldest first."""
        rows = self.connection.execute(
            f"SELECT {_POSTING} FROM postings WHERE event_id = ? ORDER BY id",  # noqa: S608
            (event_id,),
        )
        return [_posting(row) for row in rows]

    def postings_after(self, number: int, at_most: int) -> list[tuple[int, Posting]]:
        """(number, posting) of those numbered higher than this, in order."""
        rows = self.connection.execute(
            f"SELECT {_POSTING} FROM postings WHERE id > ? ORDER BY id LIMIT ?",  # noqa: S608
            (number, at_most),
        )
        return [(row[0], _posting(row)) for row in rows]

    def cursors(self) -> dict[str, int]:
        """Sink -> number of the last posting that it has taken."""
        return self._settlement().cursors()

    def problems(self) -> list[tuple[str, str, str]]:
        """(kind, oid, event id) of what posts nothing."""
        sql = "SELECT kind, oid, event_id FROM problems ORDER BY kind, oid"
        return [tuple(row) for row in self.connection.execute(sql)]

    def counts(self) -> dict[str, int]:
        """How many of everything; see the protocol."""
        one = self._one  # the second condition of `of_status` is that of the partial index
        of_status = "SELECT count(*) FROM events WHERE status = ? AND status != 'posted'"
        return {
            "observations": one("SELECT count(*) FROM journal"),
            "events": one("SELECT count(*) FROM events"),
            "postings": one("SELECT count(*) FROM postings"),
            "refused": one("SELECT coalesce(sum(refused), 0) FROM refusals"),
            "conflict": one("SELECT count(*) FROM conflicts"),
            "swept": one("SELECT count(*) FROM events WHERE is_swept"),
            **{name: one(of_status, name) for name in ("open", "unpriced", "unmeasured")},
            **{n: one("SELECT count(*) FROM problems WHERE kind = ?", n) for n in _POSTING_NOTHING},
        }

    def _one(self, sql: str, *bound: Any) -> int:
        return int(self.connection.execute(sql, bound).fetchone()[0])

    def journal(self) -> Iterator[Observation]:
        """Every observation kept, in the order it came, losers of a conflict included."""
        for source in (
            """SELECT name, seq, payload FROM journal JOIN writers ON writers.id = writer
               ORDER BY journal.id""",
            "SELECT name, seq, payload FROM conflicts JOIN writers ON writers.id = writer",
        ):
            for row in self.connection.execute(source):
                yield observation_of(*row)

    def controls(self) -> list[Control]:
        """Every control record kept, in the order it came; refusals by their greatest counts."""
        sql = "SELECT writer, reason, refused FROM refusals ORDER BY writer, reason"
        refused: dict[str, dict[str, int]] = {}
        for writer, reason, times in self.connection.execute(sql):
            refused.setdefault(writer, {})[reason] = times
        return [
            *self._settlement().kept_controls(),
            *(Refusals(writer, counts, 0) for writer, counts in refused.items()),
        ]

    def policy_parts(self) -> tuple[list[Policy], dict[str, RuleSet], dict[str, PriceBook]]:
        """Every policy, rule set and price book the books were decided by."""
        settlement = self._settlement()
        policies = settlement.policies()
        rules = {policy.rules: settlement.rule_set(policy.rules) for policy in policies}
        books = {sha: settlement.price_book(sha) for policy in policies for sha in policy.books}
        return policies, rules, books

    def writers(self) -> list[tuple[str, int, int]]:
        """(writer, greatest seq, records kept) of every writer."""
        sql = """
            SELECT name, max(seq), count(*) FROM journal JOIN writers ON writers.id = journal.writer
            WHERE seq >= 0 GROUP BY journal.writer ORDER BY name"""
        return [tuple(row) for row in self.connection.execute(sql)]

    def close(self) -> None:
        """Let go of the file; in a forked child of nothing: what it inherited is its parent's."""
        if os.getpid() == self._pid:
            self._connection.close()


_POSTING = (
    "id, event_id, owner, bucket, pool, effective_period, day, model, posted_period,"
    " cost, charge, events"
)


def _posting(row: tuple[Any, ...]) -> Posting:
    return Posting(row[1], Line(*row[2:8]), row[8], Amount(row[9], row[10]), row[11])


def _schema() -> str:
    return (files("costspan.plugins.ledgers.sqlite") / "schema.sql").read_text("utf-8")


def _remove(database: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _statements(sql: str) -> Iterator[str]:
    """The statements of a script, so that they run in one transaction."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line if statement or not line.startswith(("--", "\n")) else ""
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
