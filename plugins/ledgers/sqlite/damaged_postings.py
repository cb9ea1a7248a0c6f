"""What is wrong with the postings and the lines of a ledger in SQLite."""

from __future__ import annotations

from collections.abc import Iterator

from costspan.plugins.ledgers.sqlite.reading import Reading


def numbers_damaged(ledger: Reading) -> Iterator[str]:
    """Numbers without gaps, and none that was never given out."""
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


def remainders_damaged(ledger: Reading) -> Iterator[str]:
    """What a line has below one unit."""
    sql = """
        SELECT id, owner FROM lines
        WHERE cost_pico NOT BETWEEN 0 AND 999999999999
           OR charge_pico NOT BETWEEN 0 AND 999999999999"""
    for number, owner in ledger.connection.execute(sql):
        yield f"lines {number} ({owner}): a remainder of a whole unit or more"
