"""Calls of a fixed cost, a policy, and a look at the books from somebody else's connection."""

from __future__ import annotations

import psycopg
from known_calls import begin, flat, keep

__all__ = ["ask", "begin", "flat", "keep"]


def ask(url: str, sql: str) -> list[tuple[object, ...]]:
    """What somebody else's connection is answered."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET search_path = costspan")
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []
