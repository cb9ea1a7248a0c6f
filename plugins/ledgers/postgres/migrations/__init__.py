"""The schema, and how an older one is brought up to date: numbered files, each run once.

`NNNN_*.sql` brings a schema of version NNNN - 1 to version NNNN. A file that was released is never
changed: what changes is a further file. Files of functions make none for the books that a rebuild
fills: their triggers call those of the ledger itself.
"""

from __future__ import annotations

from hashlib import blake2b
from importlib.resources import files

from psycopg.sql import Identifier

from costspan.core.ledger_errors import LedgerError, LedgerMissing
from costspan.plugins.ledgers.postgres.database import Database


def lease(schema: str) -> str:
    """The statement that takes the settler's lease; whatever ends the transaction gives it back."""
    digest = blake2b(f"costspan {schema}".encode(), digest_size=8).digest()
    return f"SELECT pg_advisory_xact_lock({int.from_bytes(digest, 'big', signed=True)})"


def migrations() -> dict[int, tuple[str, str]]:
    """Version -> (name, text) of the file that makes it, in order."""
    folder = files("costspan.plugins.ledgers.postgres.migrations")
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return {int(name[:4]): (name, (folder / name).read_text("utf-8")) for name in names}


SCHEMA_VERSION = max(migrations())


def check(db: Database, *, create: bool) -> None:
    """See to it that the ledger is there, in the version that this costspan reads.

    Raises:
        LedgerMissing: if there is none, and `create` is false.
        LedgerError: if it has another version that cannot be, or may not be, brought to this one.
    """
    version = version_of(db)
    if version == SCHEMA_VERSION:
        return
    place = db.place
    if version is not None and version > SCHEMA_VERSION:
        raise LedgerError(
            f"{place.shown} has schema version {version}, this costspan reads {SCHEMA_VERSION}:"
            " a newer costspan wrote it, use that one or one that is newer still"
        )
    if not create:
        if version is None:
            raise LedgerMissing(
                f"there is no ledger in schema {place.schema} of {place.shown}; it is created when"
                " the first records are drained (costspan drain), or name another with --ledger"
            )
        raise LedgerError(
            f"{place.shown} has schema version {version}, this costspan reads {SCHEMA_VERSION}:"
            " let the role that owns it drain once (costspan drain), which brings it up to date"
        )
    migrate(db, place.schema)


def version_of(db: Database) -> int | None:
    """The version of the ledger in the first schema of the path; None if there is none."""
    row = db.one("SELECT to_regclass(quote_ident(%s) || '.meta')", db.place.schema)
    if row is None or row[0] is None:
        return None
    row = db.one("SELECT value FROM meta WHERE key = 'schema_version'")
    return None if row is None else int(row[0])


def migrate(db: Database, schema: str, *, is_own: bool = True, until: int = SCHEMA_VERSION) -> None:
    """Run what a schema lacks, all in one transaction, while nobody settles.

    Args:
        db: A connection whose path begins with the schema.
        schema: Its name.
        is_own: False for the books that a rebuild fills: they have no functions of their own.
        until: The version to bring it to.
    """
    try:
        db.begin(f"SET LOCAL statement_timeout = 0; {lease(schema)}")
        _make_schema(db, schema)
        row = db.one("SELECT value FROM meta WHERE key = 'schema_version'")
        version = 0 if row is None else int(row[0])
        for number, (name, sql) in migrations().items():
            if version < number <= until and (is_own or "functions" not in name):
                db.script(sql)
        if version < until:
            sql = """
                INSERT INTO meta VALUES ('schema_version', %s), ('rebuilt', '0')
                ON CONFLICT (key) DO UPDATE SET value = excluded.value
                WHERE meta.key != 'rebuilt'"""
            db.run(sql, str(until))
        db.script("COMMIT")
    except BaseException:
        db.roll_back()
        raise


def _make_schema(db: Database, schema: str) -> None:
    row = db.one("SELECT current_setting('server_encoding')")
    if row != ("UTF8",):
        raise LedgerError(
            f"the database of {db.place.shown} has encoding {row and row[0]}: a ledger needs UTF8"
        )
    if db.one("SELECT 1 FROM pg_namespace WHERE nspname = %s", schema) is None:
        db.script(f"CREATE SCHEMA {Identifier(schema).as_string(db.connection)}")
    db.script(
        'CREATE TABLE IF NOT EXISTS meta (key text COLLATE "C" PRIMARY KEY, value text NOT NULL)'
    )
