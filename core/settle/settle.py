"""The settlement of one batch of records: append, join, find what is dirty, decide, post.

An event's decision reads its own facts, its ancestors, its session's directory row, and the policy
in force. So a change dirties: the events of its own identity component; the descendants of an
event whose tenant, session, parent, kind or names changed, misses included (a child is found by
the name it looks for, whether anybody carries it yet or not); the events of a session whose owner
changed, and theirs; and, for a new policy, the events it decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import msgspec

from costspan.core.decide import Decision, Lineage, decide
from costspan.core.join import Event, identify, merge
from costspan.core.join.identity import AUTHENTICATED
from costspan.core.journal.records import Control, Policy, SessionOwner
from costspan.core.schema import Observation
from costspan.core.settle.ledger import (
    Amount,
    Appended,
    Line,
    Node,
    Posting,
    Settled,
    Settlement,
)
from costspan.core.settle.lineage import lineage_of
from costspan.core.settle.policy import Policies

NO_PERIOD = "0000-00"
"""The period of an event that nobody gave a time."""


class Report(msgspec.Struct, kw_only=True):
    """What a settlement did."""

    observations: int = 0
    duplicates: int = 0
    conflicts: int = 0
    events: int = 0
    postings: int = 0

    def add(self, other: Report) -> None:
        """Count another settlement too."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def settle(
    settlement: Settlement,
    observations: Collection[Observation],
    controls: Iterable[Control] = (),
    gateways: tuple[str, ...] = (),
) -> Report:
    """Settle a batch. Nothing is written outside the settlement's transaction."""
    new_controls = settlement.append_control(controls)
    appended = settlement.append(observations, gateways)
    dirty = _rejoin(settlement, appended, gateways)
    touched = (*appended.fresh, *appended.replaced)
    dirty |= _dirtied_by_sessions(settlement, touched, new_controls)
    for record in new_controls:
        if isinstance(record, Policy):
            dirty |= settlement.started_since(record.effective_from)
    postings = _decide(settlement, dirty)
    return Report(
        observations=len(appended.fresh),
        duplicates=appended.duplicates,
        conflicts=appended.conflicts,
        events=len(dirty),
        postings=postings,
    )


def _rejoin(settlement: Settlement, appended: Appended, gateways: tuple[str, ...]) -> set[str]:
    """Join what the fresh observations touch; returns the events to decide again."""
    if not appended.fresh:
        return set()
    component = settlement.component(appended.fresh, appended.replaced, gateways)
    identified = identify(component, gateways)
    events = {event_id: merge(event_id, spoken) for event_id, spoken in identified.events.items()}
    before = settlement.settled(_possible_ids((*component, *appended.replaced)))
    removed = before.keys() - events.keys()
    renamed: set[str] = set()
    changed: list[Settled] = []
    for event_id in events.keys() | before.keys():
        stood = before.get(event_id)
        old = stood.event if stood is not None else None
        new = events.get(event_id)
        if new is not None and new != old:
            changed.append(
                Settled(event=new)
                if stood is None
                else Settled(event=new, decision=stood.decision, posted=stood.posted)
            )
        renamed |= _news(old, new)
    _withdraw([before[event_id] for event_id in sorted(removed)], settlement)
    placed = {each.event.id for each in changed}
    settlement.place(changed, [before[each] for each in before if each in placed | removed])
    problems: dict[str, list[tuple[str, str]]] = {seen.oid or "": [] for seen in component}
    for oid in identified.unmatched:
        problems[oid].append(("unmatched", ""))
    for oid in identified.downstream:
        problems[oid].append(("unmatched_downstream", ""))
    for oid, event_id in identified.refused:
        problems[oid].append(("identity_conflict", event_id))
    settlement.list_problems(problems)
    return placed | _descendants(settlement, renamed)


def _possible_ids(component: Iterable[Observation]) -> set[str]:
    """Every id an event of this component has now or had before."""
    ids: set[str] = set()
    for seen in component:
        if seen.attempt_id is not None:
            ids.add(seen.attempt_id)
        ids.update(seen.operation_ids)
        if seen.oid is not None:
            ids.add(seen.oid)
    return ids


def _news(old: Event | None, new: Event | None) -> set[str]:
    """The names under which others would now read something else of an event."""
    old_names = set(old.names) if old is not None else set[str]()
    new_names = set(new.names) if new is not None else set[str]()
    if old is not None and new is not None and node_of(old) == node_of(new):
        return old_names ^ new_names
    return old_names | new_names


def node_of(event: Event) -> Node:
    """What an event tells its descendants."""
    facts = event.facts
    return Node(facts.tenant, facts.session, facts.parent, facts.kind)


def _withdraw(gone: Collection[Settled], settlement: Settlement) -> None:
    """Take back what was posted for events that turned out to be evidence on others."""
    settlement.post(
        [
            Posting(each.event.id, line, _period(each.event, line), _minus(amount), -1)
            for each in gone
            for line, amount in each.posted
        ]
    )


def _minus(amount: Amount) -> Amount:
    return Amount(-amount.cost, -amount.charge)


def _descendants(settlement: Settlement, names: set[str]) -> set[str]:
    """Every event below one of these names."""
    found: set[str] = set()
    frontier = names
    while frontier:
        children = settlement.children(frontier) - found
        found |= children
        frontier = set[str]()
        for child in settlement.settled(children).values():
            frontier.update(child.event.names)
    return found


def _dirtied_by_sessions(
    settlement: Settlement, touched: Iterable[Observation], controls: Iterable[Control]
) -> set[str]:
    """The readers of the directory rows that authenticated evidence or an operator touched."""
    sessions = {record.session for record in controls if isinstance(record, SessionOwner)}
    sessions |= {seen.session for seen in touched if seen.session and authenticates_session(seen)}
    if not sessions:
        return set()
    members = settlement.in_sessions(sessions)
    names: set[str] = set()
    for member in settlement.settled(members).values():
        names.update(member.event.names)
    return members | _descendants(settlement, names)


def authenticates_session(seen: Observation) -> bool:
    """Whether this observation is evidence of whose its session is."""
    return (
        seen.session is not None
        and seen.session_origin != "caller"
        and seen.tenant is not None
        and seen.tenant_source in AUTHENTICATED
    )


def _decide(settlement: Settlement, dirty: set[str]) -> int:
    """Decide every dirty event and post the differences; returns how many were posted."""
    if not dirty:
        return 0
    policies = Policies(settlement)
    events = settlement.settled(dirty)
    lineages = _lineages(settlement, events)
    postings: list[Posting] = []
    saved: list[Settled] = []
    for event_id in sorted(events):
        before = events[event_id]
        event = before.event
        decision = None
        if not event.is_open:
            rules, prices = policies.at(event)
            decision = decide(event, lineages[event_id], rules, prices)
        target = _target(event, decision)
        postings += _difference(event, dict(before.posted), target)
        after = Settled(event=event, decision=decision, posted=tuple(sorted_lines(target)))
        if after != before:
            saved.append(after)
    settlement.save(saved)
    settlement.post(postings)
    return len(postings)


def _lineages(settlement: Settlement, events: dict[str, Settled]) -> dict[str, Lineage]:
    """The lineage of each event, its ancestors looked up level by level."""
    nodes = {event_id: node_of(each.event) for event_id, each in events.items()}
    resolved: dict[str, str] = {}
    frontier = nodes
    while frontier:
        references = {node.parent for node in frontier.values() if node.parent is not None}
        found = settlement.resolve(references - resolved.keys())
        resolved.update(found)
        frontier = settlement.nodes(set(found.values()) - nodes.keys())
        nodes.update(frontier)
    sessions = {node.session for node in nodes.values() if node.session is not None}
    owners = settlement.session_owners(sessions) if sessions else {}
    return {event_id: lineage_of(event_id, nodes, resolved, owners) for event_id in events}


def _target(event: Event, decision: Decision | None) -> dict[Line, Amount]:
    """What should stand in the books for an event: nothing while open or unknown."""
    if decision is None or decision.cost is None or not decision.is_money:
        return {}
    period, day = _effective(event, decision)
    model = event.facts.executed_model or event.facts.requested_model or ""
    return {
        Line(share.owner, share.bucket, share.pool, period, day, model): Amount(
            share.cost, share.charge
        )
        for share in decision.shares
    }


def _effective(event: Event, decision: Decision) -> tuple[str, str]:
    """(period, day) an event belongs to: its start's, for a batch its completion's; UTC."""
    facts = event.facts
    at = event.at_ns
    if decision.cause == "batch":
        at = facts.ended_at or at
    if at is None:
        return facts.effective_period or facts.period or NO_PERIOD, ""
    day = datetime.fromtimestamp(at // 10**9, UTC).date().isoformat()
    return facts.effective_period or day[:7], day


def _period(event: Event, line: Line) -> str:
    """The period an entry is posted in: the effective one, unless an import says otherwise."""
    return event.facts.period or line.effective_period


def _difference(
    event: Event, posted: dict[Line, Amount], target: dict[Line, Amount]
) -> list[Posting]:
    """Target - posted, line by line; a line that comes or goes is an entry even at zero."""
    entries: list[Posting] = []
    nothing = Amount(0, 0)
    for line in sorted(posted.keys() | target.keys(), key=_line_order):
        was, now = posted.get(line), target.get(line)
        if was == now:
            continue
        old, new = was or nothing, now or nothing
        change = Amount(new.cost - old.cost, new.charge - old.charge)
        stands = (now is not None) - (was is not None)
        entries.append(Posting(event.id, line, _period(event, line), change, stands))
    return entries


def sorted_lines(target: dict[Line, Amount]) -> list[tuple[Line, Amount]]:
    """The lines of an event in one order."""
    return sorted(target.items(), key=lambda item: _line_order(item[0]))


def _line_order(line: Line) -> tuple[str, ...]:
    return (line.owner, line.bucket, line.pool or "", line.effective_period, line.day, line.model)
