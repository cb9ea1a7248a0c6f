"""The journal's tables in SQLite: writers, and the evidence of whose a session is."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Collection

from costspan.core.schema import Observation, oid_of
from costspan.core.settle.settle import authenticates
from costspan.plugins.ledgers import journal
from costspan.plugins.ledgers.appending import Numbered
from costspan.plugins.ledgers.journal_rows import EPOCH_BITS, epoch_of, journal_row, split_oid
from costspan.plugins.ledgers.sqlite.queries import SqliteQueries


class JournalTables(journal.JournalTables):
    """What was recorded. Every value is bound; every write is in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(SqliteQueries(connection))
        self._db = connection
        self._writer_ids: dict[tuple[str, int], int | None] = {}

    def numbers(self, oids: Collection[str]) -> dict[str, int]:
        """Oid -> its row, whether it is there or not, of those whose writer is known."""
        found: dict[str, int] = {}
        for oid in oids:
            number = self._number(*split_oid(oid), create=False)
            if number is not None:
                found[oid] = number
        return found

    def _places(self, arrived: Collection[Observation]) -> list[int]:
        """The rows of observations in their normal form; a writer that is new is kept."""
        places: list[int] = []
        for seen in arrived:
            writer, seq = seen.writer, seen.seq
            if writer is None or seq is None or writer == seen.oid:
                writer, seq = split_oid(oid_of(seen))
            number = self._number(writer, seq, create=True)
            assert number is not None
            places.append(number)
        return places

    def _number(self, writer: str, seq: int, *, create: bool) -> int | None:
        epoch, low = epoch_of(seq)
        key = (writer, epoch)
        known = self._writer_ids.get(key)
        if known is None:
            if create:
                self._db.execute(
                    "INSERT OR IGNORE INTO writers (name, epoch, greatest, kept)"
                    " VALUES (?, ?, 0, 0)",
                    key,
                )
            sql = "SELECT id FROM writers WHERE name = ? AND epoch = ?"
            row = self._db.execute(sql, key).fetchone()
            if row is None:
                return None
            known = self._writer_ids[key] = int(row[0])
        return known << EPOCH_BITS | low

    def _withdraw(self, withdrawn: list[Numbered]) -> None:
        """Take out of the journal what lost its oid to another payload, and its evidence."""
        for number, loser in withdrawn:
            self._db.execute("DELETE FROM journal WHERE id = ?", (number,))
            if not authenticates(loser):
                continue
            row = (loser.session, loser.tenant)
            self._db.execute(
                """UPDATE directory SET witnesses = witnesses - 1
                   WHERE session = ? AND source = 'evidence' AND tenant = ?""",
                row,
            )
            self._db.execute(
                """DELETE FROM directory WHERE session = ? AND source = 'evidence' AND tenant = ?
                   AND witnesses = 0""",
                row,
            )

    def _insert(self, fresh: dict[int, Observation], stored: Collection[int]) -> None:
        """Keep observations by their rows, and their evidence; of these rows some were there."""
        self._db.executemany(
            "INSERT INTO journal VALUES (?, ?, ?)",
            [journal_row(number, seen) for number, seen in sorted(fresh.items())],
        )
        grown: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for number in fresh.keys() - stored:
            counts = grown[number >> EPOCH_BITS]
            counts[0] = max(counts[0], number & (1 << EPOCH_BITS) - 1)
            counts[1] += 1
        self._db.executemany(
            "UPDATE writers SET greatest = max(greatest, ?), kept = kept + ? WHERE id = ?",
            [(*counts, writer) for writer, counts in grown.items()],
        )
        sessions: Counter[tuple[str, str]] = Counter()
        for seen in fresh.values():
            if seen.session is not None and authenticates(seen):
                sessions[seen.session, seen.tenant or ""] += 1
        self._db.executemany(
            """INSERT INTO directory VALUES (?, ?, 'evidence', 0, ?)
               ON CONFLICT DO UPDATE SET witnesses = witnesses + excluded.witnesses""",
            [(*session, witnesses) for session, witnesses in sorted(sessions.items())],
        )
