"""Other payloads under an oid that was taken: each is kept once, beside the one that stands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from costspan.plugins.ledgers.appending import Numbered, payload_hash
from costspan.plugins.ledgers.sqlite.rows import payload_of, select_in


class ConflictTable:
    """The table `conflicts`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def new(self, losers: list[Numbered]) -> list[Numbered]:
        """Those that are not kept yet, each once: of all others nothing is kept again."""
        if not losers:
            return losers
        sql = "SELECT observation, sha256 FROM conflicts WHERE observation IN ({keys})"
        known = set(select_in(self._db, sql, sorted({number for number, _ in losers})))
        fresh = {
            key: loser
            for loser in losers
            if (key := (loser[0], payload_hash(loser[1]))) not in known
        }
        return list(fresh.values())

    def keep(self, losers: Iterable[Numbered]) -> None:
        """Keep them, and list that there is a conflict."""
        for number, loser in losers:
            self._db.execute(
                "INSERT OR IGNORE INTO conflicts VALUES (?1, ?2, ?3, checksum(?1, ?2, ?3))",
                (number, payload_hash(loser), payload_of(loser)),
            )
            sql = "INSERT OR IGNORE INTO problems VALUES ('conflict', ?, '')"
            self._db.execute(sql, (loser.oid,))
