"""Everything that identity could join with some observations: the neighbourhood to join anew."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from costspan.core.join.gateways import is_downstream
from costspan.core.schema import Observation
from costspan.core.settle.archived import archived_among
from costspan.core.settle.entries import Settled
from costspan.core.settle.keys import ATTEMPT, leads_of
from costspan.core.settle.settlement import Settlement


class Component(NamedTuple):
    """The observations, the events that any of them spoke of until now, and who waited.

    `archived` events lie near, and cannot be joined anew: they stay as they stand.
    """

    observations: list[Observation]
    events: dict[str, Settled]
    waited: set[str]
    archived: dict[str, Settled]


def component(
    settlement: Settlement,
    seeds: Collection[Observation],
    lost: Collection[Observation] = (),
    gateways: Sequence[str] = (),
) -> Component:
    """Everything joined with the seeds, through events, attempts, operations and response ids.

    And what `lost`, which are kept no longer, had been joined with.
    """
    found: dict[str, Observation] = {seen.oid or "": seen for seen in seeds}
    events: dict[str, Settled] = {}
    archived: dict[str, Settled] = {}
    waited: set[str] = set()
    asked: set[str] = set()
    frontier: Sequence[Observation] = [*seeds, *lost]
    has_clients = False
    while frontier:
        if not has_clients and any(is_downstream(seen, gateways) for seen in frontier):
            # A client's attempt may turn out to be evidence, or the other way round: whatever is
            # here is looked for in every way.
            has_clients = True
            frontier = [*found.values(), *lost]
        ids: set[str] = set()
        keys: set[str] = set()
        waiting_keys: list[str] = []
        for seen in frontier:
            attempt = seen.attempt_id
            if attempt is not None:
                ids.add(attempt)
                waiting_keys.append(ATTEMPT + attempt)
            if seen.oid is not None and (has_clients or not (attempt or seen.operation_ids)):
                ids.add(seen.oid)
            keys.update(leads_of(seen, gateways, has_clients))
        keys -= asked
        asked |= keys
        new = settlement.settled(ids - events.keys())
        new.update(settlement.indexed(keys))
        oids = settlement.waiting([*keys, *waiting_keys])
        waited |= oids
        archived.update({id: new.pop(id) for id in archived_among(settlement, new)})
        for event_id, each in new.items():
            if event_id not in events:
                events[event_id] = each
                oids.update(each.event.oid_names)
        frontier = [
            seen
            for seen in settlement.observations(oids - found.keys())
            if seen.oid is not None and seen.oid not in found
        ]
        found.update((seen.oid or "", seen) for seen in frontier)
    return Component(list(found.values()), events, waited, archived)


def component_of(
    settlement: Settlement, event_ids: Collection[str], gateways: Sequence[str] = ()
) -> list[Observation]:
    """Every observation that identity could join with these events."""
    oids = {oid for each in settlement.settled(event_ids).values() for oid in each.event.oid_names}
    seeds = list(settlement.observations(oids))
    return component(settlement, seeds, gateways=gateways).observations
