"""Events as the bytes of their rows; what many share (a ruling) is a row of its own."""

from __future__ import annotations

import sqlite3

from costspan.plugins.ledgers.packing import Packing


class Contents(Packing):
    """Packs and unpacks events; remembers the rulings of this connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._db = connection

    def keep_ruling(self, number: int, key: str, content: bytes) -> None:
        """Keep a ruling, unless it is kept."""
        sql = "INSERT INTO rulings VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING"
        self._db.execute(sql, (number, key, content))

    def find_ruling(self, number: int) -> bytes | None:
        """The ruling of this number."""
        sql = "SELECT content FROM rulings WHERE id = ?"
        row = self._db.execute(sql, (number,)).fetchone()
        return None if row is None else row[0]
