"""What people say of the books: whose an event is, what decides it, and amounts of no event."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from costspan.core.join import Event
from costspan.core.journal.records import Assignment, Control, FreePostings, Restatement
from costspan.core.schema import Observation
from costspan.core.settle.entries import Posting, Settled
from costspan.core.settle.free import free_entries
from costspan.core.settle.posting import effective_of
from costspan.core.settle.settlement import Settlement


def corrected_names(controls: Iterable[Control]) -> set[str]:
    """The names of the events that new assignments and restatements are about."""
    return {
        record.event
        for record in controls
        if isinstance(record, Assignment | Restatement) and record.event is not None
    }


def names_of(event: Event) -> set[str]:
    """The names under which a correction may speak of an event."""
    return {event.id, *event.operation_names, *event.oid_names}


def led_to(settlement: Settlement, names: Collection[str]) -> list[Observation]:
    """What leads to the events of these names."""
    if not names:
        return []
    as_attempts = [Observation(attempt_id=name) for name in names]
    as_operations = [Observation(operation_ids=(name,)) for name in names]
    return [*as_attempts, *as_operations, *settlement.observations(names)]


def assign(settlement: Settlement, events: dict[str, Event]) -> None:
    """An assignment's tenant stands above everything that was observed."""
    named: dict[str, list[str]] = {}
    for event_id, event in events.items():
        for name in names_of(event):
            named.setdefault(name, []).append(event_id)
    found = settlement.assignments(named)
    latest: dict[str, Assignment] = {}
    for name, assignment in found.items():
        for event_id in named[name]:
            other = latest.get(event_id)
            if other is None or order_of(other) < order_of(assignment):
                latest[event_id] = assignment
    for event_id, assignment in latest.items():
        facts = msgspec.structs.replace(
            events[event_id].facts,
            tenant=assignment.tenant,
            tenant_source="assignment",
            members=None,
        )
        events[event_id] = msgspec.structs.replace(events[event_id], facts=facts)


def restated(settlement: Settlement, events: Mapping[str, Settled]) -> Mapping[str, Restatement]:
    """Event id -> the latest restatement of it or of its period."""
    if not settlement.has_restatements():
        return {}
    names = {
        event_id: {*names_of(each.event), effective_of(each.event, None)[0]}
        for event_id, each in events.items()
    }
    found = settlement.restatements({name for some in names.values() for name in some})
    latest: dict[str, Restatement] = {}
    for event_id, some in names.items():
        speaking = [found[name] for name in some if name in found]
        if speaking:
            latest[event_id] = max(speaking, key=restated_order_of)
    return latest


def restated_order_of(record: Restatement) -> tuple[int, bytes]:
    """The latest counts; of two at one moment the same one, whatever order they come in."""
    return (record.recorded_at, msgspec.json.encode(record))


def order_of(assignment: Assignment) -> tuple[int, str, str, str]:
    """The latest counts; of two at one moment the same one, whatever order they come in."""
    return (assignment.recorded_at, assignment.tenant, assignment.by, assignment.reason)


def entries_of_free(
    settlement: Settlement, records: Collection[FreePostings], closed_until: str | None
) -> list[Posting]:
    """The entries of new free postings; in a rebuild, of what was not copied of them."""
    copied = settlement.copied([record.id for record in records])
    settlement.come_to(copied)
    return [
        entry
        for record in records
        for entry in free_entries(record, copied.get(record.id, ()), closed_until)
    ]
