"""An event never holds two authenticated tenants: the less trusted attachment is refused."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from costspan.core.join.precedence import TRUST, sort_key
from costspan.core.join.reach import Identified, Reach, Spoken
from costspan.core.schema import Observation, oid_of

AUTHENTICATED = frozenset({"assignment", "principal", "signed"})
"""The tenant sources that are somebody's proof, not somebody's word."""


def refuse_second_tenants(event_ids: Iterable[str], result: Identified) -> None:
    """See that none of these events holds two authenticated tenants; list what was refused."""
    for event_id in event_ids:
        tenants = {
            seen.tenant
            for seen, _ in result.events[event_id]
            if seen.tenant_source in AUTHENTICATED and seen.tenant is not None
        }
        if len(tenants) > 1:
            _refuse(event_id, result)


def _refuse(event_id: str, result: Identified) -> None:
    """Refuse the less trusted attachment.

    Among equally trusted ones the event's own observations stay before attachments, then the one
    nearest the user. An own observation loses its claim on the tenant only: it is still the
    instrument that saw the call, and its usage is not to be lost.
    """
    spoken = result.events[event_id]
    claiming = [
        each
        for each in spoken
        if each.observation.tenant is not None and each.observation.tenant_source in AUTHENTICATED
    ]
    first = min(
        claiming,
        key=lambda each: (
            TRUST[each.observation.tenant_source],
            each.reach != Reach.OWN,
            sort_key(each.observation, nearest="user"),
        ),
    )
    kept: list[Spoken] = []
    for each in spoken:
        if each in claiming and each.observation.tenant != first.observation.tenant:
            result.refused.append((oid_of(each.observation), event_id))
            if each.reach == Reach.OWN:
                kept.append(each._replace(observation=_without_tenant(each.observation)))
        else:
            kept.append(each)
    result.events[event_id] = kept


def _without_tenant(seen: Observation) -> Observation:
    return msgspec.structs.replace(seen, tenant=None, tenant_source=None)
