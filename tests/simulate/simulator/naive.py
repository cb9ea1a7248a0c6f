"""The naive settlement of the settlement's own tests, and an operator's assignments above it.

Everything at once, from plain dictionaries; it shares identity, merging and the decision of one
event with the product, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import oracle

from costspan.core.decide import Decision, decide
from costspan.core.join import Event, identify, merge
from costspan.core.journal.records import Assignment, SessionOwner
from costspan.core.prices import PriceBook, Prices
from costspan.core.schema import Observation

_prices: dict[tuple[str, ...], Prices] = {}


def settle_all(
    observations: Iterable[Observation],
    policies: Sequence[oracle.Rule],
    directory: Sequence[SessionOwner],
    assignments: Sequence[Assignment],
) -> oracle.Settlement:
    """The books of these records, whatever their order."""
    kept, conflicts = oracle.deduplicate(observations)
    identified = identify(kept)
    events = {
        event_id: assigned(merge(event_id, spoken), assignments)
        for event_id, spoken in identified.events.items()
    }
    parents = oracle.parent_of_each(events)
    owners = oracle.session_owners(kept, directory)
    decisions: dict[str, Decision | None] = {}
    for event_id, event in events.items():
        decisions[event_id] = None
        if not event.is_open:
            policy = oracle.in_force(policies, event)
            lineage = oracle.lineage_of(event_id, events, parents, owners)
            decisions[event_id] = decide(event, lineage, policy.rules, prices_of(policy.books))
    problems = {("conflict", oid, "") for oid in conflicts}
    problems |= {("unmatched", oid, "") for oid in identified.unmatched}
    problems |= {("unmatched_downstream", oid, "") for oid in identified.downstream}
    problems |= {("identity_conflict", oid, event_id) for oid, event_id in identified.refused}
    return oracle.Settlement(events, decisions, oracle.ledger_of(decisions.values()), problems)


def assigned(event: Event, assignments: Sequence[Assignment]) -> Event:
    """The latest assignment that names the event, an operation or an observation of it, wins."""
    names = {event.id, *event.operation_names, *event.oid_names}
    naming = [each for each in assignments if each.event in names]
    if not naming:
        return event
    latest = max(naming, key=lambda each: (each.recorded_at, each.tenant, each.by, each.reason))
    facts = msgspec.structs.replace(
        event.facts, tenant=latest.tenant, tenant_source="assignment", members=None
    )
    return msgspec.structs.replace(event, facts=facts)


def prices_of(books: Sequence[PriceBook]) -> Prices:
    """The prices of some books, put in order once."""
    key = tuple(book.sha256 for book in books)
    if key not in _prices:
        _prices[key] = Prices(books)
    return _prices[key]
