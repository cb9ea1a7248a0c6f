"""What is wrong with the journal in PostgreSQL, and with the directory that follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from costspan.core.journal.records import SessionOwner
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers.damaged_records import readable
from costspan.plugins.ledgers.journal_rows import EPOCH_BITS, crc_of, join_oid, seq_of
from costspan.plugins.ledgers.postgres.reading import Reading

_JOURNAL = """
    SELECT journal.id, payload, crc, name, epoch FROM journal
    LEFT JOIN writers ON writers.id = journal.id >> 32 ORDER BY journal.id"""


def journal_damaged(ledger: Reading) -> Iterator[str]:
    """Every observation against its checksum."""
    for number, payload, crc, name, epoch in ledger.db.each(_JOURNAL):
        if name is None:
            yield f"journal {number}: no writer has number {number >> EPOCH_BITS}"
            continue
        oid = join_oid(name, seq_of(epoch, number))
        if crc_of(oid, payload) != crc:
            yield f"journal {number} ({oid}): the observation does not match its checksum"


def directory_damaged(ledger: Reading) -> Iterator[str]:
    """Evidence against the witnesses in the journal; what operators say against their records."""
    witnesses: Counter[tuple[str, str]] = Counter()
    for number, payload, _, name, epoch in ledger.db.each(_JOURNAL):
        seen = readable(number, payload, name, epoch)
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
