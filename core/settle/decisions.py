"""What the rules say of events as they stand: each with its lineage, policy and restatement."""

from __future__ import annotations

from collections.abc import Mapping

from costspan.core.decide import Decision, Lineage, decide
from costspan.core.settle.corrections import restated
from costspan.core.settle.draft import Draft, node_of
from costspan.core.settle.entries import Settled
from costspan.core.settle.lineage import ANCESTORS_MAX, lineage_of
from costspan.core.settle.policy import Policies


def decisions_of(
    draft: Draft, policies: Policies, events: Mapping[str, Settled]
) -> dict[str, Decision | None]:
    """Event id -> its decision; None while it is open."""
    lineages = lineages_of(draft, events)
    restatements = restated(draft.settlement, events)
    found: dict[str, Decision | None] = dict.fromkeys(events)
    for event_id, each in events.items():
        event = each.event
        if not event.is_open:
            rules, prices, charges = policies.at(event, restatements.get(event_id))
            found[event_id] = decide(event, lineages[event_id], rules, prices, charges)
    return found


def lineages_of(draft: Draft, events: Mapping[str, Settled]) -> Mapping[str, Lineage]:
    """The lineage of each event, its ancestors looked up level by level."""
    nodes = {event_id: node_of(each.event) for event_id, each in events.items()}
    resolved: dict[str, str] = {}
    frontier = nodes
    for _ in range(ANCESTORS_MAX):
        references = {node.parent for node in frontier.values() if node.parent is not None}
        found = draft.resolve(references - resolved.keys())
        resolved.update(found)
        above = draft.get(set(found.values()) - nodes.keys())
        frontier = {event_id: node_of(each.event) for event_id, each in above.items()}
        nodes.update(frontier)
        if not frontier:
            break
    sessions = {node.session for node in nodes.values() if node.session is not None}
    owners = draft.settlement.session_owners(sessions) if sessions else {}
    return {event_id: lineage_of(event_id, nodes, resolved, owners) for event_id in events}
