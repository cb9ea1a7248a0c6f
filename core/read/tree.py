"""The trees of attempts that some events belong to: what is above, below and beside them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from costspan.core.settle.draft import Draft
from costspan.core.settle.entries import Settled
from costspan.core.settle.keys import OPERATION
from costspan.core.settle.ledger import Ledger

EVENTS_MAX = 10_000
"""A session of a year is no tree to print."""


class Tree:
    """The events, their ancestors and descendants, and the other attempts of what they try.

    Those of one operation, and those that they say they retry.

    `parents` is event id -> the id of its parent among them; a cycle's least id has none.
    """

    def __init__(self, ledger: Ledger, ids: Collection[str]) -> None:
        self.events: dict[str, Settled] = {}
        self.parents: dict[str, str] = {}
        self.is_cut = False
        self._draft = Draft(ledger.reading())
        frontier = set(ids)
        while frontier:
            frontier = self._add(frontier)
        self.parents = {child: up for child, up in self.parents.items() if up in self.events}
        _drop_cycles(self.parents)

    def _add(self, frontier: set[str]) -> set[str]:
        """Take events in; what is around them and not in yet."""
        room = EVENTS_MAX - len(self.events)
        if len(frontier) > room:
            self.is_cut = True
            frontier = set(sorted(frontier)[:room])
        found = self._draft.get(frontier)
        self.events.update(found)
        facts = {event_id: each.event.facts for event_id, each in found.items()}
        references = {name for each in facts.values() for name in (each.parent, each.retry_of)}
        resolved = self._draft.resolve({name for name in references if name})
        for event_id, each in facts.items():
            if (parent := resolved.get(each.parent or "")) is not None and parent != event_id:
                self.parents[event_id] = parent
        around = set(resolved.values())
        around |= self._draft.settlement.children(
            [name for each in found.values() for name in each.event.names]
        )
        around |= self._same_operation(found)
        return set[str]() if self.is_cut else around - self.events.keys()

    def _same_operation(self, found: Mapping[str, Settled]) -> set[str]:
        names = {name for each in found.values() for name in each.event.operation_names}
        others = self._draft.settlement.indexed([OPERATION + name for name in names])
        return {
            event_id
            for event_id, each in others.items()
            if not names.isdisjoint(each.event.operation_names)
        }

    def in_order(self) -> Iterator[tuple[str, int, Sequence[str]]]:
        """(event, depth, events right below it), each after its parent, in the order of time."""
        below: dict[str | None, list[str]] = {}
        for event_id in sorted(self.events, key=lambda each: _when(self.events[each])):
            below.setdefault(self.parents.get(event_id), []).append(event_id)
        waiting = [(root, 0) for root in reversed(below.get(None, ()))]
        while waiting:
            event_id, depth = waiting.pop()
            children = below.get(event_id, ())
            yield event_id, depth, children
            waiting += [(child, depth + 1) for child in reversed(children)]


def _drop_cycles(parents: dict[str, str]) -> None:
    """In every cycle the least id loses its parent."""
    seen: set[str] = set()
    for start in list(parents):
        path: dict[str, int] = {}
        at: str | None = start
        while at is not None and at not in seen and at not in path:
            path[at] = len(path)
            at = parents.get(at)
        if at is not None and at in path:
            del parents[min(each for each, place in path.items() if place >= path[at])]
        seen.update(path)


def _when(each: Settled) -> tuple[int, int, str]:
    facts = each.event.facts
    return (facts.started_at or 0, facts.attempt or 0, each.event.id)
