"""What is wrong with the rows of a ledger: every table is looked at, every row that can be told.

Each row is held against a checksum, a hash, or whatever it follows from. What a table says wrongly
is one line of text that begins with the table's name; a check that cannot go on says so, and the
others go on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator

from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.damaged_books import (
    events_damaged,
    lines_damaged,
    meta_damaged,
    postings_damaged,
    problems_damaged,
    waiting_damaged,
)
from costspan.plugins.ledgers.damaged_records import (
    conflicts_damaged,
    controls_damaged,
    policies_damaged,
    rulings_damaged,
    writers_damaged,
)
from costspan.plugins.ledgers.sqlite.damaged_journal import directory_damaged, journal_damaged
from costspan.plugins.ledgers.sqlite.damaged_postings import numbers_damaged, remainders_damaged
from costspan.plugins.ledgers.sqlite.reading import Reading

_STRUCTURE_MAX = 100
_OF_THEIR_OWN = ("journal", "events", "lines")
"""Tables whose checksum is over less than all other columns."""
_COLUMNS_NAMED = 3

Check = Callable[[Reading], Iterator[str]]


def damaged(ledger: Reading) -> Iterator[str]:
    """What is wrong, a line each; nothing if all is well. Asked within one snapshot."""
    # The store knows its readers, so this knows the store only when it is asked.
    from costspan.plugins.ledgers.sqlite.store import SCHEMA_VERSION, schema_statements

    checks: tuple[tuple[str, Check], ...] = (
        ("the file", _structure),
        ("the schema", lambda ledger: _schema(ledger, schema_statements())),
        ("meta", lambda ledger: meta_damaged(ledger, SCHEMA_VERSION)),
        ("rows with a checksum", _checksummed),
        ("controls", controls_damaged),
        ("rule sets and price books", policies_damaged),
        ("journal", journal_damaged),
        ("writers", writers_damaged),
        ("conflicts", conflicts_damaged),
        ("directory", directory_damaged),
        ("rulings", rulings_damaged),
        ("events", events_damaged),
        ("postings", postings_damaged),
        ("numbers of postings", numbers_damaged),
        ("lines", lines_damaged),
        ("remainders", remainders_damaged),
        ("waiting", waiting_damaged),
        ("problems", problems_damaged),
    )
    # A flipped byte may leave a text that is none: it is to be told, not to stop the check.
    connection = ledger.connection
    connection.text_factory = _text
    try:
        for name, check in checks:
            try:
                yield from check(ledger)
            except Exception as error:  # whatever damage makes of rows: others are looked at still
                yield f"{name}: cannot be read to the end: {type(error).__name__}: {error}"
    finally:
        connection.text_factory = str


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _structure(ledger: Reading) -> Iterator[str]:
    """What SQLite itself finds: pages, keys, and indexes that do not say what their tables do."""
    for (found,) in ledger.connection.execute(f"PRAGMA integrity_check({_STRUCTURE_MAX})"):
        if found != "ok":
            yield f"the file: {found}"


def _schema(ledger: Reading, schema: Iterable[str]) -> Iterator[str]:
    """The tables, indexes and triggers: one that forbids changes may be gone."""
    fresh = sqlite3.connect(":memory:")
    try:
        for statement in schema:
            fresh.execute(statement)
        sql = """
            SELECT type || ' ' || name, tbl_name || coalesce(sql, '') FROM sqlite_master
            WHERE name NOT GLOB 'sqlite_stat*'"""
        wanted, found = dict(fresh.execute(sql)), dict(ledger.connection.execute(sql))
    finally:
        fresh.close()
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            yield f"the schema: the {name} is gone"
        elif name not in wanted:
            yield f"the schema: the {name} is none of costspan's"
        elif wanted[name] != found[name]:
            yield f"the schema: the {name} is not as costspan made it"


def _checksummed(ledger: Reading) -> Iterator[str]:
    """Every table whose last column is `crc`."""
    db = ledger.connection
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    for (table,) in db.execute(tables).fetchall():
        # Table names of our own schema, never anybody's input: names cannot be bound.
        rows = db.execute(f'SELECT * FROM "{table}"')  # noqa: S608
        columns = [each[0] for each in rows.description]
        if columns[-1] != "crc" or table in _OF_THEIR_OWN:
            continue
        for row in rows:
            if checksum(*row[:-1]) != row[-1]:
                yield f"{table} {_named(columns, row)}: the row does not match its checksum"


def _named(columns: list[str], row: tuple[object, ...]) -> str:
    """The first columns of a row, which name it in every table."""
    shown = [f"{name}={value!r}" for name, value in zip(columns, row, strict=True)]
    return " ".join(shown[:_COLUMNS_NAMED])
