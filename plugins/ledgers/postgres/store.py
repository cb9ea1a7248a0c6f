"""The ledger: its connections, the settler's lease, and the rebuild that takes its books' place."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing, contextmanager

import psycopg

from costspan.core.ledger_errors import LedgerBusy, LedgerError, LedgerUncertain, LedgerUnread
from costspan.plugins.ledgers.postgres import migrations, rebuilding
from costspan.plugins.ledgers.postgres.contents import Contents
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.postgres.lines import Lines
from costspan.plugins.ledgers.postgres.outcome import was_committed
from costspan.plugins.ledgers.postgres.place import REBUILDING, Place
from costspan.plugins.ledgers.postgres.reading import Reading
from costspan.plugins.ledgers.postgres.settlement import PostgresSettlement

_AT_ONCE_MS = 1
_FOR_HOURS = """
    SELECT set_config(name, '0', true) FROM pg_settings
    WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"""
"""A rebuild holds the lease while another connection works; who settles, these limits bind."""
_REWRITE_PERSONS = """
    SET LOCAL lock_timeout = {};
    LOCK TABLE persons IN ACCESS EXCLUSIVE MODE;
    CREATE TEMPORARY TABLE living ON COMMIT DROP AS SELECT * FROM persons;
    TRUNCATE persons;
    INSERT INTO persons SELECT * FROM pg_temp.living;
    COMMIT"""


class PostgresLedger(Reading):
    """The books in one schema of a database. Never used across a fork.

    One connection settles, another reads, each opened when it is first needed and again when it is
    lost. While this ledger settles, it reads what it has written.
    """

    def __init__(self, place: Place, *, create: bool) -> None:
        self._place = place
        self.url = place.shown
        self._settler: Database | None = None
        self._reader: Database | None = None
        self._is_settling = False
        self._lines = Lines()
        self._rebuilt: str | None = None
        self._contents: dict[int, Contents] = {}
        first = self._again(None)
        try:
            self._check(first, create)
        except BaseException:
            first.close()
            raise
        if create:
            self._settler = first
        else:
            self._reader = first

    def _check(self, db: Database, create: bool) -> None:
        migrations.check(db, create=create)

    @property
    def db(self) -> Database:
        """The connection to read from: the settler's own while it settles."""
        if self._is_settling and self._settler is not None:
            return self._settler
        if self._reader is None or self._reader.is_lost:
            self._reader = self._again(self._reader)
        return self._reader

    @property
    def contents(self) -> Contents:
        """What unpacks the events of `db`."""
        return self._contents[id(self.db)]

    def _again(self, lost: Database | None) -> Database:
        """A connection, in the place of one that is lost."""
        if lost is not None:
            lost.check_process()
            if lost.is_in_snapshot:
                raise LedgerUnread(
                    f"the ledger {self.url} was lost while it was read: another connection would"
                    " see another state of the books"
                )
            self._contents.pop(id(lost), None)
            lost.close()
        database = Database(self._place)
        self._contents[id(database)] = Contents(database)
        return database

    # --- settling ------------------------------------------------------------------------------

    @contextmanager
    def settling(self, timeout_seconds: float) -> Generator[PostgresSettlement]:
        """Hold the settler's lease, which is the transaction's: whatever ends one ends both."""
        if self._is_settling:
            raise LedgerError(f"the ledger {self.url} is being settled by this very process")
        if self._settler is None or self._settler.is_lost:
            self._settler = self._again(self._settler)
        db = self._settler
        contents = self._contents[id(db)]
        try:
            transaction = self._take_lease(db, timeout_seconds)
            self._is_settling = True
            yield PostgresSettlement(db, contents, self._lines)
            self._commit(db, transaction)
        except BaseException as error:
            self._forget(contents)
            if isinstance(error, LedgerBusy | LedgerUncertain):
                raise
            if not isinstance(error, LedgerError):
                raise  # a matter of some record: whoever settles looks for it
            raise LedgerError(
                f"{error}; nothing was changed, and records stay in the spool"
            ) from error
        finally:
            self._is_settling = False
            db.roll_back()

    def _commit(self, db: Database, transaction: str) -> None:
        """Commit; where the connection is lost over it, what counts is what the server did."""
        try:
            db.script("COMMIT")
        except LedgerError:
            if not (db.is_lost and was_committed(self._place, transaction)):
                raise

    def _take_lease(self, db: Database, timeout_seconds: float) -> str:
        """Begin, wait for the lease in the order of asking, and notice what others did.

        Returns the transaction's number.
        """
        waited_ms = max(_AT_ONCE_MS, int(timeout_seconds * 1000))
        try:
            db.begin(
                f"SET LOCAL lock_timeout = {waited_ms}; SET LOCAL statement_timeout = 0;"
                f" {migrations.lease(self._place.schema)}; SET LOCAL lock_timeout = 0"
            )
            meta = db.texts(
                "SELECT key, value FROM meta UNION ALL SELECT '', pg_current_xact_id()::text"
            )
        except LedgerError as error:
            if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise LedgerBusy(
                    f"the ledger {self.url} is being settled by another process; the records stay"
                    " in the spool: try again later"
                ) from error
            raise
        if meta.get("schema_version") != str(migrations.SCHEMA_VERSION):
            raise LedgerError(
                f"the ledger {self.url} was brought to schema version {meta.get('schema_version')}"
                f" meanwhile, this costspan writes {migrations.SCHEMA_VERSION}"
            )
        if self._rebuilt != meta.get("rebuilt"):
            self._rebuilt = meta.get("rebuilt")
            self._forget(self._contents[id(db)])
        return meta[""]

    def _forget(self, contents: Contents) -> None:
        """What was kept in a transaction that is undone is not there."""
        contents.forget()
        self._lines.forget()

    # --- rebuilding ----------------------------------------------------------------------------

    @contextmanager
    def rebuilding(self) -> Generator[PostgresLedger]:
        """An empty ledger to fill; left normally, its books replace this one's, all at once."""
        with self.settling(30.0):
            assert self._settler is not None
            self._settler.rows(_FOR_HOURS)
            with closing(_FreshBooks(self._place.beside(REBUILDING))) as fresh:
                fresh.begin_after(rebuilding.last_number(self._settler))
                yield fresh
                fresh.analyze()
            rebuilding.adopt(self._settler, self._place.schema, fresh.schema)

    def compact(self, timeout_seconds: int = 5) -> bool:
        """Write the table anew that persons are erased from; see the protocol.

        The rest of what is deleted here never held anybody's id. The server's log of changes, its
        backups and its replicas are another matter: `docs/postgres.md`.
        """
        db = self._settler if self._settler is not None else self.db
        try:
            db.begin(_REWRITE_PERSONS.format(max(1, timeout_seconds * 1000)))
        except LedgerError:
            db.roll_back()
            return False
        return True

    def close(self) -> None:
        """Let go of the connections; in a forked child of nothing: they are its parent's."""
        for each in (self._settler, self._reader):
            if each is not None:
                each.close()


class _FreshBooks(PostgresLedger):
    """Books that are being filled, in a schema of their own beside those they will replace."""

    def __init__(self, place: Place) -> None:
        super().__init__(place, create=True)
        self.schema = place.schema

    def _check(self, db: Database, create: bool) -> None:
        rebuilding.clear(db, self._place.schema)
        migrations.migrate(db, self._place.schema, is_own=False)

    def begin_after(self, number: int) -> None:
        """Number postings from here on."""
        rebuilding.begin_after(self.db, number)

    def analyze(self) -> None:
        """Let the server know what it holds, before others ask."""
        tables = "journal, events, places, keys, lines, postings"
        self.db.begin(f"SET LOCAL statement_timeout = 0; ANALYZE {tables}; COMMIT")
