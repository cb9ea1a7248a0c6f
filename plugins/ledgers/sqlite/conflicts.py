"""Other payloads under an oid that was taken: each is kept once, beside the one that stands."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable

from costspan.core.schema import Observation, canonical
from costspan.plugins.ledgers.sqlite.rows import payload_of, select_in

Losers = list[tuple[int, Observation]]
"""(row of the journal, payload) of what lost its oid to another payload."""


def hash_of(seen: Observation) -> str:
    """What decides between two payloads of one oid: the smaller SHA-256 of the canonical JSON."""
    return hashlib.sha256(canonical(seen)).hexdigest()


class ConflictTable:
    """The table `conflicts`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def new(self, losers: Losers) -> Losers:
        """Those that are not kept yet, each once: of all others nothing is kept again."""
        if not losers:
            return losers
        sql = "SELECT observation, sha256 FROM conflicts WHERE observation IN ({keys})"
        known = set(select_in(self._db, sql, sorted({number for number, _ in losers})))
        fresh = {
            key: loser for loser in losers if (key := (loser[0], hash_of(loser[1]))) not in known
        }
        return list(fresh.values())

    def keep(self, losers: Iterable[tuple[int, Observation]]) -> None:
        """Keep them, and list that there is a conflict."""
        for number, loser in losers:
            self._db.execute(
                "INSERT OR IGNORE INTO conflicts VALUES (?1, ?2, ?3, checksum(?1, ?2, ?3))",
                (number, hash_of(loser), payload_of(loser)),
            )
            sql = "INSERT OR IGNORE INTO problems VALUES ('conflict', ?, '')"
            self._db.execute(sql, (loser.oid,))
