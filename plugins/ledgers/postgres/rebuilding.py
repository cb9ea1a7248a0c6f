"""Books that are filled in a schema of their own, and then take the place of those they replace."""

from __future__ import annotations

from psycopg.sql import Identifier

from costspan.core.ledger_errors import LedgerError
from costspan.plugins.ledgers.postgres.database import Database

BESIDE = ("meta", "persons", "archived", "documents", "invoices", "invoice_lines", "reviews")
"""The tables that are not of the books: a rebuild leaves them as they are."""
_FOREIGN = """
    SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(%s))
    AND to_regclass(quote_ident(%s) || '.meta') IS NULL LIMIT 1"""
"""A rebuild makes all its tables in one transaction: without meta they are not its own."""
_LAST = """
    SELECT greatest(coalesce(pg_sequence_last_value(pg_get_serial_sequence('postings', 'id')), 0),
                    (SELECT coalesce(max(id), 0) FROM postings))"""
_TABLES = """
    SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = quote_ident(%s)::regnamespace
    AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND NOT c.relname = ANY(%b::text[])
    ORDER BY c.relname"""
_OWNERS = """
    SELECT format('ALTER TABLE %%I.%%I OWNER TO %%I', %s, c.relname, pg_get_userbyid(c.relowner))
    FROM pg_class AS c WHERE c.relnamespace = quote_ident(%s)::regnamespace
    AND c.relname = ANY(%b::text[]) AND pg_get_userbyid(c.relowner) != current_user"""
_GRANTS = """
    SELECT format('GRANT %%s ON TABLE %%I.%%I TO %%s %%s', a.privilege_type, %s, c.relname,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC'
                  ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                  CASE WHEN a.is_grantable THEN 'WITH GRANT OPTION' ELSE '' END)
    FROM pg_class AS c, aclexplode(c.relacl) AS a
    WHERE c.relnamespace = quote_ident(%s)::regnamespace AND c.relname = ANY(%b::text[])
    AND a.grantee != c.relowner"""


def last_number(db: Database) -> int:
    """The greatest number that a posting ever had: none is given twice."""
    row = db.one(_LAST)
    return 0 if row is None else int(row[0])


def begin_after(db: Database, number: int) -> None:
    """Number postings from here on."""
    if number:
        db.rows("SELECT setval(pg_get_serial_sequence('postings', 'id'), %s::bigint)", number)


def clear(db: Database, schema: str) -> None:
    """Drop what a rebuild left that was killed.

    Raises:
        LedgerError: if the schema is somebody else's.
    """
    foreign = db.one(_FOREIGN, schema, schema)
    if foreign is not None:
        raise LedgerError(
            f"the schema {schema} is in the way of a rebuild, which fills one of that name: what is"
            f" in it ({foreign[0]}, …) is none of costspan's; give it another name"
        )
    db.script(f"DROP SCHEMA IF EXISTS {_name(db, schema)} CASCADE")


def adopt(db: Database, schema: str, fresh: str) -> None:
    """Put the books of one schema in the place of another's, with their owners and grants.

    In the settler's transaction. Readers ask for `meta` before anything else: who has it has seen
    none of the tables change, and who waits for it sees all of them changed.
    """
    tables = [row[0] for row in db.rows(_TABLES, fresh, list(BESIDE))]
    said = [row[0] for row in db.rows(_GRANTS, schema, schema, tables)]
    said += [row[0] for row in db.rows(_OWNERS, schema, schema, tables)]
    own, other = _name(db, schema), _name(db, fresh)
    db.script("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE")
    named = [_name(db, table) for table in tables]
    statements = [f"DROP TABLE IF EXISTS {own}.{name}" for name in named]
    statements += [f"ALTER TABLE {other}.{name} SET SCHEMA {own}" for name in named]
    db.script("; ".join(statements + said))
    clear(db, fresh)
    db.run("UPDATE meta SET value = CAST(value::bigint + 1 AS text) WHERE key = 'rebuilt'")


def _name(db: Database, name: str) -> str:
    return Identifier(name).as_string(db.connection)
