"""Why anything cost what it cost: the tree of attempts, who saw what, prices, rules, postings.

Everything is recomputed from the journal and the policies the ledger kept, by the same pure
functions that settled it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, get_args

import msgspec

from costspan.core.decide import Decision, RuleSet
from costspan.core.decide.rules import TableName, Tried
from costspan.core.join import Event, disagreements, identify
from costspan.core.join.identity import Spoken
from costspan.core.money import format_usd
from costspan.core.prices import PriceBook, PriceRow
from costspan.core.read.reasons import Reasons
from costspan.core.schema import Observation, oid_of
from costspan.core.settle.component import component_of
from costspan.core.settle.ledger import Ledger, Settled

_HIDDEN = frozenset({"schema_version", "oid", "writer", "seq", "recorded_at"})
_TREE_EVENTS_MAX = 10_000


class Witness(msgspec.Struct, frozen=True):
    """One observation of an event: who saw it, how far it is believed, and what it said."""

    oid: str
    source: str
    layer: str
    phase: str
    reach: str
    said: dict[str, Any]


class Priced(msgspec.Struct, frozen=True):
    """A price row and the book it is from; rates are USD per 1M tokens or per unit."""

    row: str
    book: str
    version: str | None
    model: str
    tier: str | None
    rates: dict[str, str]
    effective_from: int | None
    effective_to: int | None


class Entry(msgspec.Struct, frozen=True):
    """A posting, amounts as decimal strings of USD."""

    owner: str
    bucket: str
    pool: str | None
    effective_period: str
    posted_period: str
    cost: str
    charge: str


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the tree, with everything that decided it, and the events below it.

    `unknown` says why there is no cost; `problems` name what was refused or came twice
    differently, as "KIND of OID".
    """

    id: str
    event: Event
    decision: Decision | None
    cost: str | None
    charge: str | None
    absorbed: str | None
    witnesses: tuple[Witness, ...]
    disagreements: dict[str, dict[str, Any]]
    price: Priced | None
    requested_price: Priced | None
    tried: tuple[Tried, ...]
    postings: tuple[Entry, ...]
    unknown: str | None
    problems: tuple[str, ...]
    below: tuple[Explained, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `explain NAME`: the trees that hold what the name names, and their sums."""

    name: str
    ledger: str
    matched: tuple[str, ...]
    roots: tuple[Explained, ...]
    cost: str
    charge: str

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings here too."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        nodes = list(plain["roots"])
        while nodes:
            node = nodes.pop()
            if node["decision"] is not None:
                _write_amounts(node["decision"])
            nodes += node["below"]
        return plain


def _write_amounts(decision: dict[str, Any]) -> None:
    decision.update(decision.pop("ruling"))
    for name in ("cost", "charge"):
        decision[name] = _usd(decision[name])
    decision["shares"] = [
        {"owner": owner, "bucket": bucket, "pool": pool, "cost": _usd(cost), "charge": _usd(charge)}
        for owner, bucket, pool, cost, charge in decision["shares"]
    ]


def explain(ledger: Ledger, name: str, ids: Collection[str]) -> Explanation:
    """Explain the events of these ids, in the trees they belong to."""
    tree = _tree(ledger, ids)
    spoken = identify(component_of(ledger.reading(), tree.keys())).events
    parts = _Parts(ledger)
    below: dict[str | None, list[str]] = {}
    parents = _parents(tree)
    for event_id in tree:
        below.setdefault(parents.get(event_id), []).append(event_id)

    def node(event_id: str) -> Explained:
        children = sorted(below.get(event_id, ()), key=lambda child: _when(tree[child]))
        return _explained(
            ledger, tree[event_id], spoken.get(event_id, []), parts, tuple(map(node, children))
        )

    roots = sorted(below.get(None, ()), key=lambda root: _when(tree[root]))
    decided = [tree[event_id].decision for event_id in tree]
    return Explanation(
        name=name,
        ledger=ledger.url,
        matched=tuple(sorted(ids)),
        roots=tuple(map(node, roots)),
        cost=format_usd(sum(each.cost or 0 for each in decided if each is not None)),
        charge=format_usd(sum(each.charge or 0 for each in decided if each is not None)),
    )


def _tree(ledger: Ledger, ids: Collection[str]) -> dict[str, Settled]:
    """The events, their ancestors and their descendants, and the other attempts of each operation.

    Kept to `_TREE_EVENTS_MAX`: a session of a year is no tree to print.
    """
    tree: dict[str, Settled] = {}
    frontier = set(ids)
    while frontier and len(tree) < _TREE_EVENTS_MAX:
        found = {each.event.id: each for each in ledger.events(frontier)}
        tree.update(found)
        frontier = set[str]()
        for each in found.values():
            frontier.update(ledger.children(each.event.names))
            for name in (each.event.facts.parent, *each.event.operation_names):
                if name is not None:
                    frontier.update(ledger.named(name))
        frontier -= tree.keys()
    return tree


def _parents(tree: dict[str, Settled]) -> dict[str, str]:
    """Event id -> the id of its parent within the tree; a cycle's least id has none."""
    names: dict[str, str] = {}
    for event_id in sorted(tree, reverse=True):
        event = tree[event_id].event
        names.update(dict.fromkeys(event.names, event_id))
    names.update((event_id, event_id) for event_id in tree)
    parents: dict[str, str] = {}
    for event_id in sorted(tree, reverse=True):
        parent = names.get(tree[event_id].event.facts.parent or "")
        if parent is not None and parent != event_id and event_id not in _up(parent, parents):
            parents[event_id] = parent
    return parents


def _up(event_id: str, parents: dict[str, str]) -> Iterator[str]:
    at: str | None = event_id
    while at is not None:
        yield at
        at = parents.get(at)


def _when(each: Settled) -> tuple[int, int, str]:
    facts = each.event.facts
    return (facts.started_at or 0, facts.attempt or 0, each.event.id)


class _Parts:
    """What a ledger keeps beside its events: rule sets and price rows by hash and id, problems."""

    def __init__(self, ledger: Ledger) -> None:
        self.reasons = Reasons(ledger)
        self._problems: dict[str, list[str]] = {}
        for kind, oid, event_id in ledger.problems():
            self._problems.setdefault(event_id or oid, []).append(f"{kind} of {oid}")
        _, self._rules, books = ledger.policy_parts()
        self._rows: dict[str, tuple[PriceRow, PriceBook]] = {
            row.id: (row, book) for book in books.values() for row in book.rows
        }

    def rules(self, sha256: str) -> RuleSet | None:
        return self._rules.get(sha256)

    def problems_of(self, event: Event) -> tuple[str, ...]:
        names = (event.id, *event.oid_names)
        return tuple(problem for name in names for problem in self._problems.get(name, ()))

    def priced(self, row_id: str | None) -> Priced | None:
        found = self._rows.get(row_id or "")
        if found is None:
            return None
        row, book = found
        return Priced(
            row.id,
            book.id,
            book.source_version,
            row.model,
            row.tier,
            dict(row.rates),
            row.effective_from,
            row.effective_to,
        )


_TABLES_IN_ORDER: tuple[TableName, ...] = get_args(TableName)


def _explained(
    ledger: Ledger,
    each: Settled,
    spoken: Collection[Spoken],
    parts: _Parts,
    below: tuple[Explained, ...],
) -> Explained:
    decision = each.decision
    tried: list[Tried] = []
    rules = parts.rules(decision.rules_sha256) if decision is not None else None
    if decision is not None and rules is not None:
        for table in _TABLES_IN_ORDER:
            tried += rules.explain(table, decision.features)
    return Explained(
        id=each.event.id,
        event=each.event,
        decision=decision,
        cost=_usd(decision.cost if decision else None),
        charge=_usd(decision.charge if decision else None),
        absorbed=_usd(decision.absorbed if decision else None),
        witnesses=tuple(map(_witness, sorted(spoken, key=_heard))),
        disagreements=disagreements(list(spoken)),
        price=parts.priced(decision.price_row if decision else None),
        requested_price=parts.priced(decision.requested_row if decision else None),
        tried=tuple(tried),
        postings=tuple(_entries(ledger, each.event.id)),
        unknown=parts.reasons.no_price(each) if decision and decision.cost is None else None,
        problems=parts.problems_of(each.event),
        below=below,
    )


def _heard(spoken: Spoken) -> tuple[int, str, int, str]:
    """The order observations were recorded in; a writer's own numbers count as numbers."""
    seen = spoken.observation
    return (seen.recorded_at or 0, seen.writer or "", seen.seq or 0, oid_of(seen))


def _usd(pico: int | None) -> str | None:
    return None if pico is None else format_usd(pico)


def _witness(spoken: Spoken) -> Witness:
    seen = spoken.observation
    return Witness(
        oid=oid_of(seen),
        source=seen.source or "",
        layer=seen.layer,
        phase=seen.phase,
        reach=spoken.reach.name.lower(),
        said=_said(seen),
    )


def _said(seen: Observation) -> dict[str, Any]:
    return {
        name: value
        for name in seen.__struct_fields__
        if name not in _HIDDEN and (value := getattr(seen, name)) not in (None, ())
    }


def _entries(ledger: Ledger, event_id: str) -> Iterator[Entry]:
    for posting in ledger.postings(event_id):
        line = posting.line
        yield Entry(
            line.owner,
            line.bucket,
            line.pool,
            line.effective_period,
            posting.posted_period,
            format_usd(posting.amount.cost),
            format_usd(posting.amount.charge),
        )
