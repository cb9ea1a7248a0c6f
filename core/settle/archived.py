"""Late evidence about events whose observations stand in an archive: kept, listed, not joined.

Such an event cannot be merged anew: what it was merged from is not here. So it stays as it stands,
and what newly speaks of it waits as a problem `archived` until the archive is brought back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from costspan.core.join.gateways import is_downstream
from costspan.core.schema import Observation
from costspan.core.settle.corrections import assign, names_of
from costspan.core.settle.draft import Draft
from costspan.core.settle.entries import Settled
from costspan.core.settle.keys import leads_of
from costspan.core.settle.settlement import Settlement


def archived_among(settlement: Settlement, events: Mapping[str, Settled]) -> set[str]:
    """Those of these events that an archived observation speaks of."""
    if not events or not settlement.has_archive():
        return set()
    oids = {oid for each in events.values() for oid in each.event.oid_names}
    archived = settlement.archived(oids)
    if not archived:
        return set()
    return {id for id, each in events.items() if not archived.isdisjoint(each.event.oid_names)}


def set_aside(
    settlement: Settlement, seeds: Sequence[Observation], gateways: Sequence[str]
) -> Sequence[Observation]:
    """The seeds without those that speak of an archived event, which are listed."""
    if not seeds or not settlement.has_archive():
        return seeds
    if not archived_among(settlement, _near(settlement, seeds, gateways)):
        return seeds
    kept: list[Observation] = []
    problems: dict[str, list[tuple[str, str]]] = {}
    for seen in seeds:
        archived = archived_among(settlement, _near(settlement, [seen], gateways))
        if archived:
            problems[seen.oid or ""] = [("archived", min(archived))]
        else:
            kept.append(seen)
    settlement.list_problems(problems)
    return kept


def _near(
    settlement: Settlement, seeds: Sequence[Observation], gateways: Sequence[str]
) -> dict[str, Settled]:
    """The events that these observations lead to at once."""
    near = settlement.settled({seen.attempt_id for seen in seeds if seen.attempt_id is not None})
    keys = {
        key for seen in seeds for key in leads_of(seen, gateways, is_downstream(seen, gateways))
    }
    return {**near, **settlement.indexed(keys)}


def correct_archived(
    draft: Draft, archived: Mapping[str, Settled], corrected: Collection[str]
) -> tuple[set[str], set[str]]:
    """What corrections make of archived events: (those to decide again, names of the changed).

    An assignment lies above the facts that were merged: it needs no observation.
    """
    named = {id: each for id, each in archived.items() if names_of(each.event) & set(corrected)}
    events = {event_id: each.event for event_id, each in named.items()}
    if named and draft.settlement.has_assignments():
        assign(draft.settlement, events)
    changed: set[str] = set()
    draft.read(named)
    for event_id, event in events.items():
        stood = named[event_id]
        if event != stood.event:
            draft.put(Settled(event=event, decision=stood.decision, posted=stood.posted))
            changed.update(event.names)
    return set(named), changed
