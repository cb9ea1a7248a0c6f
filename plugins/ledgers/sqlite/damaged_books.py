"""What is wrong with the rows of the books, as far as rows can tell of one another.

Whether an event is what its observations say, and its postings are its decision, any ledger can be
asked: `costspan.core.verify` does.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from zlib import crc32

from costspan.core.join import identify
from costspan.core.settle.component import component
from costspan.core.settle.keys import waiting_keys_of
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.contents import Contents
from costspan.plugins.ledgers.sqlite.lines import NAMES, Lines
from costspan.plugins.ledgers.sqlite.rows import EPOCH_BITS, digest_of, join_oid, seq_of
from costspan.plugins.ledgers.sqlite.settlement import SqliteSettlement, place_of, state_of

_IDENTIFIED = {
    "unmatched": "unmatched",
    "unmatched_downstream": "downstream",
    "identity_conflict": "refused",
}
"""Kind of problem -> where `identify` lists it."""


def events_damaged(db: sqlite3.Connection, contents: Contents) -> Iterator[str]:
    """Every event's content against its checksum, and its columns against the content."""
    sql = """
        SELECT n, id, session, parent, started_at, request_id, trace_id, status, about, is_swept,
               content, crc FROM events ORDER BY n"""
    for number, event_id, *columns, content, crc in db.execute(sql):
        if crc32(content) != crc:
            yield f"events {number} ({event_id}): the content does not match its checksum"
            continue
        try:
            each = contents.unpack(content)
        except Exception as error:  # its ruling may be gone, or be damaged
            yield f"events {number} ({event_id}): cannot be read: {type(error).__name__}: {error}"
            continue
        if (event_id, *columns) != (each.event.id, *place_of(each), *state_of(each)):
            yield f"events {number} ({event_id}): the columns do not say what the content does"
    for (event_id,) in db.execute("SELECT event_id FROM copied"):
        yield f"copied {event_id}: no rebuild is under way"


def postings_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Numbers without gaps, lines that exist, and nothing left for events that are none."""
    sql = "SELECT seq FROM sqlite_sequence WHERE name = 'postings'"
    last = db.execute(sql).fetchone()
    (greatest,) = db.execute("SELECT coalesce(max(id), 0) FROM postings").fetchone()
    if greatest > (0 if last is None else last[0]):
        yield f"postings {greatest}: a number that was never given out"
    (rebuilt,) = db.execute("SELECT value FROM meta WHERE key = 'rebuilt'").fetchone()
    if rebuilt == "0":  # a rebuild leaves gaps, else no number is left out
        sql = """
            SELECT id, before FROM (SELECT id, lag(id, 1, 0) OVER (ORDER BY id) AS before
                                    FROM postings) WHERE id != before + 1"""
        for number, before in db.execute(sql):
            yield f"postings {number}: follows {before}; a number is missing, or was changed"
    sql = "SELECT id, event_id, line FROM postings WHERE line NOT IN (SELECT id FROM lines)"
    for number, event_id, line in db.execute(sql):
        yield f"postings {number} ({event_id}): there is no line {line}"
    yield from _of_no_event(db)


def _of_no_event(db: sqlite3.Connection) -> Iterator[str]:
    """What was posted for an event that is none any more was taken back to the last pico."""
    sql = """
        SELECT event_id, line, min(postings.id), sum(postings.events),
               sum(cost / 1000000), sum(cost % 1000000),
               sum(charge / 1000000), sum(charge % 1000000), max(bucket)
        FROM postings LEFT JOIN lines ON lines.id = line
        WHERE NOT EXISTS (SELECT 1 FROM events WHERE events.id = event_id)
        GROUP BY event_id, line"""
    for event_id, line, number, *sums, bucket in db.execute(sql):
        events, cost, cost_pico, charge, charge_pico = sums
        left = (events, cost * 10**6 + cost_pico, charge * 10**6 + charge_pico)
        # Free postings are of no event: `costspan.core.verify` holds them against their records.
        if any(left) and bucket not in ("allocated", "adjustment"):
            yield f"postings {number} ({event_id}): line {line} has amounts of what is no event"


def lines_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """The names, and remainders below one unit; the sums are a matter of every ledger."""
    sql = f"SELECT id, cost_pico, charge_pico, crc, {NAMES} FROM lines"  # noqa: S608
    for number, cost_pico, charge_pico, crc, *names in db.execute(sql):
        if checksum(*names) != crc:
            yield f"lines {number} ({' '.join(names)}): the names do not match their checksum"
        if not (0 <= cost_pico < 10**12 and 0 <= charge_pico < 10**12):
            yield f"lines {number} ({' '.join(names)}): a remainder of a whole unit or more"


def waiting_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Whoever waits is in the journal, and waits under a key of its own."""
    for key, number in db.execute("SELECT key, observation FROM waiting ORDER BY observation"):
        oid = _oid_of(db, number)
        seen = None if oid is None else next(iter(_settlement(db).observations([oid])), None)
        if seen is None and _is_archived(db, number):
            continue
        if seen is None or key not in map(digest_of, waiting_keys_of(seen)):
            yield f"waiting {key} {number}: no observation waits there"


def problems_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Every listed problem is found again."""
    numbers = "SELECT observation FROM conflicts"
    conflicts = {_oid_of(db, row[0]) for row in db.execute(numbers)}
    for kind, oid, event_id in db.execute("SELECT kind, oid, event_id FROM problems"):
        if kind == "conflict":
            is_so = oid in conflicts and event_id == ""
        elif kind in _IDENTIFIED:
            is_so = _is_found(db, kind, oid, event_id)
        else:  # `archived`: late evidence about an event whose observations are not here
            sql = "SELECT 1 FROM events WHERE id = ?"
            is_here = next(iter(_settlement(db).observations([oid])), None) is not None
            is_so = kind == "archived" and is_here and bool(db.execute(sql, (event_id,)).fetchone())
        if not is_so:
            yield f"problems {kind} {oid} {event_id!r}: it is not found again"


def _is_found(db: sqlite3.Connection, kind: str, oid: str, event_id: str) -> bool:
    settlement = _settlement(db)
    seen = list(settlement.observations([oid]))
    if not seen:
        return False
    identified = identify(component(settlement, seen).observations, ())
    listed = getattr(identified, _IDENTIFIED[kind])
    return (
        (oid, event_id) in listed if kind == "identity_conflict" else oid in listed and not event_id
    )


def _settlement(db: sqlite3.Connection) -> SqliteSettlement:
    return SqliteSettlement(db, Contents(db), Lines(db))


def _oid_of(db: sqlite3.Connection, number: int) -> str | None:
    sql = "SELECT name, epoch FROM writers WHERE id = ?"
    row = db.execute(sql, (number >> EPOCH_BITS,)).fetchone()
    return None if row is None else join_oid(row[0], seq_of(row[1], number))


def _is_archived(db: sqlite3.Connection, number: int) -> bool:
    return db.execute("SELECT 1 FROM archived WHERE id = ?", (number,)).fetchone() is not None
