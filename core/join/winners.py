"""Who was believed about what: of each field of an event the observation that it came from.

For `explain`: the merge itself needs none of this. The winner said what was kept, and of all that
said it, it comes first in the field's order; so nothing here can disagree with the merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

from costspan.core.join.merge import BY_PROVIDER, BY_USER, OWN_ONLY, SHARED_FIELDS, Event
from costspan.core.join.precedence import CAUSE_TRUST, TRUST, USAGE_TRUST, is_sweep, sort_key
from costspan.core.join.reach import Reach, Spoken
from costspan.core.schema import Observation, oid_of

_OF_SHARED = SHARED_FIELDS | {"tenant", "session", "parent", "cause", "initiator", "delivery"}
_FROM_PROVIDER = (*BY_PROVIDER, *OWN_ONLY, "usage", "provider_result", "started_at")
_FROM_USER = (*BY_USER, "delivery", "tenant", "session", "parent", "cause", "initiator")
"""Which end the order of a field starts from. What is in neither is nobody's alone."""


def winners(event: Event, spoken: Sequence[Spoken]) -> dict[str, str]:
    """Field -> oid of the observation it was taken from; a field that nobody said is not there.

    What an assignment says was observed by nobody.
    """
    speaking = [each for each in spoken if not is_sweep(each.observation)]
    found: dict[str, str] = {}
    for name in (*_FROM_PROVIDER, *_FROM_USER):
        kept = getattr(event.facts, name)
        if kept is None or (name == "tenant" and event.facts.tenant_source == "assignment"):
            continue
        said = [each for each in speaking if _says(each, name, kept)]
        if said:
            found[name] = oid_of(min(said, key=partial(_order, name)).observation)
    return found


def _says(each: Spoken, name: str, kept: Any) -> bool:
    seen, reach = each
    if reach is Reach.SHARED and name not in _OF_SHARED:
        return False
    if reach is not Reach.OWN and name in OWN_ONLY:
        return False
    if name in ("session", "parent") and getattr(seen, f"{name}_origin") == "caller":
        return False
    return bool(getattr(seen, name) == kept)


def _order(name: str, each: Spoken) -> tuple[int, int, tuple[Any, ...]]:
    seen, reach = each
    nearest: Literal["provider", "user"] = "provider" if name in _FROM_PROVIDER else "user"
    own_first = reach is not Reach.OWN and name in ("delivery", "started_at")
    return (int(own_first), _trust(seen, name), sort_key(seen, nearest))


def _trust(seen: Observation, name: str) -> int:
    if name == "usage":
        return USAGE_TRUST[seen.usage_source]
    if name == "tenant":
        return TRUST[seen.tenant_source]
    if name in ("cause", "initiator"):
        return CAUSE_TRUST[seen.cause_source]
    return 0


def by_observation(won: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Oid -> the fields that were taken from it, in the order of the schema."""
    fields: dict[str, list[str]] = {}
    for name in _in_wire_order(won):
        fields.setdefault(won[name], []).append(name)
    return {oid: tuple(names) for oid, names in fields.items()}


def _in_wire_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=Observation.__struct_fields__.index)
