"""Settling in thought: events as their observations and policies say, beside how they stand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import msgspec

from costspan.core.join import Event, identify, merge
from costspan.core.join.identity import Identified
from costspan.core.settle.archived import archived_among
from costspan.core.settle.component import component
from costspan.core.settle.corrections import assign
from costspan.core.settle.decisions import decisions_of
from costspan.core.settle.draft import Draft
from costspan.core.settle.entries import Settled
from costspan.core.settle.keys import keys_of_event
from costspan.core.settle.policy import Policies
from costspan.core.settle.posting import target_of
from costspan.core.settle.settlement import Settlement


def events_wrong(settlement: Settlement, events: Collection[Settled]) -> Iterator[tuple[str, str]]:
    """(event id, what is wrong with it), of some events, all of them looked at anew.

    The facts of one whose observations stand in an archive are taken as they are.

    Args:
        settlement: The look-ups of a settler. Nothing is written.
        events: As the ledger says that they stand.
    """
    known = {each.event.id: each for each in events}
    archived = archived_among(settlement, known)
    yield from _wrong_facts(
        settlement, {id: each for id, each in known.items() if id not in archived}
    )
    draft = Draft(settlement)
    draft.read(known)
    decisions = decisions_of(draft, Policies(settlement), known)
    for event_id, each in known.items():
        decision = decisions[event_id]
        if decision != each.decision:
            yield event_id, f"decided again it differs: {_difference(each.decision, decision)}"
        if target_of(each.event, each.decision) != each.posted:
            yield event_id, "what stands for it is not what its decision says"


def _wrong_facts(settlement: Settlement, known: Mapping[str, Settled]) -> Iterator[tuple[str, str]]:
    oids = {oid: event_id for event_id, each in known.items() for oid in each.event.oid_names}
    seen = list(settlement.observations(oids))
    for missing in sorted(oids.keys() - {each.oid for each in seen}):
        yield oids[missing], f"the journal has no observation {missing}"
    identified = identify(component(settlement, seen).observations, ())
    now = {
        event_id: merge(event_id, identified.events[event_id])
        for event_id in known
        if event_id in identified.events
    }
    if settlement.has_assignments():
        assign(settlement, now)
    for event_id, each in known.items():
        if event_id not in now:
            yield event_id, "no observation in the journal makes it an event"
        elif now[event_id] != each.event:
            yield event_id, f"merged again it differs: {_difference(each.event, now[event_id])}"
    for key, event_id in settlement.unindexed(_keys(identified, now)):
        yield event_id, f"its keys do not lead to it: {key}"


def _keys(identified: Identified, events: Mapping[str, Event]) -> list[tuple[str, str]]:
    return [
        (key, event_id)
        for event_id, event in events.items()
        for key in dict.fromkeys(keys_of_event(event, identified.events[event_id], ()))
    ]


def _difference(stood: object, now: object) -> str:
    """The fields in which two of a kind differ."""
    if not isinstance(stood, msgspec.Struct) or type(stood) is not type(now):
        return f"{type(stood).__name__} is now {type(now).__name__}"
    differing: list[str] = []
    for name in stood.__struct_fields__:
        was, is_now = getattr(stood, name), getattr(now, name)
        if was == is_now:
            continue
        if isinstance(was, msgspec.Struct) and type(was) is type(is_now):
            differing.append(f"{name} ({_difference(was, is_now)})")
        else:
            differing.append(name)
    return ", ".join(differing)
