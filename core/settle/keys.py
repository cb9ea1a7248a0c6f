"""The keys that observations and events are found by, beside their ids.

`o:` an operation, `r:` the provider's own part of a response id; `O:` and `R:` the same of an
observation that finds its events by it; `s:` a span, `a:` an attempt nobody has metered yet. A key
leads to everything that identity could join, so stale and shared ones only cost a look. Attempts
that share an operation or a response are no matter of each other: they look for `O:` and `R:` only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from costspan.core.join import Event
from costspan.core.join.gateways import is_downstream
from costspan.core.join.identity import Spoken, goes_by_response, own_part
from costspan.core.schema import Observation

OPERATION, RESPONSE, SPAN, ATTEMPT = "o:", "r:", "s:", "a:"
BY_OPERATION, BY_RESPONSE = "O:", "R:"


def goes_by_operation(seen: Observation, gateways: Sequence[str]) -> bool:
    """Whether the operation may say which event this observation speaks of."""
    return seen.attempt_id is None or is_downstream(seen, gateways)


def keys_of(seen: Observation, gateways: Sequence[str]) -> list[str]:
    """What an observation is found by."""
    keys = [OPERATION + operation for operation in seen.operation_ids]
    if goes_by_operation(seen, gateways):
        keys += [BY_OPERATION + operation for operation in seen.operation_ids]
    if seen.response_id is not None:
        own = own_part(seen.response_id)
        keys.append(RESPONSE + own)
        if goes_by_response(seen, gateways):
            keys.append(BY_RESPONSE + own)
    return keys


def leads_of(seen: Observation, gateways: Sequence[str], is_wide: bool) -> list[str]:
    """What leads from an observation to others that it could be joined with.

    `is_wide`: gateways' clients are about, so that an attempt may have to go where evidence goes.
    """
    found_by = OPERATION if is_wide or goes_by_operation(seen, gateways) else BY_OPERATION
    keys = [found_by + operation for operation in seen.operation_ids]
    if seen.response_id is not None:
        found_by = RESPONSE if is_wide or goes_by_response(seen, gateways) else BY_RESPONSE
        keys.append(found_by + own_part(seen.response_id))
    return keys


def waiting_keys_of(seen: Observation) -> list[str]:
    """What an observation that speaks of no event is found by: by whatever may lead there."""
    keys = [kind + name for name in seen.operation_ids for kind in (OPERATION, BY_OPERATION)]
    if seen.response_id is not None:
        own = own_part(seen.response_id)
        keys += [RESPONSE + own, BY_RESPONSE + own]
    if seen.attempt_id is not None:
        keys.append(ATTEMPT + seen.attempt_id)
    return keys


def keys_of_event(
    event: Event,
    spoken: Iterable[Spoken],
    gateways: Sequence[str],
    known: Event | None = None,
    won: Collection[str] = (),
) -> Collection[str]:
    """What an event is found by, but for what it is found by since it was `known`.

    `won` are oids under which another payload spoke then.
    """
    if known is None:
        keys: list[str] = []
        for seen, _ in spoken:
            keys += keys_of(seen, gateways)
        return [*keys, *(SPAN + name for name in event.span_names)]
    heard = known.oid_names
    fresh: set[str] = set()
    for seen, _ in spoken:
        if seen.oid not in heard or seen.oid in won:
            fresh.update(keys_of(seen, gateways))
    fresh.difference_update([OPERATION + name for name in known.operation_names])
    if known.span_names != event.span_names:
        fresh.update([SPAN + name for name in event.span_names])
    return fresh
