"""The file: opening it, its pragmas, the settler's lease, and what readers ask of it."""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from costspan.core import forks
from costspan.core.ledger_errors import LedgerBusy, LedgerError, LedgerMissing
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.sqlite.contents import Contents
from costspan.plugins.ledgers.sqlite.lines import Lines
from costspan.plugins.ledgers.sqlite.reading import Reading
from costspan.plugins.ledgers.sqlite.settlement import SqliteSettlement

SCHEMA_VERSION = "3"
_SCHEMAS = ("schema.sql", "invoices.sql", "persons.sql", "archived.sql")
_BESIDE = frozenset(
    {"meta", "documents", "invoices", "invoice_lines", "reviews", "persons", "archived"}
)
"""The tables that are not of the books: a rebuild leaves them as they are."""
MEMORY = ":memory:"


class SqliteLedger(Reading):
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
        self._is_closed = False
        self._rebuilt: str | None = None
        self._settler = object() if create else None
        self._connection = self._open(create)
        self._contents = Contents(self._connection)
        self._lines = Lines(self._connection)

    def _open(self, create: bool) -> sqlite3.Connection:
        connection = None
        self._enter()
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
            self._leave()
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
        connection = sqlite3.connect(
            place, uri=is_uri, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        connection.create_function("checksum", -1, checksum, deterministic=True)
        return connection

    def _migrate(self, connection: sqlite3.Connection, create: bool) -> None:
        if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
            if not create and self.path != MEMORY:
                raise LedgerMissing(f"{self.path} holds no books of costspan")
            connection.execute("BEGIN IMMEDIATE")
            try:
                if not connection.execute(
                    "SELECT 1 FROM sqlite_master WHERE name = 'meta'"
                ).fetchone():
                    for statement in schema_statements():
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

    def _enter(self) -> None:
        """Forks are told of this connection until it is closed, or nobody has this ledger."""
        if self.path != MEMORY:
            self._leave = weakref.finalize(self, forks.enter(self._settler))

    _leave: Callable[[], object] = staticmethod(lambda: None)

    def _reopen(self) -> None:
        """Between two settlements: let a fork pass that waits for this connection."""
        self._connection.close()
        self._leave()
        self._connection = self._open(create=True)
        self._contents = Contents(self._connection)
        self._lines = Lines(self._connection)

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
        if forks.is_awaited() and self._settler is not None and not connection.in_transaction:
            self._reopen()
            connection = self.connection
        connection.execute(f"PRAGMA busy_timeout = {max(0, int(timeout_seconds * 1000))}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise LedgerError(
                    f"the ledger {self.path} cannot be written ({error}); the records stay in the"
                    " spool"
                ) from error
            raise LedgerBusy(
                f"the ledger {self.path} is being settled by another process ({error});"
                " the records stay in the spool: try again later"
            ) from error
        try:
            self._notice_rebuild()
            yield SqliteSettlement(connection, self._contents, self._lines)
            self.connection.execute("COMMIT")  # which a child that was forked meanwhile has not
        except (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError):
            self._roll_back()
            raise  # a matter of some record: whoever settles looks for it
        except sqlite3.Error as error:
            self._roll_back()
            raise LedgerError(
                f"the ledger {self.path} could not be written ({error}); nothing was changed and"
                " the records stay in the spool"
            ) from error
        except BaseException:
            self._roll_back()
            raise

    def _notice_rebuild(self) -> None:
        """Forget the numbers of lines if somebody rebuilt the books since: they have others."""
        sql = "SELECT value FROM meta WHERE key = 'rebuilt'"
        (rebuilt,) = self._connection.execute(sql).fetchone()
        if rebuilt != self._rebuilt:
            self._rebuilt = rebuilt
            self._contents.forget()
            self._lines.forget()

    def _roll_back(self) -> None:
        if os.getpid() != self._pid:
            return  # what a child inherited is its parent's transaction
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._contents.forget()
        self._lines.forget()

    @contextmanager
    def rebuilding(self) -> Generator[SqliteLedger]:
        """An empty ledger to fill; left normally, its books replace this one's, all at once."""
        with self.settling(30.0):
            beside = Path(self.path + ".rebuilding")
            _remove(beside)
            fresh = SqliteLedger(str(beside), create=True)
            try:
                # A number that a posting ever had is never another's: readers remember numbers.
                sql = "SELECT 'postings', coalesce(max(seq), 0) FROM sqlite_sequence"
                last = self._connection.execute(sql).fetchone()
                fresh.connection.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", last)
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
        for statement in schema_statements():
            if "postings" in statement.split("(")[0]:
                connection.execute(statement)
        connection.execute("PRAGMA defer_foreign_keys = ON")
        tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (table,) in fresh.execute(tables).fetchall():
            # Table names of our own schema, never anybody's input: names cannot be bound.
            if table in _BESIDE:
                continue
            if table != "postings":
                connection.execute(f'DELETE FROM "{table}"')  # noqa: S608
            rows = fresh.execute(f'SELECT * FROM "{table}"')  # noqa: S608
            marks = ",".join("?" * len(rows.description))
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', rows)  # noqa: S608
        connection.execute("UPDATE meta SET value = CAST(value + 1 AS TEXT) WHERE key = 'rebuilt'")
        self._notice_rebuild()

    def compact(self, timeout_seconds: int = 5) -> bool:
        """Write the file anew without what was deleted; see the protocol."""
        connection = self.connection
        connection.execute(f"PRAGMA busy_timeout = {max(0, timeout_seconds * 1000)}")
        try:
            connection.execute("VACUUM")
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError:
            return False
        return not busy

    def close(self) -> None:
        """Let go of the file; in a forked child of nothing: what it inherited is its parent's."""
        if os.getpid() == self._pid and not self._is_closed:
            self._is_closed = True
            self._connection.close()
            self._leave()


def schema_statements() -> list[str]:
    """The statements that make an empty ledger."""
    folder = files("costspan.plugins.ledgers.sqlite")
    return list(_statements("\n".join((folder / name).read_text("utf-8") for name in _SCHEMAS)))


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
