"""Persons stand behind pseudonyms: journal, events and everything sealed know nobody's id.

A pseudonym is random. Which person it stands for is one row of a side table; without that row
nobody can tell, not even with the person's id at hand.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec

from costspan.core.schema import PERSONAL_CLAIMS, Observation

NOT_KEPT = "not kept"
PSEUDONYM = re.compile(r"p:[0-9a-f]{24}")


class PersonStore(Protocol):
    """The side table of a ledger."""

    def is_readable(self) -> bool:
        """Whether who reads these books may know who is behind a pseudonym."""
        ...

    def names(self, pseudonyms: Collection[str]) -> dict[str, str]:
        """Pseudonym -> the person's id, of those who were not erased."""
        ...

    def pseudonym_of(self, user: str) -> str | None:
        """The pseudonym of a person's id; None if nobody has it."""
        ...

    def forget(self, pseudonym: str) -> bool:
        """Delete who is behind a pseudonym, in the caller's settlement; whether anybody was."""
        ...

    def mentions(self, text: str) -> int:
        """How many observations and events hold this text in whatever field; looks at all."""
        ...


def new_pseudonym() -> str:
    """A pseudonym nobody has: 96 random bits."""
    return f"p:{secrets.token_hex(12)}"


def is_pseudonym(text: str) -> bool:
    """Whether this is a pseudonym already: of a rebuild, or another ledger's journal."""
    return PSEUDONYM.fullmatch(text) is not None


def persons_in(seen: Observation) -> Iterator[str]:
    """The ids of persons that an observation names, those that are no pseudonyms."""
    if seen.user is not None and not is_pseudonym(seen.user):
        yield seen.user
    if seen.client_claims:
        yield from _claimed(seen.client_claims)


def _claimed(claims: object) -> Iterator[str]:
    if isinstance(claims, dict):
        for name, said in cast("dict[str, object]", claims).items():
            if name not in PERSONAL_CLAIMS:
                yield from _claimed(said)
            elif (person := _id_of(said)) is not None and not is_pseudonym(person):
                yield person
    elif isinstance(claims, list):
        for each in cast("list[object]", claims):
            yield from _claimed(each)


def _id_of(said: object) -> str | None:
    """A person's id as a text; applications have numbers, too."""
    if isinstance(said, str):
        return said
    return str(said) if isinstance(said, int | float) and not isinstance(said, bool) else None


def behind(seen: Observation, pseudonyms: Mapping[str, str]) -> Observation:
    """The observation with pseudonyms in place of persons."""
    changes: dict[str, Any] = {}
    if seen.user is not None:
        changes["user"] = pseudonyms.get(seen.user, seen.user)
    if seen.client_claims:
        changes["client_claims"] = _hidden(seen.client_claims, pseudonyms)
    return msgspec.structs.replace(seen, **changes) if changes else seen


def _hidden(claims: Any, pseudonyms: Mapping[str, str]) -> Any:
    if isinstance(claims, list):
        return [_hidden(each, pseudonyms) for each in cast("Sequence[Any]", claims)]
    if not isinstance(claims, dict):
        return claims
    hidden: dict[str, Any] = {}
    for name, said in cast("dict[str, Any]", claims).items():
        if name not in PERSONAL_CLAIMS:
            hidden[name] = _hidden(said, pseudonyms)
        elif (person := _id_of(said)) is not None:
            hidden[name] = pseudonyms.get(person, person)
        else:  # a person's whole record is nothing to keep, and an empty one says nothing
            hidden[name] = NOT_KEPT if said else said
    return hidden
