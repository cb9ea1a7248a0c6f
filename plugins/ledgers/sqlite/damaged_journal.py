"""What is wrong with the rows that were recorded, and with those that follow from them alone."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator

import msgspec

from costspan.core.decide import Ruling
from costspan.core.journal.records import Assignment, FreePostings, Restatement, SessionOwner
from costspan.core.prices import PriceBook, PriceError
from costspan.core.prices.charges import ChargeBook
from costspan.core.schema import canonical
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers.sqlite.journal import decode_control
from costspan.plugins.ledgers.sqlite.rows import (
    EPOCH_BITS,
    crc_of,
    join_oid,
    observation_of,
    seq_of,
)

_WITNESSES_PER_WRITE = 5000
_LOW = (1 << EPOCH_BITS) - 1
_encode = msgspec.msgpack.Encoder().encode
_decode_ruling = msgspec.msgpack.Decoder(Ruling).decode


def journal_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Every observation against its checksum, and the counts of the writers; collects witnesses."""
    db.execute("DROP TABLE IF EXISTS temp.witnessed")
    db.execute(
        "CREATE TEMP TABLE witnessed (session TEXT, tenant TEXT, n INTEGER,"
        " PRIMARY KEY (session, tenant)) WITHOUT ROWID"
    )
    witnesses: dict[tuple[str, str], int] = {}
    at: int | None = None
    name, epoch = "", 0
    for number, payload, crc in db.execute("SELECT id, payload, crc FROM journal ORDER BY id"):
        if number >> EPOCH_BITS != at:
            at = number >> EPOCH_BITS
            writer = db.execute("SELECT name, epoch FROM writers WHERE id = ?", (at,)).fetchone()
            if writer is None:
                yield f"journal {number}: no writer has number {at}"
            name, epoch = writer or ("", 0)
        oid = join_oid(name, seq_of(epoch, number))
        if crc_of(oid, payload) != crc:
            yield f"journal {number} ({oid}): the observation does not match its checksum"
            continue
        seen = observation_of(name, seq_of(epoch, number), payload)
        if seen.session is not None and authenticates(seen):
            key = (seen.session, seen.tenant or "")
            witnesses[key] = witnesses.get(key, 0) + 1
            if len(witnesses) >= _WITNESSES_PER_WRITE:
                _keep(db, witnesses)
    _keep(db, witnesses)
    yield from _writers(db)
    yield from _conflicts(db)


def _keep(db: sqlite3.Connection, witnesses: dict[tuple[str, str], int]) -> None:
    db.executemany(
        "INSERT INTO temp.witnessed VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        [(*key, many) for key, many in witnesses.items()],
    )
    witnesses.clear()


def _writers(db: sqlite3.Connection) -> Iterator[str]:
    sql = f"""
        SELECT writers.id, name, greatest, kept, coalesce(top, 0), coalesce(many, 0) FROM writers
        LEFT JOIN (
            SELECT id >> {EPOCH_BITS} AS writer, max(id & {_LOW}) AS top, count(*) AS many
            FROM (SELECT id FROM journal UNION ALL SELECT id FROM archived) GROUP BY 1
        ) ON writer = writers.id"""  # noqa: S608
    for number, name, greatest, kept, top, many in db.execute(sql):
        if (greatest, kept) != (top, many):
            yield (
                f"writers {number} ({name}): says {kept} records up to {greatest}, the journal has"
                f" {many} up to {top}"
            )


def _conflicts(db: sqlite3.Connection) -> Iterator[str]:
    sql = """
        SELECT observation, conflicts.sha256, payload, name, epoch FROM conflicts
        LEFT JOIN writers ON id = observation >> 32"""
    for number, sha256, payload, name, epoch in db.execute(sql):
        try:
            seen = observation_of(name, seq_of(epoch, number), payload)
            is_good = hashlib.sha256(canonical(seen)).hexdigest() == sha256
        except (ValueError, TypeError):
            is_good = False
        if not is_good:
            yield f"conflicts {number} {sha256}: the payload does not match its hash"


def directory_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Evidence against the witnesses in the journal; what operators say against their records."""
    is_pruned = db.execute("SELECT 1 FROM archived LIMIT 1").fetchone() is not None
    # What was archived bears witness still: then there may be more than the journal has.
    sql = f"""
        SELECT session, tenant, witnesses, n, source, recorded_at FROM directory
        LEFT JOIN temp.witnessed USING (session, tenant) WHERE source != 'operator'
          AND (source != 'evidence' OR recorded_at != 0
               OR witnesses {"<" if is_pruned else "IS NOT"} n)
        UNION ALL
        SELECT session, tenant, 0, n, 'evidence', 0 FROM temp.witnessed
        WHERE (session, 'evidence', tenant) NOT IN (SELECT session, source, tenant FROM directory)
        """  # noqa: S608
    for session, tenant, said, found, source, _ in db.execute(sql):
        yield (
            f"directory session={session!r} tenant={tenant!r}: {source} of {said} witnesses, the"
            f" journal has {found or 0}"
        )
    said_by: dict[tuple[str, str], int] = {}
    for (payload,) in db.execute("SELECT payload FROM controls WHERE kind = 'SessionOwner'"):
        record = decode_control(payload)
        if isinstance(record, SessionOwner):
            key = (record.session, record.tenant)
            said_by[key] = max(said_by.get(key, record.recorded_at), record.recorded_at)
    sql = "SELECT session, tenant, recorded_at, witnesses FROM directory WHERE source = 'operator'"
    for session, tenant, recorded_at, witnesses in db.execute(sql):
        if said_by.pop((session, tenant), None) != recorded_at or witnesses != 1:
            yield f"directory session={session!r} tenant={tenant!r}: no operator's record says so"
    for session, tenant in said_by:
        yield f"directory session={session!r} tenant={tenant!r}: an operator's row is gone"
    db.execute("DROP TABLE IF EXISTS temp.witnessed")


def controls_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Every control record against its hash, and the tables that list what they say."""
    said: dict[str, set[tuple[object, ...]]] = {
        "assignments": set(), "restatements": set(), "free_owners": set()
    }  # fmt: skip
    sql = "SELECT id, sha256, kind, payload FROM controls ORDER BY id"
    for expected, (number, sha256, kind, payload) in enumerate(db.execute(sql), 1):
        if number != expected:
            yield f"controls {number}: number {expected} comes here, control records have no gaps"
        if hashlib.sha256(payload).hexdigest() != sha256:
            yield f"controls {number} ({kind}): the record does not match its hash"
            continue
        record = decode_control(payload)
        if type(record).__name__ != kind:
            yield f"controls {number}: is called {kind}, and is a {type(record).__name__}"
        if isinstance(record, Assignment):
            said["assignments"].add(
                (record.event, record.recorded_at, record.tenant, record.by, record.reason)
            )
        elif isinstance(record, Restatement):
            said["restatements"].add((record.event or record.period, number))
        elif isinstance(record, FreePostings):
            said["free_owners"].update((line.owner, number) for line in record.lines)
    for table, rows in said.items():
        found = set(db.execute(f"SELECT * FROM {table}"))  # noqa: S608 -- a name of ours
        for row in sorted(found ^ rows, key=repr):
            what = "no control record says so" if row in found else "is gone"
            yield f"{table} {row!r}: {what}"


def policies_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """Rule sets and price books against the hashes that decisions name them by."""
    for sha256, content in db.execute("SELECT sha256, content FROM rule_sets"):
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"rule_sets {sha256}: the rules do not match their hash"
    for sha256, name, version, content in db.execute(
        "SELECT sha256, name, version, content FROM price_books"
    ):
        book = _book(PriceBook, sha256, content)
        if not isinstance(book, PriceBook):
            yield f"price_books {sha256} ({name}): {book}"
        elif (book.id, book.source_version) != (name, version):
            yield f"price_books {sha256} ({name}): the book has another name or version"
    for sha256, content in db.execute("SELECT sha256, content FROM charge_books"):
        book = _book(ChargeBook, sha256, content)
        if isinstance(book, str):
            yield f"charge_books {sha256}: {book}"


def _book(
    kind: type[PriceBook | ChargeBook], sha256: str, content: bytes
) -> PriceBook | ChargeBook | str:
    """The book in these bytes, or what is wrong with it."""
    try:
        book = kind.from_bytes(content)
    except PriceError as error:
        return str(error)
    if book.sha256 != sha256:
        return "the book does not match its hash"
    if zlib.decompress(book.to_bytes()) != zlib.decompress(content):
        return "the book is not as it was written"
    return book


def rulings_damaged(db: sqlite3.Connection) -> Iterator[str]:
    """What the rules said, against the digest that names it."""
    for number, key, content in db.execute("SELECT id, key, content FROM rulings"):
        try:
            ruling = _decode_ruling(content)
            is_good = (
                ruling.key == key
                and int.from_bytes(bytes.fromhex(key)[:8], "big", signed=True) == number
                and _encode(ruling) == content
            )
        except ValueError:
            is_good = False
        if not is_good:
            yield f"rulings {number} ({key}): the ruling does not match its digest"
