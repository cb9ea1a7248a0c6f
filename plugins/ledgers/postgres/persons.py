"""Who is behind a pseudonym: the side table that an erasure deletes from."""

from __future__ import annotations

from collections.abc import Collection

from costspan.core.privacy.persons import behind, new_pseudonym, persons_in
from costspan.core.schema import Observation
from costspan.plugins.ledgers.postgres.database import Database
from costspan.plugins.ledgers.sqlite.checksums import checksum

_PERSONS = {"pseudonym": "text", "person": "text", "crc": "bigint"}


class PostgresPersons:
    """The table `persons`; every write is in the caller's transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def names(self, pseudonyms: Collection[str]) -> dict[str, str]:
        """Pseudonym -> the person's id, of those who were not erased."""
        sql = "SELECT pseudonym, person FROM persons WHERE pseudonym = ANY(%b::text[])"
        return {row[0]: row[1] for row in self._db.rows(sql, list(pseudonyms))}

    def pseudonym_of(self, user: str) -> str | None:
        """The pseudonym of a person's id; None if nobody has it."""
        row = self._db.one("SELECT pseudonym FROM persons WHERE person = %s", user)
        return None if row is None else str(row[0])

    def pseudonyms(self, users: Collection[str]) -> dict[str, str]:
        """Person's id -> pseudonym, a new one for whoever has none."""
        sql = "SELECT person, pseudonym FROM persons WHERE person = ANY(%b::text[])"
        known: dict[str, str] = {row[0]: row[1] for row in self._db.rows(sql, list(users))}
        new = {user: new_pseudonym() for user in sorted(set(users) - known.keys())}
        if new:
            rows = [(name, user, checksum(name, user)) for user, name in new.items()]
            source, bound = self._db.load("hidden", _PERSONS, rows)
            self._db.run(f"INSERT INTO persons SELECT * FROM {source}", *bound)  # noqa: S608
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
        return self._db.run("DELETE FROM persons WHERE pseudonym = %s", pseudonym) > 0

    def mentions(self, text: str) -> int:
        """How many observations and events hold this text in whatever field; looks at all."""
        found = 0
        for table, column in (
            ("journal", "payload"), ("conflicts", "payload"), ("events", "content"),
        ):  # fmt: skip
            sql = f"SELECT count(*) FROM {table} WHERE position(%b IN {column}) > 0"  # noqa: S608
            row = self._db.one(sql, text.encode("utf-8", "replace"))
            assert row is not None
            found += int(row[0])
        return found
