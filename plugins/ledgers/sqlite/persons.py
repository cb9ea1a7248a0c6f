"""Who is behind a pseudonym: the side table that an erasure deletes from."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection

from costspan.core.privacy.persons import behind, new_pseudonym, persons_in
from costspan.core.schema import Observation
from costspan.plugins.ledgers.sqlite.checksums import checksum
from costspan.plugins.ledgers.sqlite.rows import select_in


class SqlitePersons:
    """The table `persons`; every write is in the caller's transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def names(self, pseudonyms: Collection[str]) -> dict[str, str]:
        """Pseudonym -> the person's id, of those who were not erased."""
        sql = "SELECT pseudonym, user FROM persons WHERE pseudonym IN ({keys})"
        return {row[0]: row[1] for row in select_in(self._db, sql, pseudonyms)}

    def pseudonym_of(self, user: str) -> str | None:
        """The pseudonym of a person's id; None if nobody has it."""
        sql = "SELECT pseudonym FROM persons WHERE user = ?"
        row = self._db.execute(sql, (user,)).fetchone()
        return None if row is None else str(row[0])

    def pseudonyms(self, users: Collection[str]) -> dict[str, str]:
        """Person's id -> pseudonym, a new one for whoever has none."""
        sql = "SELECT user, pseudonym FROM persons WHERE user IN ({keys})"
        known: dict[str, str] = {row[0]: row[1] for row in select_in(self._db, sql, users)}
        new = {user: new_pseudonym() for user in sorted(set(users) - known.keys())}
        self._db.executemany(
            "INSERT INTO persons VALUES (?, ?, ?)",
            [(pseudonym, user, checksum(pseudonym, user)) for user, pseudonym in new.items()],
        )
        return {**known, **new}

    def hide(self, fresh: dict[int, Observation], losers: list[tuple[int, Observation]]) -> None:
        """Put pseudonyms in place of persons, in what is about to be kept and in nothing else."""
        users = {user for seen in fresh.values() for user in persons_in(seen)}
        users.update([user for _, seen in losers for user in persons_in(seen)])
        if not users:
            return
        pseudonyms = self.pseudonyms(users)
        for number, seen in fresh.items():
            fresh[number] = behind(seen, pseudonyms)
        losers[:] = [(number, behind(seen, pseudonyms)) for number, seen in losers]

    def forget(self, pseudonym: str) -> bool:
        """Delete who is behind a pseudonym; whether anybody was."""
        self._db.execute("PRAGMA secure_delete = ON")
        sql = "DELETE FROM persons WHERE pseudonym = ?"
        return self._db.execute(sql, (pseudonym,)).rowcount > 0

    def mentions(self, text: str) -> int:
        """How many observations and events hold this text in whatever field; looks at all."""
        found = 0
        for table, column in (
            ("journal", "payload"), ("conflicts", "payload"), ("events", "content"),
        ):  # fmt: skip
            sql = f"SELECT count(*) FROM {table} WHERE instr({column}, ?)"  # noqa: S608
            (many,) = self._db.execute(sql, (text.encode("utf-8", "replace"),)).fetchone()
            found += int(many)
        return found
