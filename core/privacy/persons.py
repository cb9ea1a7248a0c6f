"""Persons stand behind pseudonyms: journal, events and everything sealed know nobody's id.

A pseudonym is random. Which person it stands for is one row of a side table; without that row
nobody can tell, not even with the person's id at hand.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from costspan.core.schema import PERSONAL_CLAIMS, Observation

PSEUDONYM = re.compile(r"p:[0-9a-f]{24}")


class PersonStore(Protocol):
    """The side table of a ledger."""

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
    claims = seen.client_claims
    said: list[Any] = [seen.user]
    if claims:
        said += [claims.get(name) for name in PERSONAL_CLAIMS]
    for each in said:
        if isinstance(each, str) and not is_pseudonym(each):
            yield each


def behind(seen: Observation, pseudonyms: Mapping[str, str]) -> Observation:
    """The observation with pseudonyms in place of persons."""
    changes: dict[str, Any] = {}
    if seen.user is not None:
        changes["user"] = pseudonyms.get(seen.user, seen.user)
    claims = seen.client_claims
    if claims and not PERSONAL_CLAIMS.isdisjoint(claims):
        changes["client_claims"] = {
            name: pseudonyms.get(said, said)
            if name in PERSONAL_CLAIMS and isinstance(said, str)
            else said
            for name, said in claims.items()
        }
    return msgspec.structs.replace(seen, **changes) if changes else seen
