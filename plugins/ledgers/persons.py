"""Who is behind a pseudonym: the side table that an erasure deletes from."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

from costspan.core.names import ID_CHARS_MAX
from costspan.core.privacy.persons import behind, new_pseudonym, persons_in
from costspan.core.schema import Observation
from costspan.plugins.ledgers.checksums import checksum
from costspan.plugins.ledgers.queries import Queries


class Persons:
    """The table `persons`; every write is in the caller's transaction."""

    def __init__(self, ask: Queries) -> None:
        self._ask = ask

    def is_readable(self) -> bool:
        """Whether who reads these books may know who is behind a pseudonym."""
        return self._ask.may_read("persons")

    def names(self, pseudonyms: Collection[str]) -> dict[str, str]:
        """Pseudonym -> the person's id, of those who were not erased."""
        sql = f"SELECT pseudonym, {self._ask.person} FROM persons WHERE pseudonym IN ({{keys}})"  # noqa: S608
        return {row[0]: row[1] for row in self._ask.among(sql, pseudonyms)}

    def pseudonym_of(self, user: str) -> str | None:
        """The pseudonym of a person's id; None if nobody has it."""
        return self._known((user,)).get(user)

    def pseudonyms(self, users: Collection[str]) -> dict[str, str]:
        """Person's id -> pseudonym, a new one for whoever has none."""
        known = self._known(users)
        unknown = set(users) - known.keys()
        new = {kept: new_pseudonym() for kept in sorted(set(map(_kept, unknown)))}
        rows = [(name, kept, checksum(name, kept)) for kept, name in new.items()]
        self._ask.insert("persons", rows)
        return {**known, **{user: new[_kept(user)] for user in unknown}}

    def _known(self, users: Collection[str]) -> dict[str, str]:
        """Person's id -> pseudonym; one who is kept with a longer id than is kept now is known."""
        person = self._ask.person
        sql = f"SELECT {person}, pseudonym FROM persons WHERE {person} IN ({{keys}})"  # noqa: S608
        found = {row[0]: row[1] for row in self._ask.among(sql, {*users, *map(_kept, users)})}
        names = {user: found.get(user) or found.get(_kept(user)) for user in users}
        return {user: name for user, name in names.items() if name is not None}

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
        return self._ask.run("DELETE FROM persons WHERE pseudonym = ?", pseudonym) > 0

    def mentions(self, text: str) -> int:
        """How many observations and events hold this text in whatever field; looks at all."""
        found = 0
        for table, column in (
            ("journal", "payload"), ("conflicts", "payload"), ("events", "content"),
        ):  # fmt: skip
            sql = f"SELECT count(*) FROM {table} WHERE {self._ask.holds(column)}"  # noqa: S608
            found += self._ask.number(sql, text.encode("utf-8", "replace"))
        return found


def _kept(user: str) -> str:
    """A person's id as its row has it: one that no index could hold, as its digest."""
    if len(user) <= ID_CHARS_MAX:
        return user
    return "sha256:" + hashlib.sha256(user.encode("utf-8", "surrogatepass")).hexdigest()
