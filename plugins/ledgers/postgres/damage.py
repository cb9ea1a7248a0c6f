"""What is wrong with the rows of a ledger: every table is looked at, every row that can be told.

Each row is held against a checksum, a hash, or whatever it follows from; what a table says wrongly
is one line that begins with the table's name. Pages and indexes are the server's own to check
(data checksums, `pg_amcheck`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from zlib import crc32

from costspan.core.join import identify
from costspan.core.settle.component import component
from costspan.core.settle.keys import waiting_keys_of
from costspan.plugins.ledgers.postgres import migrations
from costspan.plugins.ledgers.postgres.damaged_journal import (
    controls_damaged,
    directory_damaged,
    journal_damaged,
    policies_damaged,
    rulings_damaged,
)
from costspan.plugins.ledgers.postgres.reading import Reading
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.lines import NAMES
from costspan.plugins.ledgers.sqlite.rows import EPOCH_BITS, digest_of, join_oid, seq_of
from costspan.plugins.ledgers.sqlite.settlement import place_of, state_of

_IDENTIFIED = {
    "unmatched": "unmatched",
    "unmatched_downstream": "downstream",
    "identity_conflict": "refused",
}
"""Kind of problem -> where `identify` lists it."""
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
        ("meta", _meta),
        ("rows with a checksum", _checksummed),
        ("invoices", _invoices),
        ("controls", controls_damaged),
        ("rule sets and price books", policies_damaged),
        ("journal", journal_damaged),
        ("directory", directory_damaged),
        ("rulings", rulings_damaged),
        ("events", _events),
        ("postings", _postings),
        ("lines", _lines),
        ("waiting", _waiting),
        ("problems", _problems),
    )
    with ledger.snapshot():
        for name, check in checks:
            ledger.db.script("SAVEPOINT looked")
            try:
                yield from check(ledger)
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


def _meta(ledger: Reading) -> Iterator[str]:
    found = ledger.db.texts("SELECT key, value FROM meta")
    if found.get("schema_version") != str(migrations.SCHEMA_VERSION):
        yield f"meta schema_version: {found.get('schema_version')!r}"
    if not found.get("rebuilt", "").isdecimal():
        yield f"meta rebuilt: {found.get('rebuilt')!r} is no number"
    for key in sorted(found.keys() - {"schema_version", "rebuilt"}):
        yield f"meta {key}: nobody knows this key"


def _checksummed(ledger: Reading) -> Iterator[str]:
    for table, columns in _CHECKSUMMED.items():
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


def _events(ledger: Reading) -> Iterator[str]:
    """Every event's content against its checksum, and its columns against the content."""
    unpack = ledger.contents.unpack
    sql = """
        SELECT n, id, session, parent, started_at, request_id, trace_id, status, about, is_swept,
               content, crc FROM events ORDER BY n"""
    for number, event_id, *columns, content, crc in ledger.db.each(sql):
        if crc32(content) != crc:
            yield f"events {number} ({event_id}): the content does not match its checksum"
            continue
        try:
            each = unpack(content)
        except Exception as error:  # its ruling may be gone, or be damaged
            yield f"events {number} ({event_id}): cannot be read: {type(error).__name__}: {error}"
            continue
        if (event_id, *columns) != (each.event.id, *place_of(each), *state_of(each)):
            yield f"events {number} ({event_id}): the columns do not say what the content does"
    for (event_id,) in ledger.db.rows("SELECT event_id FROM copied"):
        yield f"copied {event_id}: no rebuild is under way"


def _postings(ledger: Reading) -> Iterator[str]:
    """Lines that exist, and nothing left for events that are none.

    Numbers have gaps here: a settlement that is undone gives back none of those it took.
    """
    db = ledger.db
    sql = """
        SELECT postings.id, event_id, line FROM postings LEFT JOIN lines ON lines.id = line
        WHERE lines.id IS NULL"""
    for number, event_id, line in db.each(sql):
        yield f"postings {number} ({event_id}): there is no line {line}"
    sql = """
        SELECT event_id, line, min(postings.id)
        FROM postings LEFT JOIN lines ON lines.id = line
        WHERE NOT EXISTS (SELECT FROM events WHERE events.id = event_id)
          AND bucket NOT IN ('allocated', 'adjustment')
        GROUP BY event_id, line
        HAVING sum(postings.events) != 0 OR sum(postings.cost) != 0 OR sum(postings.charge) != 0"""
    # Free postings are of no event: `costspan.core.verify` holds them against their records.
    for event_id, line, number in db.each(sql):
        yield f"postings {number} ({event_id}): line {line} has amounts of what is no event"


def _lines(ledger: Reading) -> Iterator[str]:
    """The names; the sums are a matter of every ledger."""
    for number, crc, *names in ledger.db.each(f"SELECT id, crc, {NAMES} FROM lines"):  # noqa: S608
        if checksum(*names) != crc:
            yield f"lines {number} ({names[0]}): the names do not match their checksum"


def _waiting(ledger: Reading) -> Iterator[str]:
    """Whoever waits is in the journal, and waits under a key of its own."""
    reading = ledger.reading()
    sql = """
        SELECT key, observation, name, epoch FROM waiting
        LEFT JOIN writers ON id = observation >> %s ORDER BY observation"""
    for key, number, name, epoch in ledger.db.each(sql, EPOCH_BITS):
        oid = None if name is None else join_oid(name, seq_of(epoch, number))
        seen = None if oid is None else next(iter(reading.observations([oid])), None)
        if seen is None and reading.archived_digests([number]):
            continue
        if seen is None or key not in map(digest_of, waiting_keys_of(seen)):
            yield f"waiting {key} {number}: no observation waits there"


def _problems(ledger: Reading) -> Iterator[str]:
    """Every listed problem is found again."""
    conflicts = {
        join_oid(name, seq_of(epoch, number))
        for number, name, epoch in ledger.db.rows(
            "SELECT observation, name, epoch FROM conflicts JOIN writers ON id = observation >> 32"
        )
    }
    settlement = ledger.reading()
    for kind, oid, event_id in ledger.db.each("SELECT kind, oid, event_id FROM problems"):
        if kind == "conflict":
            is_so = oid in conflicts and event_id == ""
        elif kind in _IDENTIFIED:
            is_so = _is_found(ledger, kind, oid, event_id)
        else:  # `archived`: late evidence about an event whose observations are not here
            is_here = bool(list(settlement.observations([oid])))
            is_so = kind == "archived" and is_here and bool(settlement.settled([event_id]))
        if not is_so:
            yield f"problems {kind} {oid} {event_id!r}: it is not found again"


def _is_found(ledger: Reading, kind: str, oid: str, event_id: str) -> bool:
    settlement = ledger.reading()
    seen = list(settlement.observations([oid]))
    if not seen:
        return False
    identified = identify(component(settlement, seen).observations, ())
    listed = getattr(identified, _IDENTIFIED[kind])
    if kind == "identity_conflict":
        return (oid, event_id) in listed
    return oid in listed and not event_id
