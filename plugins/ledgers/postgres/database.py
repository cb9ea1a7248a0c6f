"""One connection to the database: statements of our own, every value bound, errors in our words."""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import Identifier

from costspan.core.ledger_errors import LedgerError
from costspan.plugins.ledgers.postgres.text import adapt

Row = tuple[Any, ...]

_SCHEMA = "costspan"
_COPY_ROWS_MIN = 500
"""Fewer rows go as arrays: a temporary table costs more than they do, and leaves the catalogue
something to clean up."""
_ROWS_PER_FETCH = 2000
_CONNECT_SECONDS = "10"
_SETTINGS = """
    SELECT set_config('search_path', %s, false), set_config('jit', 'off', false),
           set_config('tcp_keepalives_idle', '30', false),
           set_config('tcp_keepalives_interval', '10', false),
           set_config('tcp_keepalives_count', '3', false),
           set_config('synchronous_commit', CASE current_setting('synchronous_commit')
                      WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)"""
"""A settler that vanished gives its lease back in a minute, not when TCP gives it up; and what is
committed is on disk, since the spool that held it is deleted next."""


class Place:
    """Where a ledger is: what libpq is told, the schema, and what may be shown of it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
        self.schema = dict(query).get("schema") or _SCHEMA
        self.path: tuple[str, ...] = (self.schema,)
        """The schemas where names are looked for, in order."""
        said = urlencode([(name, value) for name, value in query if name != "schema"], safe="/")
        self.conninfo = urlunsplit(parts._replace(query=said))
        user, at, host = parts.netloc.rpartition("@")
        shown = [(name, value) for name, value in query if "password" not in name]
        self.shown = urlunsplit(
            parts._replace(
                netloc=user.partition(":")[0] + at + host, query=urlencode(shown, safe="/")
            )
        )

    def beside(self, suffix: str) -> Place:
        """Another schema of the same database, that sees what this one has."""
        other = copy(self)
        other.schema = self.schema + suffix
        other.path = (other.schema, *self.path)
        return other


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
        try:
            defaults = {"connect_timeout": _CONNECT_SECONDS, "application_name": "costspan"}
            said = {**defaults, **conninfo_to_dict(place.conninfo), "client_encoding": "UTF8"}
            self._connection = psycopg.connect(
                make_conninfo("", **said),
                autocommit=True,
                # A plan made while the tables were empty would read all of them later on.
                prepare_threshold=None,
            )
        except (psycopg.Error, UnicodeError) as error:
            raise LedgerError(f"the ledger {place.shown} cannot be opened: {error}") from error
        _open.add(self)
        try:
            adapt(self._connection)
            names = ", ".join(Identifier(name).as_string(self._connection) for name in place.path)
            self.rows(_SETTINGS, f"{names}, pg_temp")
        except BaseException:
            self.close()
            raise

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
    def is_in_transaction(self) -> bool:
        """Whether somebody has begun a transaction."""
        return self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    # --- statements ----------------------------------------------------------------------------

    @contextmanager
    def _in_our_words(self) -> Generator[None]:
        """What a record's values bring about stays as it is; everything else is the ledger's."""
        try:
            yield
        except (psycopg.IntegrityError, psycopg.DataError):
            raise
        except psycopg.Error as error:
            said = str(error).strip().replace("\n", " ")
            raise LedgerError(f"the ledger {self.place.shown}: {said}") from error

    def rows(self, sql: str, *bound: Any) -> list[Row]:
        """The rows of a statement."""
        with self._in_our_words(), self.connection.cursor(binary=True) as cursor:
            cursor.execute(sql.encode(), bound)
            return cursor.fetchall()

    def texts(self, sql: str) -> dict[str, str]:
        """The rows of a statement that has two texts in each."""
        return {row[0]: row[1] for row in self.rows(sql)}

    def one(self, sql: str, *bound: Any) -> Row | None:
        """The first row of a statement."""
        with self._in_our_words(), self.connection.cursor(binary=True) as cursor:
            return cursor.execute(sql.encode(), bound).fetchone()

    def run(self, sql: str, *bound: Any) -> int:
        """How many rows a statement changed."""
        with self._in_our_words(), self.connection.cursor() as cursor:
            return cursor.execute(sql.encode(), bound).rowcount

    def script(self, sql: str) -> None:
        """Several statements that bind nothing, in one round trip."""
        with self._in_our_words(), self.connection.cursor() as cursor:
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
            self._in_our_words(),
            self.connection.cursor() as cursor,
            cursor.copy(sql.encode()) as copy,
        ):
            copy.set_types(list(columns.values()))
            for row in rows:
                copy.write_row(row)

    # --- transactions --------------------------------------------------------------------------

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
            self.script(
                "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                " LOCK TABLE meta IN ACCESS SHARE MODE"
            )
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
_inherited: list[object] = []
"""Connections of a parent: kept, so that nobody says they were not closed."""


def _after_in_child() -> None:
    for database in list(_open):
        database.let_go()
    _open.clear()


os.register_at_fork(after_in_child=_after_in_child)
