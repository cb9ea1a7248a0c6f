"""One connection to the database: statements of our own, every value bound, errors in our words."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

from costspan.core.ledger_errors import LedgerError, LedgerUnread
from costspan.plugins.ledgers.postgres.place import Place
from costspan.plugins.ledgers.postgres.text import adapt

Row = tuple[Any, ...]

_COPY_ROWS_MIN = 500
"""Fewer rows go as arrays: a temporary table costs more than they do, and leaves the catalogue
something to clean up."""
_ROWS_PER_FETCH = 2000
_SETTINGS = """
    SELECT pg_backend_pid(), set_config('search_path', %s, is_passing),
           set_config('jit', 'off', is_passing),
           set_config('array_nulls', 'on', is_passing),
           set_config('tcp_keepalives_idle', '30', is_passing),
           set_config('tcp_keepalives_interval', '10', is_passing),
           set_config('tcp_keepalives_count', '3', is_passing),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                      WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
                      is_passing)
    FROM (SELECT pg_backend_pid() != %s AS is_passing) AS pool"""
"""A settler that vanished gives its lease back in a minute, not when TCP gives it up; and what is
committed is on disk, since the spool that held it is deleted next. Behind a pool the session is not
ours: there the settings are of the statement alone."""
_PASSING = "SET LOCAL search_path = {}; SET LOCAL jit = off; SET LOCAL array_nulls = on;"
_PASSING_ON_DISK = """
    SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off';"""
"""The same for a transaction behind a pool."""
_UNREAD = (psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled)
_OF_A_RECORD = (
    psycopg.IntegrityError,
    psycopg.DataError,
    psycopg.errors.ProgramLimitExceeded,  # a name that no index has room for
    psycopg.errors.StatementTooComplex,
)
"""What a record's values bring about: the others of its batch are settled without it."""
_READING = "ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITING = "ISOLATION LEVEL READ COMMITTED"
"""Whatever the server's default is: a state of the books that was taken before the lease was given
would lack what the settler before wrote."""


class Database:
    """A connection, in autocommit until somebody begins a transaction.

    Statements are texts of this package alone; names of our own are all that is ever put into one.
    Nothing here may be used in a forked child: psycopg shares its socket with the parent.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self._pid = os.getpid()
        self._names = count()
        self._depth = 0
        names = ", ".join(Identifier(name).as_string(None) for name in (*place.path, "pg_temp"))
        self._passing = _PASSING.format(names)
        self._is_pooled = False
        self._connection = self._connected()
        try:
            adapt(self._connection)
            told = self._connection.info.backend_pid
            # A pool names another process than the one that happens to answer.
            self._is_pooled = self.rows(_SETTINGS, names, told)[0][0] != told
        except BaseException:
            self.close()
            raise

    def _connected(self) -> psycopg.Connection[Row]:
        """A connection that no child of this process has inherited without knowing of it."""
        place = self.place
        conninfo = make_conninfo("", **place.parameters())
        while True:
            forks = _forks[0]
            try:
                self._connection = psycopg.connect(
                    conninfo,
                    autocommit=True,
                    # A plan made while the tables were empty would read all of them later on.
                    prepare_threshold=None,
                )
            except (psycopg.Error, UnicodeError) as error:
                why = place.told(error, getattr(error, "pgconn", None))
                error.__traceback__ = None  # which would keep the socket, in a cycle
                break
            _open.add(self)
            if forks == _forks[0]:
                return self._connection
            self.close()  # forked meanwhile: that child would keep this one's lease
        # No error of libpq's goes along: it might repeat a password.
        raise LedgerError(f"the ledger {place.shown} cannot be opened: {why}")

    @property
    def connection(self) -> psycopg.Connection[Row]:
        """The connection of this process.

        Raises:
            LedgerError: in a forked child.
        """
        self.check_process()
        return self._connection

    def check_process(self) -> None:
        """Nobody uses a connection that was opened before a fork.

        Raises:
            LedgerError: in a forked child.
        """
        if os.getpid() != self._pid:
            raise LedgerError("this ledger was opened before a fork; open it again in the child")

    @property
    def is_lost(self) -> bool:
        """Whether the server or the way to it is gone, so that another connection is needed."""
        return self._connection.closed or self._connection.broken

    @property
    def is_in_snapshot(self) -> bool:
        """Whether somebody reads one state of the books."""
        return self._depth > 0

    @property
    def is_in_transaction(self) -> bool:
        """Whether somebody has begun a transaction."""
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    # --- statements ----------------------------------------------------------------------------

    @contextmanager
    def _in_our_words(self) -> Generator[None]:
        """What a record's values bring about stays as it is; everything else is the ledger's."""
        try:
            yield
        except _OF_A_RECORD:
            raise
        except psycopg.Error as error:
            said = self.place.told(error)
            is_unread = self.is_lost or isinstance(error, _UNREAD)
            kind = LedgerUnread if is_unread else LedgerError
            raise kind(f"the ledger {self.place.shown}: {said}") from error

    @contextmanager
    def _asking(self) -> Generator[None]:
        """Whoever asks outside a transaction; behind a pool, in one that brings its settings."""
        with self._in_our_words():
            if not self._is_pooled or self.is_in_transaction:
                yield
                return
            self.begin()
            try:
                yield
                self._connection.commit()
            finally:
                self.roll_back()

    def rows(self, sql: str, *bound: Any) -> list[Row]:
        """The rows of a statement."""
        with self._asking(), self.connection.cursor(binary=True) as cursor:
            cursor.execute(sql.encode(), bound)
            return cursor.fetchall()

    def texts(self, sql: str) -> dict[str, str]:
        """The rows of a statement that has two texts in each."""
        return {row[0]: row[1] for row in self.rows(sql)}

    def one(self, sql: str, *bound: Any) -> Row | None:
        """The first row of a statement."""
        with self._asking(), self.connection.cursor(binary=True) as cursor:
            return cursor.execute(sql.encode(), bound).fetchone()

    def run(self, sql: str, *bound: Any) -> int:
        """How many rows a statement changed."""
        with self._asking(), self.connection.cursor() as cursor:
            return cursor.execute(sql.encode(), bound).rowcount

    def script(self, sql: str) -> None:
        """Several statements that bind nothing, in one round trip."""
        with self._asking(), self.connection.cursor() as cursor:
            cursor.execute(sql.encode())

    def each(self, sql: str, *bound: Any) -> Iterator[Row]:
        """The rows of a statement, a few at a time, all of one state of the books."""
        with self.snapshot():
            cursor = self.connection.cursor(f"rows{next(self._names)}")
            try:
                with self._in_our_words():
                    cursor.execute(sql.encode(), bound, binary=True)
                while True:
                    with self._in_our_words():
                        some = cursor.fetchmany(_ROWS_PER_FETCH)
                    if not some:
                        return
                    yield from some
            finally:
                self._close_cursor(cursor)

    def _close_cursor(self, cursor: psycopg.ServerCursor[Row]) -> None:
        if os.getpid() == self._pid:
            with contextlib.suppress(psycopg.Error):  # the transaction is over, or the server gone
                cursor.close()

    def load(
        self, name: str, columns: Mapping[str, str], rows: Collection[Row]
    ) -> tuple[str, tuple[Any, ...]]:
        """Bring rows to the server: (what a statement selects them from, what it binds then).

        Many go by binary COPY into a temporary table of this transaction.

        Args:
            name: What the rows are called in the statement.
            columns: Name -> type of each column.
            rows: Their values.
        """
        if len(rows) < _COPY_ROWS_MIN:
            arrays = ", ".join(f"%b::{kind}[]" for kind in columns.values())
            values = zip(*rows, strict=True) if rows else ((),) * len(columns)
            return f"unnest({arrays}) AS {name} ({', '.join(columns)})", tuple(map(list, values))
        table = f"pg_temp.loaded_{name}"
        declared = ", ".join(f"{column} {kind}" for column, kind in columns.items())
        self.script(
            f"CREATE TEMPORARY TABLE IF NOT EXISTS loaded_{name} ({declared}) ON COMMIT DROP;"
            f" TRUNCATE {table}"
        )
        self.copy(table, columns, rows)
        return f"{table} AS {name}", ()

    def copy(self, table: str, columns: Mapping[str, str], rows: Collection[Row]) -> None:
        """Append rows to a table by binary COPY."""
        sql = f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)"
        with (
            self._asking(),
            self.connection.cursor() as cursor,
            cursor.copy(sql.encode()) as copy,
        ):
            copy.set_types(list(columns.values()))
            for row in rows:
                copy.write_row(row)

    # --- transactions --------------------------------------------------------------------------

    def begin(self, then: str = "") -> None:
        """Begin a transaction that writes, and run statements in it, in one round trip."""
        self._begin(_WRITING, _PASSING_ON_DISK if self._is_pooled else "", then)

    def _begin(self, mode: str, *then: str) -> None:
        """Behind a pool it brings the settings along: who had the session before left others."""
        passing = self._passing if self._is_pooled else ""
        with self._in_our_words(), self.connection.cursor() as cursor:
            cursor.execute(" ".join((f"BEGIN {mode};", passing, *then)).encode())

    @contextmanager
    def snapshot(self) -> Generator[None]:
        """One state of the books for everything that is read within; writes nothing.

        Asking for the lock first has the state taken after a rebuild that is just being swapped in,
        never between.
        """
        if self._depth == 0 and self.is_in_transaction:
            yield  # a settler reads what it has written
            return
        if self._depth == 0:
            self._begin(_READING, "LOCK TABLE meta IN ACCESS SHARE MODE")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.roll_back()

    def roll_back(self) -> None:
        """Give a transaction up, where there still is one; in a forked child nothing."""
        if os.getpid() != self._pid or self.is_lost:
            return
        with contextlib.suppress(psycopg.Error):  # the connection is lost: so is the transaction
            self._connection.rollback()

    def close(self) -> None:
        """Let go of the connection; in a forked child of nothing: it is its parent's."""
        if os.getpid() == self._pid:
            self._connection.close()
            _open.discard(self)

    def let_go(self) -> None:
        """In a forked child: hold the parent's socket no longer.

        Else the server would believe a dead parent alive for as long as a child of it lives, and
        keep its lease. Its number stays taken, so that nothing else is written to under it.
        """
        with contextlib.suppress(OSError, psycopg.Error):
            socket = self._connection.fileno()
            nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nothing, socket, inheritable=False)
            os.close(nothing)
        _inherited.append(self._connection)


_open: weakref.WeakSet[Database] = weakref.WeakSet()
_forks = [0]
"""How often this process has forked."""
_inherited: list[object] = []
"""Connections of a parent: kept, so that nobody says they were not closed."""


def _after_in_child() -> None:
    for database in list(_open):
        database.let_go()
    _open.clear()


def _after_in_parent() -> None:
    _forks[0] += 1


os.register_at_fork(after_in_parent=_after_in_parent, after_in_child=_after_in_child)
