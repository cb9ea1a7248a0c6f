"""The same events decided again by other rules or prices, in memory: what would be different.

Facts, lineage and corrections stay what they are; nothing is written, kept or remembered.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from costspan.core.decide import Decision, RuleSet
from costspan.core.join import Event
from costspan.core.journal.records import Restatement
from costspan.core.money import format_usd
from costspan.core.prices import PriceBook, Prices
from costspan.core.read import words
from costspan.core.settle.decisions import decisions_of
from costspan.core.settle.draft import Draft
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.policy import InForce, Policies
from costspan.core.settle.settlement import Settlement


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one decision comes to: amounts are decimal strings of USD, None where unknown."""

    owners: tuple[str, ...]
    bucket: str
    cost: str | None
    charge: str | None
    rules: tuple[str, ...]
    price_row: str | None


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """An event that would be decided differently; `differs` names in what."""

    event: str
    stands: Verdict
    would_be: Verdict
    differs: tuple[str, ...]


class WhatIf(msgspec.Struct, frozen=True, kw_only=True):
    """The answer: sums before and after (events of unknown cost are in none), and each difference.

    `with_rules` and `with_book` name what was tried, None where the ledger's own decided. `unknown`
    counts the events of unknown cost that (stand, would be). Amounts are decimal strings of USD.
    """

    name: str
    ledger: str
    with_rules: str | None
    with_book: str | None
    events: int
    cost: tuple[str, str]
    charge: tuple[str, str]
    unknown: tuple[int, int]
    owners: dict[str, tuple[str, str]]
    changed: tuple[Changed, ...]

    def plain(self) -> dict[str, Any]:
        """As plain JSON values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class _Instead(Policies):
    """The policies of a ledger, but for the rules or prices that are tried."""

    def __init__(
        self, settlement: Settlement, rules: RuleSet | None, book: PriceBook | None
    ) -> None:
        super().__init__(settlement)
        self._instead_rules = rules
        self._instead_book = book
        self._instead: dict[Prices, Prices] = {}

    def at(self, event: Event, restated: Restatement | None = None) -> InForce:
        """What would decide the event."""
        found = super().at(event, restated)
        if self._instead_rules is not None:
            found = found._replace(rules=self._instead_rules)
        if self._instead_book is not None:
            found = found._replace(prices=self._before(self._instead_book, found.prices))
        return found

    def _before(self, book: PriceBook, prices: Prices) -> Prices:
        if prices not in self._instead:
            others = [each for each in prices.books if each.id != book.id]
            self._instead[prices] = Prices([book, *others])
        return self._instead[prices]


def what_if(
    ledger: Ledger,
    name: str,
    ids: Collection[str],
    rules: RuleSet | None,
    book: PriceBook | None,
) -> WhatIf:
    """Decide the events of these ids again by these rules, or this book in front of the others."""
    draft = Draft(ledger.reading())
    events = draft.get(sorted(ids))
    again = decisions_of(draft, _Instead(draft.settlement, rules, book), events)
    pairs: dict[str, tuple[Decision, Decision]] = {}
    for event_id, each in events.items():
        now = again[event_id]
        if each.decision is not None and now is not None:
            pairs[event_id] = (each.decision, now)
    before = [was for was, _ in pairs.values()]
    after = [now for _, now in pairs.values()]
    owners = _by_owner(before), _by_owner(after)
    changed = [_changed(event_id, was, now) for event_id, (was, now) in pairs.items()]
    return WhatIf(
        name=name,
        ledger=ledger.url,
        with_rules=None if rules is None else f"{rules.profile} {rules.sha256[:12]}",
        with_book=None if book is None else book.id,
        events=len(pairs),
        cost=(_total(before, "cost"), _total(after, "cost")),
        charge=(_total(before, "charge"), _total(after, "charge")),
        unknown=(_unknown(before), _unknown(after)),
        owners={
            owner: (format_usd(owners[0].get(owner, 0)), format_usd(owners[1].get(owner, 0)))
            for owner in sorted(owners[0].keys() | owners[1].keys())
        },
        changed=tuple(each for each in changed if each.differs),
    )


def _total(decisions: Collection[Decision], name: str) -> str:
    return format_usd(sum(getattr(each, name) or 0 for each in decisions))


def _unknown(decisions: Collection[Decision]) -> int:
    return sum(each.cost is None for each in decisions)


def _by_owner(decisions: Collection[Decision]) -> dict[str, int]:
    """Owner -> what is charged to it (pico-USD), or of `@` ones what it costs."""
    sums: dict[str, int] = {}
    for each in decisions:
        for share in each.shares:
            amount = share.cost if share.owner.startswith("@") else share.charge
            sums[share.owner] = sums.get(share.owner, 0) + amount
    return sums


def _changed(event_id: str, was: Decision, now: Decision) -> Changed:
    stands, would_be = _verdict(was), _verdict(now)
    differs = [
        name
        for name in Verdict.__struct_fields__
        if getattr(stands, name) != getattr(would_be, name)
    ]
    return Changed(event=event_id, stands=stands, would_be=would_be, differs=tuple(differs))


def _verdict(decision: Decision) -> Verdict:
    return Verdict(
        owners=tuple(sorted({share.owner for share in decision.shares} or {decision.owner})),
        bucket=decision.bucket,
        cost=None if decision.cost is None else format_usd(decision.cost),
        charge=None if decision.charge is None else format_usd(decision.charge),
        rules=(decision.cost_rule, *decision.rules, decision.bucket_rule),
        price_row=decision.price_row,
    )


def headline_of_what_if(found: WhatIf) -> str:
    """What would be different, in one sentence."""
    tried = " and ".join(
        part
        for part in (
            f"rules {found.with_rules}" if found.with_rules else "",
            f"price book {found.with_book}" if found.with_book else "",
        )
        if part
    )
    many = words.counted(found.events, "event")
    if not found.changed:
        return f"With {tried} nothing would be different for {many}."
    parts = [
        f"the {name} {words.trimmed(amounts[0])} -> {words.trimmed(amounts[1])} USD"
        for name, amounts in (("cost", found.cost), ("charge", found.charge))
        if amounts[0] != amounts[1]
    ]
    said = words.listed(parts) or "no sum changes"
    return f"With {tried} {len(found.changed):,} of {many} would be decided differently: {said}."
