"""Events as the bytes of their rows: as in SQLite; what many share (a ruling) is a row here too."""

from __future__ import annotations

from costspan.plugins.ledgers.packing import Packing
from costspan.plugins.ledgers.postgres.database import Database


class Contents(Packing):
    """Packs and unpacks events; remembers the rulings of this ledger."""

    def __init__(self, db: Database) -> None:
        super().__init__()
        self.db = db
        """The connection to use now: a lost one is replaced."""

    def keep_ruling(self, number: int, key: str, content: bytes) -> None:
        """Keep a ruling, unless it is kept."""
        sql = "INSERT INTO rulings VALUES (%s, %s, %b) ON CONFLICT (key) DO NOTHING"
        self.db.run(sql, number, key, content)

    def find_ruling(self, number: int) -> bytes | None:
        """The ruling of this number."""
        row = self.db.one("SELECT content FROM rulings WHERE id = %s", number)
        return None if row is None else row[0]
