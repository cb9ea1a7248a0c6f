"""Where in its request an event stands: its root, the tools above it, its agent and step.

Ancestors are looked up batch by batch; so many paths are remembered at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from costspan.core.join import Event
from costspan.core.settle.draft import Draft
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.lineage import ANCESTORS_MAX

PATHS_MAX = 50_000
TOOLS_MAX = 8
"""Longer chains keep their last tools: the part that says what the money was spent below."""
_TOOLS = frozenset({"tool", "retrieval"})


class Path(NamedTuple):
    """The root's id; the names of the tools from it down; the nearest agent and step."""

    root: str
    tools: tuple[str, ...]
    agent: str | None
    step: str | None


class Paths:
    """The paths of events, over what the ledger holds."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, Path] = {}

    def of(self, batch: Mapping[str, Settled]) -> dict[str, Path]:
        """Event id -> its path, of a batch of events."""
        if len(self._known) > PATHS_MAX:
            self._known.clear()
        events, parents = self._climb(batch)
        for event_id in batch:
            self._walk(event_id, events, parents)
        return {event_id: self._known[event_id] for event_id in batch}

    def _climb(self, batch: Mapping[str, Settled]) -> tuple[dict[str, Event], dict[str, str]]:
        """The events and their ancestors that are not known yet, and who is whose parent."""
        draft = Draft(self._ledger.reading())
        draft.read(batch)
        events: dict[str, Event] = {}
        parents: dict[str, str] = {}
        frontier = {event_id: each.event for event_id, each in batch.items()}
        for _ in range(ANCESTORS_MAX):
            events.update(frontier)
            references = {each.facts.parent for each in frontier.values() if each.facts.parent}
            if not references:
                break
            resolved = draft.resolve(references)
            for event_id, each in frontier.items():
                parent = resolved.get(each.facts.parent or "")
                if parent is not None and parent != event_id:
                    parents[event_id] = parent
            above = set(resolved.values()) - events.keys() - self._known.keys()
            frontier = {event_id: each.event for event_id, each in draft.get(above).items()}
        return events, parents

    def _walk(self, event_id: str, events: Mapping[str, Event], parents: Mapping[str, str]) -> None:
        """Know the path of an event and of everything above it; a cycle ends where it began."""
        chain: list[str] = []
        seen: set[str] = set()
        at: str | None = event_id
        while at is not None and at not in self._known and at in events and at not in seen:
            chain.append(at)
            seen.add(at)
            at = parents.get(at)
        above = None if at is None else self._known.get(at)
        for each in reversed(chain):
            above = self._known[each] = _below(above, events[each])


def _below(above: Path | None, event: Event) -> Path:
    facts = event.facts
    tools = () if above is None else above.tools
    if facts.kind in _TOOLS:
        tools = (*tools, facts.name or facts.kind or "")[-TOOLS_MAX:]
    if above is None:
        return Path(event.id, tools, facts.agent, facts.name)
    return Path(above.root, tools, facts.agent or above.agent, facts.name or above.step)
