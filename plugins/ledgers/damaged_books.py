"""What is wrong with the rows of the books, as far as rows of any ledger can tell of one another.

Whether an event is what its observations say, and its postings are its decision, any ledger can be
asked: `costspan.core.verify` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import crc32

from costspan.core.join import identify
from costspan.core.settle.archived import archived_among
from costspan.core.settle.component import component
from costspan.core.settle.keys import waiting_keys_of
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.event_rows import digest_of, place_of, state_of
from costspan.plugins.ledgers.journal_rows import join_oid, seq_of
from costspan.plugins.ledgers.line_rows import NAMES
from costspan.plugins.ledgers.reading import Reading

_IDENTIFIED = {
    "unmatched": "unmatched",
    "unmatched_downstream": "downstream",
    "identity_conflict": "refused",
}
"""Kind of problem -> where `identify` lists it."""


def meta_damaged(ledger: Reading, version: str) -> Iterator[str]:
    """The ledger's own few words about itself."""
    found: dict[str, str] = dict(ledger.ask.rows("SELECT key, value FROM meta"))
    if found.get("schema_version") != version:
        yield f"meta schema_version: {found.get('schema_version')!r}, not {version!r}"
    if not found.get("rebuilt", "").isdecimal():
        yield f"meta rebuilt: {found.get('rebuilt')!r} is no number"
    for key in sorted(found.keys() - {"schema_version", "rebuilt"}):
        yield f"meta {key}: nobody knows this key"


def events_damaged(ledger: Reading) -> Iterator[str]:
    """Every event's content against its checksum, and its columns against the content."""
    unpack = ledger.contents.unpack
    sql = f"""
        SELECT n, id, session, parent, started_at, request_id, trace_id, status, about, is_swept,
               content, crc FROM {ledger.ask.events} ORDER BY n"""  # noqa: S608
    for number, event_id, *columns, content, crc in ledger.ask.each(sql):
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
    for (event_id,) in ledger.ask.rows("SELECT event_id FROM copied"):
        yield f"copied {event_id}: no rebuild is under way"


def postings_damaged(ledger: Reading) -> Iterator[str]:
    """Postings on lines that are none, and amounts left of what is no event any more.

    Those were taken back to the last pico: on the same line, in whatever period it was posted.
    """
    sql = """
        SELECT postings.id, event_id, line FROM postings LEFT JOIN lines ON lines.id = line
        WHERE lines.id IS NULL"""
    for number, event_id, line in ledger.ask.each(sql):
        yield f"postings {number} ({event_id}): there is no line {line}"
    # Free postings are of no event: `costspan.core.verify` holds them against their records. Whole
    # millionths and the rest apart: no sum overflows an integer.
    sql = f"""
        SELECT min(postings.id), event_id, min(line), sum(postings.events),
               sum(postings.cost / 1000000), sum(postings.cost % 1000000),
               sum(postings.charge / 1000000), sum(postings.charge % 1000000)
        FROM postings JOIN lines ON lines.id = line
        WHERE bucket NOT IN ('allocated', 'adjustment')
          AND NOT EXISTS (SELECT 1 FROM {ledger.ask.events} WHERE id = event_id)
        GROUP BY event_id, owner, effective_period, bucket, pool, day, model, currency"""  # noqa: S608
    for number, event_id, line, events, *parts in ledger.ask.each(sql):
        cost, cost_rest, charge, charge_rest = parts
        if any((events, cost * 10**6 + cost_rest, charge * 10**6 + charge_rest)):
            yield f"postings {number} ({event_id}): line {line} has amounts of what is no event"


def lines_damaged(ledger: Reading) -> Iterator[str]:
    """The names; the sums are a matter of `costspan.core.verify`."""
    for number, crc, *names in ledger.ask.each(f"SELECT id, crc, {NAMES} FROM lines"):  # noqa: S608
        if checksum(*names) != crc:
            yield f"lines {number} ({' '.join(names)}): the names do not match their checksum"


def waiting_damaged(ledger: Reading) -> Iterator[str]:
    """Whoever waits is in the journal, and waits under a key of its own."""
    reading = ledger.reading()
    sql = """
        SELECT key, observation, name, epoch FROM waiting
        LEFT JOIN writers ON id = observation >> 32 ORDER BY observation"""
    for key, number, name, epoch in ledger.ask.each(sql):
        oid = None if name is None else join_oid(name, seq_of(epoch, number))
        seen = None if oid is None else next(iter(reading.observations([oid])), None)
        if seen is None and reading.archived_digests([number]):
            continue
        if seen is None or key not in map(digest_of, waiting_keys_of(seen)):
            yield f"waiting {key} {number}: no observation waits there"


def problems_damaged(ledger: Reading) -> Iterator[str]:
    """Every listed problem is found again."""
    conflicts = {
        join_oid(name, seq_of(epoch, number))
        for number, name, epoch in ledger.ask.rows(
            "SELECT observation, name, epoch FROM conflicts JOIN writers ON id = observation >> 32"
        )
    }
    settlement = ledger.reading()
    for kind, oid, event_id in ledger.ask.each("SELECT kind, oid, event_id FROM problems"):
        if kind == "conflict":
            is_so = oid in conflicts and event_id == ""
        elif kind in _IDENTIFIED:
            is_so = _is_found(ledger, kind, oid, event_id)
        else:  # `archived`: late evidence about an event whose observations are not here
            is_here = bool(list(settlement.observations([oid])))
            is_so = kind == "archived" and is_here and bool(ledger.reading().settled([event_id]))
        if not is_so:
            yield f"problems {kind} {oid} {event_id!r}: it is not found again"


def _is_found(ledger: Reading, kind: str, oid: str, event_id: str) -> bool:
    settlement = ledger.reading()
    about = settlement.settled([event_id]) if event_id else {}
    if archived_among(settlement, about) or settlement.archived([oid]):
        return True  # what it was found in is not here
    seen = list(settlement.observations([oid]))
    if not seen:
        return False
    identified = identify(component(settlement, seen).observations, ())
    listed = getattr(identified, _IDENTIFIED[kind])
    if kind == "identity_conflict":
        return (oid, event_id) in listed
    return oid in listed and not event_id
