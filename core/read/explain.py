"""Why anything cost what it cost: the tree of attempts, who saw what, prices, rules, postings.

Everything is recomputed from the journal and the policies the ledger kept, by the same pure
functions that settled it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, get_args

import msgspec

from costspan.core.decide import Decision, RuleSet
from costspan.core.decide.rules import TableName, Tried
from costspan.core.join import Event, disagreements, identify
from costspan.core.join.identity import Spoken
from costspan.core.money import format_usd
from costspan.core.read.reasons import Reasons
from costspan.core.read.tree import Tree
from costspan.core.schema import Observation, oid_of
from costspan.core.settle.component import component_of
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

_HIDDEN = frozenset({"schema_version", "oid", "writer", "seq", "recorded_at"})
DEPTH_MAX = 32
"""A tree that goes deeper is told in pieces, so that a page, a parser or a stack can hold each."""


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
    differently, as "KIND of OID". `under` is set on a piece of a deep tree: the event that it
    belongs below.
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
    under: str | None
    below: tuple[Explained, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `explain NAME`: the trees that hold what the name names, and their sums.

    `is_cut` if there are more events than `tree.EVENTS_MAX`: the others are in no sum.
    """

    name: str
    ledger: str
    matched: tuple[str, ...]
    roots: tuple[Explained, ...]
    cost: str
    charge: str
    is_cut: bool

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings here too."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        nodes = list(plain["roots"])
        while nodes:
            node = nodes.pop()
            if node["decision"] is not None:
                node["decision"] = _plain(node["decision"])
            nodes += node["below"]
        return plain


def _plain(decision: dict[str, Any]) -> dict[str, Any]:
    """One mapping of the decision and the ruling it shares, amounts in USD."""
    plain = {**decision.pop("ruling"), **decision}
    for name in ("cost", "charge"):
        plain[name] = _usd(plain[name])
    plain["shares"] = [
        {"owner": owner, "bucket": bucket, "pool": pool, "cost": _usd(cost), "charge": _usd(charge)}
        for owner, bucket, pool, cost, charge in plain["shares"]
    ]
    return plain


def explain(ledger: Ledger, name: str, ids: Collection[str]) -> Explanation:
    """Explain the events of these ids, in the trees they belong to."""
    tree = Tree(ledger, ids)
    events = tree.events
    spoken = identify(component_of(ledger.reading(), events.keys())).events
    parts = _Parts(ledger, events)
    order = list(tree.in_order())
    told: dict[str, Explained] = {}
    for event_id, depth, children in reversed(order):  # children come before their parents
        told[event_id] = _explained(
            events[event_id],
            spoken.get(event_id, []),
            parts,
            under=tree.parents.get(event_id) if depth % DEPTH_MAX == 0 else None,
            below=tuple(told[child] for child in children) if (depth + 1) % DEPTH_MAX else (),
        )
    decided = [each.decision for each in events.values() if each.decision is not None]
    return Explanation(
        name=name,
        ledger=ledger.url,
        matched=tuple(sorted(ids)),
        roots=tuple(told[event_id] for event_id, depth, _ in order if depth % DEPTH_MAX == 0),
        cost=format_usd(sum(each.cost or 0 for each in decided)),
        charge=format_usd(sum(each.charge or 0 for each in decided)),
        is_cut=tree.is_cut,
    )


class _Parts:
    """What a ledger keeps beside its events: rule sets, price rows, problems, postings."""

    def __init__(self, ledger: Ledger, events: Mapping[str, Settled]) -> None:
        self.reasons = Reasons(ledger)
        self._ledger = ledger
        self._reading = ledger.reading()
        self._rules: dict[str, RuleSet] = {}
        self._tried: dict[str, tuple[Tried, ...]] = {}
        self._rows: dict[str, Priced | None] = {}
        self._problems: dict[str, list[str]] = {}
        names = {
            name for each in events.values() for name in (each.event.id, *each.event.oid_names)
        }
        for kind, oid, event_id in ledger.problems(names):
            self._problems.setdefault(event_id or oid, []).append(f"{kind} of {oid}")

    def tried(self, decision: Decision) -> tuple[Tried, ...]:
        """Every rule that was tried, table by table."""
        key = decision.ruling.key
        if key not in self._tried:
            sha256 = decision.rules_sha256
            if sha256 not in self._rules:
                self._rules[sha256] = self._reading.rule_set(sha256)
            explain_table = self._rules[sha256].explain
            self._tried[key] = tuple(
                tried
                for table in _TABLES_IN_ORDER
                for tried in explain_table(table, decision.features)
            )
        return self._tried[key]

    def problems_of(self, event: Event) -> tuple[str, ...]:
        names = (event.id, *event.oid_names)
        return tuple(problem for name in names for problem in self._problems.get(name, ()))

    def priced(self, row_id: str | None) -> Priced | None:
        if row_id is None:
            return None
        if row_id not in self._rows:
            self._rows[row_id] = self._priced(row_id)
        return self._rows[row_id]

    def _priced(self, row_id: str) -> Priced | None:
        found = self._ledger.price_row(row_id)
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

    def entries(self, event_id: str) -> Iterator[Entry]:
        """What was posted for an event, oldest first."""
        for posting in self._ledger.postings(event_id):
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


_TABLES_IN_ORDER: tuple[TableName, ...] = get_args(TableName)


def _explained(
    each: Settled,
    spoken: Collection[Spoken],
    parts: _Parts,
    *,
    under: str | None,
    below: tuple[Explained, ...],
) -> Explained:
    decision = each.decision
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
        tried=parts.tried(decision) if decision is not None else (),
        postings=tuple(parts.entries(each.event.id)),
        unknown=parts.reasons.no_price(each) if decision and decision.cost is None else None,
        problems=parts.problems_of(each.event),
        under=under,
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
