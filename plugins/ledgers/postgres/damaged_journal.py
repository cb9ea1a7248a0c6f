"""What is wrong with the rows that were recorded, and with those that follow from them alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import msgspec

from costspan.core.decide import Ruling
from costspan.core.journal.records import Assignment, FreePostings, Restatement, SessionOwner
from costspan.core.prices import ChargeBook, PriceBook, PriceError
from costspan.core.schema import Observation
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers.appending import payload_hash
from costspan.plugins.ledgers.postgres.database import Row
from costspan.plugins.ledgers.postgres.reading import Reading
from costspan.plugins.ledgers.sqlite.journal import decode_control
from costspan.plugins.ledgers.sqlite.rows import (
    EPOCH_BITS,
    crc_of,
    join_oid,
    observation_of,
    seq_of,
)

_decode_ruling = msgspec.msgpack.Decoder(Ruling).decode
_encode = msgspec.msgpack.Encoder().encode
_JOURNAL = """
    SELECT journal.id, payload, crc, name, epoch FROM journal
    LEFT JOIN writers ON writers.id = journal.id >> 32 ORDER BY journal.id"""


def journal_damaged(ledger: Reading) -> Iterator[str]:
    """Every observation against its checksum, and the counts of the writers."""
    for number, payload, crc, name, epoch in ledger.db.each(_JOURNAL):
        if name is None:
            yield f"journal {number}: no writer has number {number >> EPOCH_BITS}"
            continue
        oid = join_oid(name, seq_of(epoch, number))
        if crc_of(oid, payload) != crc:
            yield f"journal {number} ({oid}): the observation does not match its checksum"
    yield from _writers(ledger)
    sql = """
        SELECT observation, sha256, payload, name, epoch FROM conflicts
        LEFT JOIN writers ON id = observation >> 32"""
    for number, sha256, *row in ledger.db.each(sql):
        seen = _observation((number, *row))
        if seen is None or payload_hash(seen) != sha256:
            yield f"conflicts {number} {sha256}: the payload does not match its hash"


def _observation(row: Row) -> Observation | None:
    number, payload, name, epoch = row
    if name is None:
        return None
    try:
        return observation_of(name, seq_of(epoch, number), payload)
    except (ValueError, TypeError):
        return None


def _writers(ledger: Reading) -> Iterator[str]:
    sql = """
        SELECT writers.id, name, greatest, kept, coalesce(top, 0), coalesce(many, 0) FROM writers
        LEFT JOIN (
            SELECT id >> 32 AS writer, max(id & 4294967295) AS top, count(*) AS many
            FROM (SELECT id FROM journal UNION ALL SELECT id FROM archived) AS every GROUP BY 1
        ) AS counted ON writer = writers.id
        WHERE (greatest, kept) != (coalesce(top, 0), coalesce(many, 0))"""
    for number, name, greatest, kept, top, many in ledger.db.each(sql):
        yield (
            f"writers {number} ({name}): says {kept} records up to {greatest}, the journal has"
            f" {many} up to {top}"
        )


def directory_damaged(ledger: Reading) -> Iterator[str]:
    """Evidence against the witnesses in the journal; what operators say against their records."""
    witnesses: Counter[tuple[str, str]] = Counter()
    for number, payload, _, name, epoch in ledger.db.each(_JOURNAL):
        seen = _observation((number, payload, name, epoch))
        if seen is not None and authenticates(seen):
            witnesses[seen.session or "", seen.tenant or ""] += 1
    said_by: dict[tuple[str, str], int] = {}
    for record in ledger.reading().kept_controls("SessionOwner"):
        if isinstance(record, SessionOwner):
            key = (record.session, record.tenant)
            said_by[key] = max(said_by.get(key, record.recorded_at), record.recorded_at)
    # What was archived bears witness still: then there may be more than the journal has.
    is_pruned = ledger.reading().has_archive()
    sql = "SELECT session, tenant, source, recorded_at, witnesses FROM directory"
    for session, tenant, source, recorded_at, told in ledger.db.each(sql):
        found = witnesses.pop((session, tenant), 0) if source == "evidence" else 1
        if source == "operator":
            is_so = said_by.pop((session, tenant), None) == recorded_at and told == 1
        else:
            is_so = source == "evidence" and recorded_at == 0 and told > 0
            is_so = is_so and (told >= found if is_pruned else told == found)
        if not is_so:
            yield (
                f"directory session={session!r} tenant={tenant!r}: {source} of {told} witnesses,"
                f" the records have {found}"
            )
    for session, tenant in (*witnesses, *said_by):
        yield f"directory session={session!r} tenant={tenant!r}: the row is gone"


def controls_damaged(ledger: Reading) -> Iterator[str]:
    """Every control record against its hash, and the tables that list what they say."""
    said: dict[str, set[Row]] = {"assignments": set(), "restatements": set(), "free_owners": set()}
    sql = "SELECT id, sha256, kind, payload FROM controls ORDER BY id"
    for expected, (number, sha256, kind, payload) in enumerate(ledger.db.each(sql), 1):
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
        found = set(ledger.db.rows(f"SELECT * FROM {table}"))  # noqa: S608 -- a name of ours
        for row in sorted(found ^ rows, key=repr):
            what = "no control record says so" if row in found else "is gone"
            yield f"{table} {row!r}: {what}"


def policies_damaged(ledger: Reading) -> Iterator[str]:
    """Rule sets and price books against the hashes that decisions name them by."""
    for sha256, content in ledger.db.each("SELECT sha256, content FROM rule_sets"):
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"rule_sets {sha256}: the rules do not match their hash"
    sql = "SELECT sha256, name, version, content FROM price_books"
    for sha256, name, version, content in ledger.db.each(sql):
        book = _book(PriceBook, sha256, content)
        if isinstance(book, str):
            yield f"price_books {sha256} ({name}): {book}"
        elif isinstance(book, PriceBook) and (book.id, book.source_version) != (name, version):
            yield f"price_books {sha256} ({name}): the book has another name or version"
    for sha256, content in ledger.db.each("SELECT sha256, content FROM charge_books"):
        if isinstance(wrong := _book(ChargeBook, sha256, content), str):
            yield f"charge_books {sha256}: {wrong}"


def _book(
    kind: type[PriceBook | ChargeBook], sha256: str, content: bytes
) -> PriceBook | ChargeBook | str:
    """The book in these bytes, or what is wrong with it."""
    try:
        book = kind.from_bytes(content)
    except PriceError as error:
        return str(error)
    return book if book.sha256 == sha256 else "the book does not match its hash"


def rulings_damaged(ledger: Reading) -> Iterator[str]:
    """What the rules said, against the digest that names it."""
    for number, key, content in ledger.db.each("SELECT id, key, content FROM rulings"):
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
