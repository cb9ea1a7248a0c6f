"""Attributes are kept if they are on the allow list; of all others only their number is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from costspan.core import counters
from costspan.core.bounded import Cut, bounded_map, mapping
from costspan.core.schema import Observation

OWN = frozenset({"base_url"})
"""What our own adapters write: where a call went, for what is metered at a gateway."""
DROPPED = "attributes_dropped"
_allowed = OWN


def allow(names: Iterable[str]) -> None:
    """From here on keep these names, and those our own adapters write."""
    global _allowed
    _allowed = OWN.union(names)


def attributes(value: object) -> dict[str, Any] | Cut | None:
    """The attributes on the allow list, bounded; how many others there were is counted.

    Raises:
        Invalid: if it is no mapping.
    """
    given = mapping(value)
    listed = {name: given[name] for name in _allowed if name in given}
    kept = bounded_map(listed) if listed else None
    if len(listed) < len(given):
        counters.count(DROPPED, len(given) - len(listed))
        return Cut(kept.kept if isinstance(kept, Cut) else kept, DROPPED)
    return kept


def allowed_only(seen: Observation) -> Observation:
    """An observation that was not cleaned field by field, with the attributes of the allow list."""
    if not seen.attributes or seen.attributes.keys() <= _allowed:
        return seen
    kept = {name: said for name, said in seen.attributes.items() if name in _allowed}
    counters.count(DROPPED, len(seen.attributes) - len(kept))
    flags = tuple(dict.fromkeys((*seen.flags, DROPPED)))
    return msgspec.structs.replace(seen, attributes=kept or None, flags=flags)
