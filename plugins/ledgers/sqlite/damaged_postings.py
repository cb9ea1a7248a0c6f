"""What is wrong with the postings and the lines of a ledger in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from costspan.plugins.ledgers.sqlite.reading import Reading


def postings_damaged(ledger: Reading) -> Iterator[str]:
    """Numbers without gaps, lines that exist, and nothing left for events that are none."""
    db = ledger.connection
    sql = "SELECT seq FROM sqlite_sequence WHERE name = 'postings'"
    last = db.execute(sql).fetchone()
    (greatest,) = db.execute("SELECT coalesce(max(id), 0) FROM postings").fetchone()
    if greatest > (0 if last is None else last[0]):
        yield f"postings {greatest}: a number that was never given out"
    (rebuilt,) = db.execute("SELECT value FROM meta WHERE key = 'rebuilt'").fetchone()
    if rebuilt == "0":  # what was copied from other books has gaps; else no number is left out
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


def remainders_damaged(ledger: Reading) -> Iterator[str]:
    """What a line has below one unit."""
    sql = """
        SELECT id, owner FROM lines
        WHERE cost_pico NOT BETWEEN 0 AND 999999999999
           OR charge_pico NOT BETWEEN 0 AND 999999999999"""
    for number, owner in ledger.connection.execute(sql):
        yield f"lines {number} ({owner}): a remainder of a whole unit or more"
