"""Which observations speak of which event. Two-level, never transitive (DESIGN.md section 2).

Only `attempt_id` makes several observations one event. Operation ids are shared by retries and
fallbacks: what names an operation but no attempt is evidence on the attempts that name it too.
Response ids repeat and are invented: they attach an observation only where exactly one event
carries them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

from costspan.core.join.gateways import is_downstream
from costspan.core.join.precedence import SWEEP, closes, is_sweep, outcome_of
from costspan.core.join.reach import Identified, Reach, Spoken
from costspan.core.join.tenants import AUTHENTICATED, refuse_second_tenants
from costspan.core.schema import Observation, oid_of

__all__ = [
    "AUTHENTICATED",
    "Identified",
    "Reach",
    "Spoken",
    "carried",
    "goes_by_response",
    "identify",
    "own_part",
]

_OWN = "\0"
"""Before a response id's own part, where whole ids and own parts are looked up in one place."""


def identify(observations: Iterable[Observation], gateways: Sequence[str] = ()) -> Identified:
    """Sort observations (no two of one oid) into events. The order they come in is irrelevant."""
    events: dict[str, list[Spoken]] = {}
    clients: dict[str, list[Observation]] = defaultdict(list)
    loose: list[Observation] = []
    sweeps: list[Observation] = []
    own = Reach.OWN
    for seen in observations:
        if seen.source == SWEEP and is_sweep(seen):
            sweeps.append(seen)
        elif (attempt_id := seen.attempt_id) is None:
            loose.append(seen)
        elif (gateways or seen.flags) and is_downstream(seen, gateways):
            clients[attempt_id].append(seen)
        elif (spoken := events.get(attempt_id)) is None:
            events[attempt_id] = [Spoken(seen, own)]
        else:
            spoken.append(Spoken(seen, own))
    result = Identified(events, [], [], [])
    if clients or loose or sweeps:
        _attach(clients, loose, sweeps, result, gateways)
    else:
        refuse_second_tenants(events, result)
    return result


def _attach(
    clients: dict[str, list[Observation]],
    loose: list[Observation],
    sweeps: list[Observation],
    result: Identified,
    gateways: Sequence[str],
) -> None:
    """Place what is not an attempt's own beside the attempts, or in events of its own."""
    events = result.events
    for attempt_id in clients.keys() & events.keys():
        theirs = [each.observation for each in events[attempt_id]]
        if not any(seen.phase == "start" or closes(seen) for seen in theirs):
            # A verdict on the client's attempt does not say where that is metered.
            clients[attempt_id] += theirs
            del events[attempt_id]
    loose = _take_clients(loose, clients, gateways)
    attempts_of: dict[str, set[str]] = defaultdict(set)
    for attempt_id, spoken in events.items():
        for seen, _ in spoken:
            for operation in seen.operation_ids:
                attempts_of[operation].add(attempt_id)
    awaiting = _attach_clients(clients, loose, attempts_of, result)
    unplaced = _attach_by_operation(loose, attempts_of, events)
    unplaced = _await_gateway(unplaced, awaiting, result)
    unplaced = _events_of_operations(unplaced, events, gateways)
    refuse_second_tenants(list(events), result)
    _place_by_response(unplaced, result, gateways)
    _attach_sweeps(sweeps, attempts_of, events)


def goes_by_response(seen: Observation, gateways: Sequence[str]) -> bool:
    """Whether the response id may say which event this observation speaks of."""
    names_neither = seen.attempt_id is None and not seen.operation_ids
    return names_neither or is_downstream(seen, gateways)


def own_part(response_id: str) -> str:
    """The provider's own id in a response id: its last part.

    The parts before it say where the response came from. A gateway's client names the gateway
    there, the gateway its provider; the id itself is passed on.
    """
    return response_id.rpartition("/")[2]


def _take_clients(
    loose: list[Observation], clients: dict[str, list[Observation]], gateways: Sequence[str]
) -> list[Observation]:
    """Move client calls known by an operation alone to `clients`, whole; return what is left.

    A framework names its run, and no attempt. Its START knows no response id yet: what says where
    the call went, and what came back, may stand in different observations of one run.
    """
    leader = _least_operations(loose)
    theirs = {
        leader[seen.operation_ids[0]]
        for seen in loose
        if seen.operation_ids and is_downstream(seen, gateways)
    }
    rest: list[Observation] = []
    for seen in loose:
        least = leader[seen.operation_ids[0]] if seen.operation_ids else None
        if least in theirs:
            clients[f"{_OWN}{least}"].append(seen)  # beside attempt ids, and none of them
        else:
            rest.append(seen)
    return rest


def _attach_clients(
    clients: dict[str, list[Observation]],
    loose: list[Observation],
    attempts_of: dict[str, set[str]],
    result: Identified,
) -> set[str]:
    """Give each client attempt, whole, to the attempt of the gateway that metered it.

    The two meet by the attempt id, which our signed carrier took there, by an operation both name
    (then it is loose evidence like any other), or by a response id that one attempt carries. The
    client's operations then lead to that attempt. Returns the operations of those that meet none:
    what names them waits with them.
    """
    if not clients:
        return set()
    carriers: dict[str, set[str]] = defaultdict(set)
    for event_id, spoken in result.events.items():
        for response_id in carried(spoken):
            carriers[own_part(response_id)].add(event_id)
    metered = frozenset(attempts_of)  # before any client leads there: the order must not matter
    awaiting: set[str] = set()
    for attempt_id, seen_there in clients.items():
        operations = {operation for seen in seen_there for operation in seen.operation_ids}
        responses = {own_part(each.response_id) for each in seen_there if each.response_id}
        met = {attempt_id} & result.events.keys()
        if not met and operations & metered:
            loose.extend(seen_there)
            continue
        met = met or {event_id for each in responses for event_id in carriers.get(each, ())}
        if len(met) == 1:
            (event_id,) = met
            result.events[event_id] += [Spoken(seen, Reach.FULL) for seen in seen_there]
            for operation in operations:
                attempts_of[operation].add(event_id)
            continue
        listed = result.unmatched if met else result.downstream
        listed += [oid_of(seen) for seen in seen_there]
        awaiting |= operations
    return awaiting - attempts_of.keys()


def _await_gateway(
    loose: list[Observation], awaiting: set[str], result: Identified
) -> list[Observation]:
    """List what names an operation whose attempt was metered at a gateway not heard of yet."""
    rest: list[Observation] = []
    for seen in loose:
        if awaiting.intersection(seen.operation_ids):
            result.downstream.append(oid_of(seen))
        else:
            rest.append(seen)
    return rest


def _attach_by_operation(
    loose: list[Observation],
    attempts_of: dict[str, set[str]],
    events: dict[str, list[Spoken]],
) -> list[Observation]:
    """Give each loose observation to the attempts that name its operations; return the rest."""
    rest: list[Observation] = []
    reaching: list[tuple[Observation, set[str]]] = []
    for seen in loose:
        targets: set[str] = set()
        targets.update(*(attempts_of.get(operation, ()) for operation in seen.operation_ids))
        if targets:
            reaching.append((seen, targets))
        else:
            rest.append(seen)
    # By what the attempts said themselves, so before any of this is given to them.
    among_several = {target for _, targets in reaching if len(targets) > 1 for target in targets}
    is_ok = {
        target
        for target in among_several
        if outcome_of([each.observation for each in events[target]]) == "ok"
    }
    for seen, targets in reaching:
        candidates = targets if len(targets) == 1 else targets & is_ok
        sole = next(iter(candidates)) if len(candidates) == 1 else None
        for target in targets:
            events[target].append(Spoken(seen, Reach.FULL if target == sole else Reach.SHARED))
    return rest


def _events_of_operations(
    loose: list[Observation], events: dict[str, list[Spoken]], gateways: Sequence[str]
) -> list[Observation]:
    """Observations that share an operation, directly or through one another, are one event."""
    naming: list[Observation] = []
    rest: list[Observation] = []
    for seen in loose:
        if not seen.operation_ids or is_downstream(seen, gateways):
            rest.append(seen)
            continue
        naming.append(seen)
    leader = _least_operations(naming)
    for seen in naming:
        event_id = leader[seen.operation_ids[0]]
        events.setdefault(event_id, []).append(Spoken(seen, Reach.OWN))
    return rest


def _least_operations(observations: Iterable[Observation]) -> dict[str, str]:
    """Operation -> the least of those it shares an observation with, directly or through others.

    The least leads, so that the id of an event does not depend on the order.
    """
    leader: dict[str, str] = {}

    def find(operation: str) -> str:
        root = operation
        while leader.setdefault(root, root) != root:
            root = leader[root]
        while leader[operation] != root:
            leader[operation], operation = root, leader[operation]
        return root

    for seen in observations:
        for operation in seen.operation_ids:
            first, other = sorted((find(seen.operation_ids[0]), find(operation)))
            leader[other] = first
    return {operation: find(operation) for operation in leader}


def _attach_sweeps(
    sweeps: Collection[Observation],
    attempts_of: dict[str, set[str]],
    events: dict[str, list[Spoken]],
) -> None:
    """Give each sweep to the very event it was made for; it makes none, and joins none.

    An operation that was swept may turn out to be evidence on attempts: each of those has an end,
    or a sweep, of its own.
    """
    if not sweeps:
        return
    event_of: dict[str, str] = {
        operation: event_id
        for event_id, spoken in events.items()
        for seen, reach in spoken
        if reach == Reach.OWN and seen.attempt_id is None
        for operation in seen.operation_ids
    }
    for seen in sweeps:
        reached: dict[str, Reach] = {}
        if seen.attempt_id is not None:
            reached[seen.attempt_id] = Reach.OWN
        else:
            for operation in seen.operation_ids:
                reached.update(dict.fromkeys(attempts_of.get(operation, ()), Reach.SHARED))
                reached[event_of.get(operation, "")] = Reach.OWN
        for event_id in reached.keys() & events.keys():
            events[event_id].append(Spoken(seen, reached[event_id]))


def _place_by_response(
    unplaced: list[Observation], result: Identified, gateways: Sequence[str]
) -> None:
    """What names neither attempt nor operation: by response id, else an event of its own."""
    carriers: dict[str, set[str]] = defaultdict(set)
    if any(seen.response_id is not None for seen in unplaced):
        for event_id, spoken in result.events.items():
            for response_id in carried(spoken):
                carriers[response_id].add(event_id)
                carriers[_OWN + own_part(response_id)].add(event_id)
    alone: dict[str, list[Observation]] = defaultdict(list)
    attached: set[str] = set()
    for seen in unplaced:
        named = seen.response_id or ""
        if named and is_downstream(seen, gateways):
            named = _OWN + own_part(named)
        found = carriers.get(named, set())
        if len(found) == 1:
            (event_id,) = found
            result.events[event_id].append(Spoken(seen, Reach.FULL))
            attached.add(event_id)
        elif len(found) > 1:
            result.unmatched.append(oid_of(seen))
        elif is_downstream(seen, gateways):
            result.downstream.append(oid_of(seen))
        else:
            alone[seen.response_id or f"\0{oid_of(seen)}"].append(seen)
    for together in alone.values():
        event_id = min(oid_of(seen) for seen in together)
        if event_id in result.events:  # an attempt bears this name: neither replaces the other
            result.refused.extend((oid_of(seen), event_id) for seen in together)
            continue
        result.events[event_id] = [Spoken(seen, Reach.OWN) for seen in together]
        attached.add(event_id)
    refuse_second_tenants(attached, result)


def carried(spoken: Collection[Spoken]) -> set[str]:
    """The response ids an event carries: those of observations that may speak of its result."""
    return {
        seen.response_id
        for seen, reach in spoken
        if seen.response_id is not None and reach != Reach.SHARED
    }
