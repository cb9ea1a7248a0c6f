"""The settlement of one batch of records: append, join, find what is dirty, decide, post.

An event's decision reads its own facts, its ancestors, its session's directory row, the assignment
that names it, and the policy in force. So a change dirties: the events of its own identity
component; the descendants of an event whose tenant, session, parent, kind or names changed, misses
included (a child is found by the name it looks for, whether anybody carries it yet or not); the
events of a session whose owner changed, and theirs; and, for a new policy, the events it decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from costspan.core.join import Event, identify, merge
from costspan.core.join.identity import AUTHENTICATED, Identified
from costspan.core.journal.records import (
    Control,
    FreePostings,
    Policy,
    Restatement,
    SessionOwner,
)
from costspan.core.schema import Observation
from costspan.core.settle.archived import correct_archived, set_aside
from costspan.core.settle.component import Component, component
from costspan.core.settle.corrections import (
    assign,
    corrected_names,
    entries_of_free,
    led_to,
    names_of,
)
from costspan.core.settle.decisions import decisions_of
from costspan.core.settle.draft import Draft, node_of
from costspan.core.settle.entries import Posting, Settled
from costspan.core.settle.keys import keys_of_event, waiting_keys_of
from costspan.core.settle.policy import Policies
from costspan.core.settle.posting import (
    entries_of,
    said_period,
    target_of,
    withdrawal_of,
)
from costspan.core.settle.settlement import Settlement

EVENTS_PER_DECISION = 5000
"""So many dirty events are held at once: a new policy may dirty every event there is."""


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
    progress: Callable[[int], None] | None = None,
    *,
    again: Collection[Observation] = (),
) -> Report:
    """Settle a batch. Nothing is written outside the settlement's transaction.

    `again` are observations that are kept already, and could not be joined until now; `progress` is
    told how many events were decided so far, where there are many.
    """
    controls = list(controls)
    sessions = {record.session for record in controls if isinstance(record, SessionOwner)}
    sessions.update([seen.session for seen in observations if seen.session and authenticates(seen)])
    owners = settlement.session_owners(sessions)
    new_controls = settlement.append_control(controls)
    appended = settlement.append(observations)
    unsaid = {seen.session for seen in appended.replaced if seen.session and authenticates(seen)}
    draft = Draft(settlement)
    closed_until = settlement.closed_until()
    corrected = corrected_names(new_controls)
    lost = [*appended.replaced, *led_to(settlement, corrected)]
    settlement.stop_waiting(
        [(key, seen.oid or "") for seen in appended.replaced for key in waiting_keys_of(seen)]
    )
    seeds = set_aside(settlement, [*appended.fresh, *again], gateways)
    joined = component(settlement, seeds, lost, gateways)
    won = {seen.oid or "" for seen in appended.replaced}
    dirty, entries = _rejoin(draft, joined, won, gateways, closed_until)
    dirty |= _dirtied_by_sessions(draft, sessions, owners, unsaid)
    dirty |= {
        id for id, each in draft.get(joined.events).items() if names_of(each.event) & corrected
    }
    if joined.archived:
        again_decided, renamed = correct_archived(draft, joined.archived, corrected)
        dirty |= again_decided | _descendants(draft, renamed)
    for record in new_controls:
        if isinstance(record, Policy):
            dirty |= settlement.started_since(_decides_since(record, settlement))
        elif isinstance(record, Restatement) and record.period is not None:
            dirty |= settlement.in_period(record.period)
    free = [record for record in new_controls if isinstance(record, FreePostings)]
    entries += entries_of_free(settlement, free, closed_until)
    postings = _decide(draft, dirty, entries, closed_until, progress)
    return Report(
        observations=len(appended.fresh),
        duplicates=appended.duplicates,
        conflicts=appended.conflicts,
        events=len(dirty),
        postings=postings,
    )


def _decides_since(policy: Policy, settlement: Settlement) -> int:
    """From when on events are decided by a policy (ns UTC): the first holds for all before it."""
    is_first = settlement.policies()[0] == policy
    return -(2**63) if is_first else policy.effective_from


def _rejoin(
    draft: Draft,
    joined: Component,
    won: set[str],
    gateways: tuple[str, ...],
    closed_until: str | None,
) -> tuple[set[str], list[Posting]]:
    """Join the component anew: (the events to decide again, entries that take events back).

    `won` are the oids under which another payload speaks now than did before.
    """
    if not joined.observations and not joined.events:
        return set(), []
    settlement = draft.settlement
    before = joined.events
    draft.read(before)
    identified = identify(joined.observations, gateways)
    spoken = {
        event_id: said
        for event_id, said in identified.events.items()
        if event_id not in joined.archived
    }
    events = {event_id: merge(event_id, said) for event_id, said in spoken.items()}
    if settlement.has_assignments():
        assign(settlement, events)
    copied = settlement.copied(events.keys() - before.keys())
    placed: set[str] = set()
    renamed: set[str] = set()
    for event_id, new in events.items():
        stood = before.get(event_id)
        if stood is None:
            changed = Settled(event=new, posted=copied.get(event_id, ()))
            keys = keys_of_event(new, spoken[event_id], gateways)
            renamed.update(new.names)
        elif stood.event != new:
            changed = Settled(event=new, decision=stood.decision, posted=stood.posted)
            keys = keys_of_event(new, spoken[event_id], gateways, stood.event, won)
            renamed.update(_news(stood.event, new))
        else:
            continue
        draft.put(changed, keys)
        placed.add(event_id)
    entries: list[Posting] = []
    for event_id in sorted(before.keys() - events.keys()):
        gone = before[event_id]
        entries += withdrawal_of(event_id, gone.posted, said_period(gone.event), closed_until)
        draft.remove(event_id)
        renamed.update(gone.event.names)
    _list_problems(settlement, joined, identified)
    return placed | _descendants(draft, renamed), entries


def _news(old: Event, new: Event) -> Iterable[str]:
    """The names under which others would now read something else of an event."""
    if node_of(old) != node_of(new):
        return {*old.names, *new.names}
    if old.operation_names == new.operation_names and old.span_names == new.span_names:
        return set(new.oid_names).symmetric_difference(old.oid_names)
    return set(new.names).symmetric_difference(old.names)


def _list_problems(settlement: Settlement, joined: Component, identified: Identified) -> None:
    """List what posts nothing and why; what speaks of no event waits to be found."""
    events = identified.events
    spoken_of = {seen.oid for spoken in events.values() for seen, _ in spoken}
    wait: list[tuple[str, str]] = []
    stop: list[tuple[str, str]] = []
    for seen in joined.observations:
        oid, attempt = seen.oid or "", seen.attempt_id
        if oid not in spoken_of or (attempt is not None and attempt not in events):
            # Also a gateway's client that met its attempt: more may be said of the client's own.
            wait += [(key, oid) for key in waiting_keys_of(seen)]
        elif oid in joined.waited:
            stop += [(key, oid) for key in waiting_keys_of(seen)]
    problems: dict[str, list[tuple[str, str]]] = {
        seen.oid or "": [] for seen in joined.observations
    }
    for oid in identified.unmatched:
        problems[oid].append(("unmatched", ""))
    for oid in identified.downstream:
        problems[oid].append(("unmatched_downstream", ""))
    for oid, event_id in identified.refused:
        problems[oid].append(("identity_conflict", event_id))
    for event_id in joined.archived.keys() & events.keys():
        for seen, _ in events[event_id]:  # what an archived event is merged from is not here
            problems[seen.oid or ""].append(("archived", event_id))
    settlement.wait(wait)
    settlement.stop_waiting(stop)
    settlement.list_problems(problems)


def _descendants(draft: Draft, names: set[str]) -> set[str]:
    """Every event below one of these names."""
    found: set[str] = set()
    frontier = names
    while frontier:
        children = draft.settlement.children(frontier) - found
        found |= children
        frontier = set[str]()
        for child in draft.get(children).values():
            frontier.update(child.event.names)
    return found


def _dirtied_by_sessions(
    draft: Draft, sessions: Collection[str], before: Mapping[str, str], unsaid: set[str]
) -> set[str]:
    """The readers of the directory rows that say another owner than before, or may do so."""
    now = draft.settlement.session_owners(sessions)
    changed = unsaid.union([each for each in sessions if now.get(each) != before.get(each)])
    if not changed:
        return set()
    members = draft.settlement.in_sessions(changed)
    names: set[str] = set()
    for member in draft.get(members).values():
        names.update(member.event.names)
    return members | _descendants(draft, names)


def authenticates(seen: Observation) -> bool:
    """Whether this observation is evidence of whose its session is."""
    return (
        seen.session is not None
        and seen.session_origin != "caller"
        and seen.tenant is not None
        and seen.tenant_source in AUTHENTICATED
    )


def _decide(
    draft: Draft,
    dirty: set[str],
    entries: list[Posting],
    closed_until: str | None,
    progress: Callable[[int], None] | None,
) -> int:
    """Decide every dirty event, write all of them, and post the differences; how many entries."""
    policies = Policies(draft.settlement)
    ordered = sorted(dirty)
    posted = 0
    for at in range(0, max(1, len(ordered)), EVENTS_PER_DECISION):
        events = {
            event_id: each
            for event_id, each in draft.get(ordered[at : at + EVENTS_PER_DECISION]).items()
            if not each.event.is_open or each.decision is not None or each.posted
        }
        decisions = decisions_of(draft, policies, events)
        for event_id, before in events.items():
            event, decision = before.event, decisions[event_id]
            target = target_of(event, decision)
            entries += entries_of(event, before.posted, target, closed_until)
            draft.put(Settled(event=event, decision=decision, posted=target))
        posted += len(entries)
        draft.write()
        draft.settlement.post(entries)
        entries = []
        if progress is not None:
            progress(min(len(ordered), at + EVENTS_PER_DECISION))
    return posted


def withdraw_copied(settlement: Settlement) -> int:
    """After a rebuild: take back what copied postings left for events that are none any more."""
    closed_until = settlement.closed_until()
    entries: list[Posting] = []
    copied = settlement.copied()
    for event_id, posted in copied.items():
        entries += withdrawal_of(event_id, posted, None, closed_until)
    settlement.post(entries)
    settlement.forget(copied)
    return len(entries)
