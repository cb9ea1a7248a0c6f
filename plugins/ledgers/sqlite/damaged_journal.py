"""What is wrong with the journal in SQLite, and with the directory that follows from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from costspan.core.journal.records import SessionOwner
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers.journal_rows import (
    EPOCH_BITS,
    crc_of,
    join_oid,
    observation_of,
    seq_of,
)
from costspan.plugins.ledgers.sqlite.reading import Reading

_WITNESSES_PER_WRITE = 5000


def journal_damaged(ledger: Reading) -> Iterator[str]:
    """Every observation against its checksum; collects witnesses."""
    db = ledger.connection
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


def _keep(db: sqlite3.Connection, witnesses: dict[tuple[str, str], int]) -> None:
    db.executemany(
        "INSERT INTO temp.witnessed VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        [(*key, many) for key, many in witnesses.items()],
    )
    witnesses.clear()


def directory_damaged(ledger: Reading) -> Iterator[str]:
    """Evidence against the witnesses in the journal; what operators say against their records."""
    db = ledger.connection
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
    for record in ledger.reading().kept_controls("SessionOwner"):
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
