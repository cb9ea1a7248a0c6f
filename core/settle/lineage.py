"""Ancestors: nearest first, over links of ours or signed ones; in a cycle the least id drops its.

Pure over the two look-ups it is given: reference -> event id, event id -> `Node`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from costspan.core.decide import Lineage
from costspan.core.settle.entries import Node

_STEPS: Mapping[str | None, Literal["tool", "retrieval"]] = {
    "tool": "tool",
    "retrieval": "retrieval",
}
"""The kinds of event that say what a call below them is for."""

ANCESTORS_MAX = 1000
"""No further up is looked: a job that starts itself again for ever has no first ancestor."""


def ancestors(event_id: str, nodes: Mapping[str, Node], resolved: Mapping[str, str]) -> list[str]:
    """The chain of ancestors of an event, nearest first, without itself."""
    chain = [event_id]
    position = {event_id: 0}
    for parent in _links(event_id, nodes, resolved):
        if parent in position:
            cycle = chain[position[parent] :]
            cut = chain.index(min(cycle))
            # The least of the cycle has no parent. An event before the cycle, or in it, sees the
            # ancestors up to that one.
            return chain[1 : cut + 1]
        position[parent] = len(chain)
        chain.append(parent)
    return chain[1:]


def _links(event_id: str, nodes: Mapping[str, Node], resolved: Mapping[str, str]) -> Iterator[str]:
    for _ in range(ANCESTORS_MAX):
        node = nodes.get(event_id)
        if node is None or node.parent is None:
            return
        parent = resolved.get(node.parent)
        if parent is None:
            return
        yield parent
        event_id = parent


def lineage_of(
    event_id: str,
    nodes: Mapping[str, Node],
    resolved: Mapping[str, str],
    session_owners: Mapping[str, str],
) -> Lineage:
    """The tenant that O5 finds: the nearest ancestor's, else the session's; and what was walked."""
    chain = ancestors(event_id, nodes, resolved)
    own = nodes[event_id]
    step: Literal["tool", "retrieval"] | None = None
    tenant = via = None
    session = own.session
    for ancestor in chain:
        node = nodes[ancestor]
        step = step or _STEPS.get(node.kind)
        if tenant is None and node.tenant is not None:
            tenant, via = node.tenant, ancestor
        if session is None:
            session = node.session
    if tenant is None and session is not None:
        tenant = session_owners.get(session)
        via = f"session {session}" if tenant is not None else None
    return Lineage(tenant, via, step)
