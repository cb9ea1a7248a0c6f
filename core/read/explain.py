"""Why anything cost what it cost: the tree of attempts, who saw what, prices, rules, postings.

Everything is recomputed from the journal and the policies the ledger kept, by the same pure
functions that settled it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from costspan.core.decide import Decision
from costspan.core.decide.rules import Tried
from costspan.core.join import Event, disagreements, identify
from costspan.core.join.identity import Spoken
from costspan.core.money import format_usd
from costspan.core.prices import ChargeEntry
from costspan.core.read.billed import Billed
from costspan.core.read.corrections import Correction, Entry
from costspan.core.read.free_entry import FreeEntry
from costspan.core.read.headline import headline_of, headline_of_all
from costspan.core.read.invoice_line import InvoiceBeside
from costspan.core.read.parts import Parts
from costspan.core.read.priced import Priced
from costspan.core.read.tree import Tree
from costspan.core.read.witnesses import Counted, Witness, counts_of, witnesses_of
from costspan.core.settle.component import component_of
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger

DEPTH_MAX = 32
"""A tree that goes deeper is told in pieces, so that a page, a parser or a stack can hold each."""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the tree, with everything that decided it, and the events below it.

    `unknown` says why there is no cost; `problems` name what was refused or came twice
    differently, as "KIND of OID". `billed` is what invoices say of its model and day. `under` is
    set on a piece of a deep tree: the event that it belongs below. `charge_entries` are
    those of the charge book that decided the charge; `archived` counts the observations that are
    in an archive.
    """

    id: str
    headline: str
    event: Event
    decision: Decision | None
    cost: str | None
    charge: str | None
    absorbed: str | None
    witnesses: tuple[Witness, ...]
    disagreements: dict[str, dict[str, Any]]
    counted: tuple[Counted, ...]
    price: Priced | None
    requested_price: Priced | None
    charge_entries: tuple[ChargeEntry, ...]
    tried: tuple[Tried, ...]
    postings: tuple[Entry, ...]
    corrections: tuple[Correction, ...]
    billed: tuple[Billed, ...]
    unknown: str | None
    problems: tuple[str, ...]
    archived: int
    under: str | None
    below: tuple[Explained, ...]


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `explain NAME`: the trees that hold what the name names, and their sums.

    Of a free posting or an invoice there are no trees: `entry` or `invoice` has all there is to
    say. `headline` is of what the name names, `cost` and `charge` are of the whole trees. `is_cut`
    if there are more events than `tree.EVENTS_MAX`: the others are in no sum.
    """

    name: str
    ledger: str
    headline: str
    matched: tuple[str, ...]
    roots: tuple[Explained, ...]
    cost: str
    charge: str
    is_cut: bool
    entry: FreeEntry | None = None
    invoice: InvoiceBeside | None = None

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings here too."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        nodes = list(plain["roots"])
        while nodes:
            node = nodes.pop()
            if node["decision"] is not None:
                node["decision"] = plain_decision(node["decision"])
            nodes += node["below"]
        return plain


def plain_decision(decision: dict[str, Any]) -> dict[str, Any]:
    """One mapping of the decision and the ruling it shares, amounts in USD."""
    plain = {**decision.pop("ruling"), **decision}
    for name in ("cost", "charge"):
        plain[name] = _usd(plain[name])
    plain["shares"] = [
        {"owner": owner, "bucket": bucket, "pool": pool, "cost": _usd(cost), "charge": _usd(charge)}
        for owner, bucket, pool, cost, charge in plain["shares"]
    ]
    return plain


def explain(
    ledger: Ledger, name: str, ids: Collection[str], gateways: Sequence[str] = ()
) -> Explanation:
    """Explain the events of these ids, in the trees they belong to.

    `gateways` are those that the ledger is settled with, beside the marks in the journal.
    """
    tree = Tree(ledger, ids)
    events = tree.events
    seen = component_of(ledger.reading(), events.keys(), gateways)
    spoken = identify(seen, gateways).events
    parts = Parts(ledger, events)
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
    matched = tuple(sorted(ids))
    return Explanation(
        name=name,
        ledger=ledger.url,
        headline=(
            told[matched[0]].headline
            if len(matched) == 1
            else headline_of_all(events[each] for each in matched if each in events)
        ),
        matched=matched,
        roots=tuple(told[event_id] for event_id, depth, _ in order if depth % DEPTH_MAX == 0),
        cost=format_usd(sum(each.cost or 0 for each in decided)),
        charge=format_usd(sum(each.charge or 0 for each in decided)),
        is_cut=tree.is_cut,
    )


def _explained(
    each: Settled,
    spoken: Collection[Spoken],
    parts: Parts,
    *,
    under: str | None,
    below: tuple[Explained, ...],
) -> Explained:
    decision, event = each.decision, each.event
    unknown = parts.reasons.no_price(each) if decision and decision.cost is None else None
    tried = parts.tried(decision) if decision is not None else ()
    witnesses = witnesses_of(event, spoken)
    price = parts.priced(decision.price_row if decision else None, each)
    return Explained(
        id=event.id,
        headline=headline_of(each, _because(decision, tried), unknown),
        event=event,
        decision=decision,
        cost=_usd(decision.cost if decision else None),
        charge=_usd(decision.charge if decision else None),
        absorbed=_usd(decision.absorbed if decision else None),
        witnesses=witnesses,
        disagreements=disagreements(list(spoken)),
        counted=counts_of(witnesses),
        price=price,
        requested_price=parts.priced(decision.requested_row if decision else None, each),
        charge_entries=parts.charge_entries(decision, each) if decision else (),
        tried=tried,
        postings=tuple(parts.entries(event.id)),
        corrections=parts.corrections.of(each),
        billed=parts.bills.beside(each, {} if price is None else price.rates),
        unknown=unknown,
        problems=parts.problems_of(event),
        archived=parts.archived(event),
        under=under,
        below=below,
    )


def _because(decision: Decision | None, tried: Iterable[Tried]) -> list[str]:
    """Why it cost nothing, if it did; why it is its owner's; why the charge is not the cost."""
    if decision is None:
        return []
    tables = {"owner"} if decision.cost else {"cost", "owner"}
    by_book = "CB" in decision.rules
    if decision.cost != decision.charge and not by_book:
        tables |= {"charge", "quantity", "price"}
    said = [
        one.because
        for one in tried
        if one.missed is None
        and one.table in tables
        and (one.table in ("cost", "owner") or one.rule in decision.rules)
    ]
    return [*said, "a charge book says how much"] if by_book else said


def _usd(pico: int | None) -> str | None:
    return None if pico is None else format_usd(pico)
