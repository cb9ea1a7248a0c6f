"""Flipping a byte of a row behind the ledger's back, for as long as a test looks at it."""

# ruff: noqa: S608 -- names of tables and columns, which cannot be bound

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name != 'sqlite_sequence'"


def flipped(value: Any) -> Any:
    """A value with one byte changed, of the same type."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, str):
        at = len(value) // 2
        return value[:at] + chr(ord(value[at]) ^ 1) + value[at + 1 :] if value else "x"
    at = len(value) // 2
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def cells(db: sqlite3.Connection) -> Iterator[tuple[str, str, tuple[str, ...], tuple[Any, ...]]]:
    """(table, column, its primary key, values of that) of the first and last row of each table."""
    for (table,) in db.execute(TABLES).fetchall():
        columns = db.execute(f"PRAGMA table_info({table})").fetchall()
        key = tuple(each[1] for each in columns if each[5]) or (columns[0][1],)
        rows = db.execute(f"SELECT {', '.join(key)} FROM {table}").fetchall()
        for row in dict.fromkeys(rows[:1] + rows[-1:]):
            for column in columns:
                yield table, column[1], key, row


@contextmanager
def flip(
    db: sqlite3.Connection, table: str, column: str, key: tuple[str, ...], row: tuple[Any, ...]
) -> Iterator[bool]:
    """Whether a byte is flipped now; everything is as it was afterwards.

    The triggers that forbid it are away for a moment.
    """
    where = " AND ".join(f"{name} IS ?" for name in key)
    (value,) = db.execute(f"SELECT {column} FROM {table} WHERE {where}", row).fetchone()
    if value is None:
        yield False
        return
    db.execute("BEGIN")
    triggers = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    try:
        kept = db.execute(triggers).fetchall()
        for name, _ in kept:
            db.execute(f"DROP TRIGGER {name}")
        try:
            db.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (flipped(value), *row))
        except sqlite3.IntegrityError:  # another row is called that
            yield False
            return
        for _, sql in kept:
            db.execute(sql)
        yield True
    finally:
        db.execute("ROLLBACK")
