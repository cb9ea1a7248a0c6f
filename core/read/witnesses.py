"""Who saw an attempt, what each said of it, and whom the books believe."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from costspan.core.join import Event
from costspan.core.join.identity import Spoken
from costspan.core.join.winners import by_observation, winners
from costspan.core.schema import Observation, oid_of

_HIDDEN = frozenset({"schema_version", "oid", "writer", "seq", "recorded_at"})


class Witness(msgspec.Struct, frozen=True):
    """One observation of an event: who saw it, how far it is believed, and what it said.

    `won` names the fields of the event that were taken from it.
    """

    oid: str
    source: str
    layer: str
    phase: str
    reach: str
    recorded_at: int | None
    said: dict[str, Any]
    won: tuple[str, ...]


class Counted(msgspec.Struct, frozen=True):
    """What one observation counted: component -> quantity, and where it has the numbers from.

    `is_kept`: these are the numbers that the event is priced by.
    """

    oid: str
    who: str
    usage_source: str
    usage: dict[str, int]
    delivered: dict[str, int] | None
    is_kept: bool


def witnesses_of(event: Event, spoken: Collection[Spoken]) -> tuple[Witness, ...]:
    """Everybody who spoke of an event, in the order it was recorded."""
    won = by_observation(winners(event, list(spoken)))
    return tuple(
        Witness(
            oid=oid_of(seen),
            source=seen.source or "",
            layer=seen.layer,
            phase=seen.phase,
            reach=reach.name.lower(),
            recorded_at=seen.recorded_at,
            said=_said(seen),
            won=won.get(oid_of(seen), ()),
        )
        for seen, reach in sorted(spoken, key=_heard)
    )


def counts_of(witnesses: Collection[Witness]) -> tuple[Counted, ...]:
    """The usage that each of them reported, by component."""
    return tuple(
        Counted(
            oid=seen.oid,
            who=who(seen),
            usage_source=seen.said.get("usage_source") or "provider",
            usage=seen.said.get("usage") or {},
            delivered=seen.said.get("delivered_usage"),
            is_kept="usage" in seen.won,
        )
        for seen in witnesses
        if seen.reach != "shared" and (seen.said.get("usage") or seen.said.get("delivered_usage"))
    )


def who(seen: Witness) -> str:
    """How a page calls it: `gateway litellm END`."""
    return " ".join(part for part in (seen.layer, seen.source, seen.phase.upper()) if part)


def _heard(spoken: Spoken) -> tuple[int, str, int, str]:
    """The order observations were recorded in; a writer's own numbers count as numbers."""
    seen = spoken.observation
    return (seen.recorded_at or 0, seen.writer or "", seen.seq or 0, oid_of(seen))


def _said(seen: Observation) -> dict[str, Any]:
    return {
        name: value
        for name in seen.__struct_fields__
        if name not in _HIDDEN and (value := getattr(seen, name)) not in (None, ())
    }
