"""What is wrong with the rows of a ledger: every table is looked at, every row that can be told.

Each row is held against a checksum, a hash, or whatever it follows from; what a table says wrongly
is one line that begins with the table's name. Pages and indexes are the server's own to check
(data checksums, `pg_amcheck`). Numbers of postings have gaps here: a settlement that is undone
gives back none of those it took.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from costspan.core.ledger_errors import LedgerUnread
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.damaged_books import (
    events_damaged,
    lines_damaged,
    meta_damaged,
    postings_damaged,
    problems_damaged,
    waiting_damaged,
)
from costspan.plugins.ledgers.damaged_records import (
    conflicts_damaged,
    controls_damaged,
    policies_damaged,
    rulings_damaged,
    writers_damaged,
)
from costspan.plugins.ledgers.postgres import migrations
from costspan.plugins.ledgers.postgres.damaged_journal import directory_damaged, journal_damaged
from costspan.plugins.ledgers.postgres.reading import Reading

_GUARDS = {
    "lines_no_rename", "postings_append_only", "documents_append_only", "invoices_append_only",
    "invoice_lines_append_only", "invoice_lines_sealed", "reviews_append_only",
}  # fmt: skip
_CHECKSUMMED = {
    "conflicts": "observation, sha256, payload",
    "cursors": "sink, posting",
    "counted": "writer, kind, name, times",
    "persons": "pseudonym, person",
    "archived": "id, digest",
}
_COLUMNS_NAMED = 3

Check = Callable[[Reading], Iterator[str]]


def damaged(ledger: Reading) -> Iterator[str]:
    """What is wrong, a line each; nothing if all is well."""
    checks: tuple[tuple[str, Check], ...] = (
        ("the schema", _schema),
        ("meta", lambda ledger: meta_damaged(ledger, str(migrations.SCHEMA_VERSION))),
        ("rows with a checksum", _checksummed),
        ("invoices", _invoices),
        ("controls", controls_damaged),
        ("rule sets and price books", policies_damaged),
        ("journal", journal_damaged),
        ("writers", writers_damaged),
        ("conflicts", conflicts_damaged),
        ("directory", directory_damaged),
        ("rulings", rulings_damaged),
        ("events", events_damaged),
        ("places", _places),
        ("postings", postings_damaged),
        ("lines", lines_damaged),
        ("waiting", waiting_damaged),
        ("problems", problems_damaged),
    )
    with ledger.snapshot():
        for name, check in checks:
            ledger.db.script("SAVEPOINT looked")
            try:
                yield from check(ledger)
            except LedgerUnread:
                raise
            except Exception as error:  # whatever damage makes of rows: others are looked at still
                ledger.db.script("ROLLBACK TO SAVEPOINT looked")
                yield f"{name}: cannot be read to the end: {type(error).__name__}: {error}"


def _schema(ledger: Reading) -> Iterator[str]:
    """The triggers that forbid changes may be gone, or asleep."""
    sql = """
        SELECT tgname FROM pg_trigger JOIN pg_class AS c ON c.oid = tgrelid
        WHERE c.relnamespace = quote_ident(%s)::regnamespace AND tgenabled = 'A'"""
    found = {row[0] for row in ledger.db.rows(sql, ledger.db.place.schema)}
    for name in sorted(_GUARDS - found):
        yield f"the schema: the trigger {name} is gone, or does not always fire"


def _checksummed(ledger: Reading) -> Iterator[str]:
    is_private = not ledger.persons.is_readable()
    for table, columns in _CHECKSUMMED.items():
        if is_private and table == "persons":
            continue  # whoever verifies is told so
        for *row, crc in ledger.db.each(f"SELECT {columns}, crc FROM {table}"):  # noqa: S608
            if checksum(*row) != crc:
                said = zip(columns.split(", "), row, strict=True)
                shown = " ".join(f"{name}={value!r}" for name, value in list(said)[:_COLUMNS_NAMED])
                yield f"{table} {shown}: the row does not match its checksum"


def _invoices(ledger: Reading) -> Iterator[str]:
    from costspan.plugins.ledgers.postgres.invoices import rows_of

    for table in ("documents", "invoices", "invoice_lines", "reviews"):
        for row, is_good in rows_of(ledger.db, table):
            if not is_good:
                yield f"{table} {row[0]!r} {row[1]!r}: the row does not match its checksum"


def _places(ledger: Reading) -> Iterator[str]:
    """An event is one row in each of two tables."""
    sql = """
        SELECT n, id, crc IS NULL FROM events FULL JOIN places USING (n)
        WHERE crc IS NULL OR id IS NULL"""
    for number, event_id, is_gone in ledger.db.each(sql):
        if is_gone:
            yield f"places {number} ({event_id}): there is no such event"
        else:
            yield f"events {number}: it has no place"
