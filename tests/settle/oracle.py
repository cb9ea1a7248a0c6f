"""The naive, obviously right, full settlement: what the incremental one must equal.

Everything at once, from plain dictionaries: no batches, no dirtiness, no SQL. It shares identity,
merging and the decision of one event with the product, and nothing else.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from costspan.core.decide import Decision, Lineage, RuleSet, decide
from costspan.core.join import Event, identify, merge
from costspan.core.journal.records import SessionOwner
from costspan.core.prices import PriceBook, Prices
from costspan.core.schema import Observation, canonical, oid_of


class Rule(NamedTuple):
    """A policy, spelled out: what decides events that start at `effective_from` or later."""

    effective_from: int
    rules: RuleSet
    books: tuple[PriceBook, ...]


class Settlement(NamedTuple):
    """Every event's decision (None while open), the books, and what posts nothing."""

    events: dict[str, Event]
    decisions: dict[str, Decision | None]
    ledger: dict[tuple[str, str], tuple[int, int]]
    problems: set[tuple[str, str, str]]


def settle_all(
    observations: Iterable[Observation],
    policies: Sequence[Rule],
    directory: Iterable[SessionOwner] = (),
    gateways: tuple[str, ...] = (),
) -> Settlement:
    """The books of these observations, whatever their order and however often each comes."""
    kept, conflicts = deduplicate(observations)
    identified = identify(kept, gateways)
    events = {event_id: merge(event_id, spoken) for event_id, spoken in identified.events.items()}
    parents = parent_of_each(events)
    owners = session_owners(kept, directory)
    decisions: dict[str, Decision | None] = {}
    for event_id, event in events.items():
        if event.is_open:
            decisions[event_id] = None
            continue
        policy = in_force(policies, event)
        lineage = lineage_of(event_id, events, parents, owners)
        decisions[event_id] = decide(event, lineage, policy.rules, Prices(policy.books))
    problems = {("conflict", oid, "") for oid in conflicts}
    problems |= {("unmatched", oid, "") for oid in identified.unmatched}
    problems |= {("unmatched_downstream", oid, "") for oid in identified.downstream}
    problems |= {("identity_conflict", oid, event_id) for oid, event_id in identified.refused}
    return Settlement(events, decisions, ledger_of(decisions.values()), problems)


def deduplicate(observations: Iterable[Observation]) -> tuple[list[Observation], set[str]]:
    """One observation an oid: of two payloads the one whose canonical JSON has the smaller hash."""
    payloads: dict[str, dict[str, Observation]] = defaultdict(dict)
    for seen in observations:
        named = msgspec.structs.replace(seen, oid=oid_of(seen))
        payloads[oid_of(seen)][hashlib.sha256(canonical(named)).hexdigest()] = seen
    kept = [hashes[min(hashes)] for hashes in payloads.values()]
    return kept, {oid for oid, hashes in payloads.items() if len(hashes) > 1}


def parent_of_each(events: dict[str, Event]) -> dict[str, str]:
    """Event -> parent; in every cycle the least id has lost its own."""
    parents: dict[str, str] = {}
    for event_id, event in events.items():
        found = find(event.facts.parent, events)
        if found is not None:
            parents[event_id] = found
    for event_id in sorted(parents):
        up = parents[event_id]
        cycle = [event_id]
        while up in parents and up not in cycle:
            cycle.append(up)
            up = parents[up]
        if up == event_id and event_id == min(cycle):
            del parents[event_id]
    return parents


def find(name: str | None, events: dict[str, Event]) -> str | None:
    """The event a parent reference names: by attempt id, operation id, oid, span id; the least."""
    if name is None:
        return None
    if name in events and events[name].facts.attempt_id == name:
        return name
    for names_of in ("operation_names", "oid_names", "span_names"):
        named = [event_id for event_id, each in events.items() if name in getattr(each, names_of)]
        if named:
            return min(named)
    return None


def session_owners(
    kept: Iterable[Observation], directory: Iterable[SessionOwner]
) -> dict[str, str]:
    """The operator's latest word; else authenticated evidence, if it is of one mind."""
    evidence: dict[str, set[str]] = defaultdict(set)
    for seen in kept:
        authenticated = seen.tenant_source in ("assignment", "principal", "signed")
        if seen.session and seen.session_origin != "caller" and seen.tenant and authenticated:
            evidence[seen.session].add(seen.tenant)
    owners = {session: min(said) for session, said in evidence.items() if len(said) == 1}
    for row in sorted(directory, key=lambda row: (row.recorded_at, row.tenant)):
        owners[row.session] = row.tenant
    return owners


def lineage_of(
    event_id: str, events: dict[str, Event], parents: dict[str, str], owners: dict[str, str]
) -> Lineage:
    """The nearest ancestor's tenant, else that of the nearest session on the way up."""
    chain: list[str] = []
    up = parents.get(event_id)
    while up is not None and up not in chain:
        chain.append(up)
        up = parents.get(up)
    facts = {each: events[each].facts for each in (event_id, *chain)}
    tenants = [each for each in chain if facts[each].tenant is not None]
    sessions = [facts[each].session for each in (event_id, *chain) if facts[each].session]
    tenant = via = None
    if tenants:
        tenant, via = facts[tenants[0]].tenant, tenants[0]
    elif sessions and sessions[0] in owners:
        tenant, via = owners[sessions[0]], f"session {sessions[0]}"
    kinds = [facts[each].kind for each in chain]
    step = next((kind for kind in kinds if kind == "tool" or kind == "retrieval"), None)
    return Lineage(tenant, via, step)


def in_force(policies: Sequence[Rule], event: Event) -> Rule:
    """The policy in force when the event started; the first for anything before it."""
    facts = event.facts
    at = facts.started_at or facts.ended_at or facts.recorded_at or 0
    ordered = sorted(policies, key=lambda policy: policy.effective_from)
    past = [policy for policy in ordered if policy.effective_from <= at]
    return past[-1] if past else ordered[0]


def ledger_of(decisions: Iterable[Decision | None]) -> dict[tuple[str, str], tuple[int, int]]:
    """(owner, bucket) -> (cost, charge) in pico-USD, summed over every decided share."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for decision in decisions:
        if decision is None or decision.cost is None or not decision.is_money:
            continue
        for share in decision.shares:
            cost, charge = sums.get((share.owner, share.bucket), (0, 0))
            sums[share.owner, share.bucket] = (cost + share.cost, charge + share.charge)
    return sums
