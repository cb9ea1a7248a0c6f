"""What is wrong with rows that were recorded, or were kept to decide by, in any ledger."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator

import msgspec

from costspan.core.decide import Ruling
from costspan.core.journal.records import Assignment, FreePostings, Restatement
from costspan.core.prices import ChargeBook, PriceBook, PriceError
from costspan.core.schema import Observation
from costspan.plugins.ledgers.appending import payload_hash
from costspan.plugins.ledgers.control_rows import decode_control
from costspan.plugins.ledgers.journal_rows import observation_of, seq_of
from costspan.plugins.ledgers.queries import Row
from costspan.plugins.ledgers.reading import Reading

_decode_ruling = msgspec.msgpack.Decoder(Ruling).decode
_encode = msgspec.msgpack.Encoder().encode


def writers_damaged(ledger: Reading) -> Iterator[str]:
    """What each writer's row says of its records, against the journal and the archive."""
    sql = """
        SELECT writers.id, name, greatest, kept, coalesce(top, 0), coalesce(many, 0) FROM writers
        LEFT JOIN (
            SELECT id >> 32 AS writer, max(id & 4294967295) AS top, count(*) AS many
            FROM (SELECT id FROM journal UNION ALL SELECT id FROM archived) AS every GROUP BY 1
        ) AS counted ON writer = writers.id
        WHERE (greatest, kept) != (coalesce(top, 0), coalesce(many, 0))"""
    for number, name, greatest, kept, top, many in ledger.ask.each(sql):
        yield (
            f"writers {number} ({name}): says {kept} records up to {greatest}, the journal has"
            f" {many} up to {top}"
        )


def conflicts_damaged(ledger: Reading) -> Iterator[str]:
    """Every payload that lost its oid, against the hash that it lost by."""
    sql = """
        SELECT observation, sha256, payload, name, epoch FROM conflicts
        LEFT JOIN writers ON id = observation >> 32"""
    for number, sha256, payload, name, epoch in ledger.ask.each(sql):
        seen = readable(number, payload, name, epoch)
        if seen is None or payload_hash(seen) != sha256:
            yield f"conflicts {number} {sha256}: the payload does not match its hash"


def readable(
    number: int, payload: bytes, name: str | None, epoch: int | None
) -> Observation | None:
    """The observation of a row, where it is one and there is its writer."""
    if name is None or epoch is None:
        return None
    try:
        return observation_of(name, seq_of(epoch, number), payload)
    except (ValueError, TypeError):
        return None


def controls_damaged(ledger: Reading) -> Iterator[str]:
    """Every control record against its hash, and the tables that list what they say."""
    said: dict[str, set[Row]] = {"assignments": set(), "restatements": set(), "free_owners": set()}
    sql = "SELECT id, sha256, kind, payload FROM controls ORDER BY id"
    for expected, (number, sha256, kind, payload) in enumerate(ledger.ask.each(sql), 1):
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
        found = set(ledger.ask.rows(f"SELECT * FROM {table}"))  # noqa: S608 -- a name of ours
        for row in sorted(found ^ rows, key=repr):
            what = "no control record says so" if row in found else "is gone"
            yield f"{table} {row!r}: {what}"


def policies_damaged(ledger: Reading) -> Iterator[str]:
    """Rule sets and price books against the hashes that decisions name them by."""
    for sha256, content in ledger.ask.each("SELECT sha256, content FROM rule_sets"):
        if hashlib.sha256(content).hexdigest() != sha256:
            yield f"rule_sets {sha256}: the rules do not match their hash"
    sql = "SELECT sha256, name, version, content FROM price_books"
    for sha256, name, version, content in ledger.ask.each(sql):
        book = _book(PriceBook, sha256, content)
        if isinstance(book, str):
            yield f"price_books {sha256} ({name}): {book}"
        elif isinstance(book, PriceBook) and (book.id, book.source_version) != (name, version):
            yield f"price_books {sha256} ({name}): the book has another name or version"
    for sha256, content in ledger.ask.each("SELECT sha256, content FROM charge_books"):
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
    if book.sha256 != sha256:
        return "the book does not match its hash"
    if zlib.decompress(book.to_bytes()) != zlib.decompress(content):
        return "the book is not as it was written"
    return book


def rulings_damaged(ledger: Reading) -> Iterator[str]:
    """What the rules said, against the digest that names it."""
    for number, key, content in ledger.ask.each("SELECT id, key, content FROM rulings"):
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
