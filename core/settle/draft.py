"""The events as a settlement leaves them, over what the ledger holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from costspan.core.join import Event
from costspan.core.join.identity import own_part
from costspan.core.settle.entries import Node, Settled
from costspan.core.settle.keys import OPERATION, RESPONSE, SPAN
from costspan.core.settle.settlement import Settlement


def node_of(event: Event) -> Node:
    """What an event tells its descendants."""
    facts = event.facts
    return Node(facts.tenant, facts.session, facts.parent, facts.kind)


class Draft:
    """What was read, and what became of it."""

    def __init__(self, settlement: Settlement) -> None:
        self.settlement = settlement
        self._read: dict[str, Settled] = {}
        self._now: dict[str, Settled] = {}
        self._gone: set[str] = set()
        self._keys: list[tuple[str, str]] = []
        self._named: dict[str, list[str]] | None = None

    def held(self, event_id: str) -> Settled | None:
        """The event as the ledger holds it, if it was read."""
        return self._read.get(event_id)

    def read(self, events: Mapping[str, Settled]) -> None:
        """Remember what the ledger holds."""
        self._read.update(events)

    def put(self, each: Settled, keys: Collection[str] = ()) -> None:
        """An event as it now stands, and what it has come to be found by."""
        event_id = each.event.id
        self._now[event_id] = each
        self._named = None
        if keys:
            self._keys += [(key, event_id) for key in keys]

    def remove(self, event_id: str) -> None:
        """This is no event any more."""
        self._gone.add(event_id)

    def get(self, event_ids: Collection[str]) -> dict[str, Settled]:
        """The events of these ids, as they now stand."""
        now, read, gone = self._now, self._read, self._gone
        missing = [each for each in event_ids if each not in now and each not in read]
        if missing:
            read.update(self.settlement.settled(missing))
        found: dict[str, Settled] = {}
        for event_id in event_ids:
            each = now.get(event_id) or read.get(event_id)
            if each is not None and event_id not in gone:
                found[event_id] = each
        return found

    def write(self) -> None:
        """Put what changed into the ledger, which is asked for everything from here on."""
        self.settlement.forget(self._gone)
        changed = [each for id, each in self._now.items() if self._read.get(id) != each]
        self.settlement.save(changed, self._keys)
        self._read.clear()
        self._now.clear()
        self._gone.clear()
        self._keys.clear()
        self._named = None

    # --- parents -------------------------------------------------------------------------------

    def resolve(self, references: Collection[str]) -> dict[str, str]:
        """Reference -> event id: attempt id, else operation id, oid or span id (least event)."""
        found = {
            id: id
            for id, each in self.get(references).items()
            if each.event.facts.attempt_id is not None
        }
        missing = set(references) - found.keys()
        if not missing:
            return found
        keys = [kind + name for name in missing for kind in (OPERATION, SPAN)]
        candidates = self._candidates(keys, missing)
        spans: dict[str, str] = {}
        for event_id in sorted(candidates):
            event = candidates[event_id].event
            for name in missing.intersection(event.operation_names):
                found.setdefault(name, event_id)
            for name in missing.intersection(event.span_names):
                spans.setdefault(name, event_id)
        missing -= found.keys()
        for name in missing:
            if (named := self._by_oid(name)) is not None:
                found[name] = named
        return {**spans, **found}

    def _candidates(self, keys: Collection[str], names: Collection[str]) -> dict[str, Settled]:
        """The events that the ledger has under these keys, or that have come under these names."""
        indexed = self.settlement.indexed(keys)
        self._read.update({id: each for id, each in indexed.items() if id not in self._read})
        if self._named is None:
            self._named = {}
            for event_id, each in self._now.items():
                for name in (*each.event.operation_names, *each.event.span_names):
                    self._named.setdefault(name, []).append(event_id)
        ids = set(indexed)
        for name in names:
            ids.update(self._named.get(name, ()))
        return self.get(ids)

    def _by_oid(self, oid: str) -> str | None:
        """The least event an observation speaks of: rarely asked, so oids have no keys."""
        seen = next(iter(self.settlement.observations((oid,))), None)
        if seen is None:
            return None
        keys = [OPERATION + operation for operation in seen.operation_ids]
        if seen.response_id is not None:
            keys.append(RESPONSE + own_part(seen.response_id))
        candidates = self._candidates(keys, seen.operation_ids)
        candidates.update(self.get([seen.attempt_id or oid]))
        for event_id, each in self._now.items():
            if oid in each.event.oid_names and event_id not in self._gone:
                candidates[event_id] = each
        return min(
            (id for id, each in candidates.items() if oid in each.event.oid_names), default=None
        )
