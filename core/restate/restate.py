"""Restating: an event, or a month, is decided again with other prices, rules or charges.

A restatement is a record like any other: what it changes is posted as differences, in the open
month where the own one is sealed. Saying the same again posts nothing, and taking it back nets to
nothing.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from costspan.core.decide import RuleSet
from costspan.core.prices import ChargeBook, PriceBook
from costspan.core.restate.idle import withdraw_idle
from costspan.core.restate.scope import (
    TIMEOUT_SECONDS,
    Change,
    Hand,
    RestateError,
    Scope,
    Target,
    Tell,
    keep_only_what_counts,
    trying,
    with_platform,
)
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settlement import Settlement


def restate(
    ledger: Ledger,
    target: Target,
    hand: Hand,
    *,
    prices: PriceBook | str | None = None,
    rules: RuleSet | None = None,
    charges: ChargeBook | None = None,
    undo: bool = False,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> Change:
    """Decide an event or a period again; post the differences.

    Args:
        ledger: The books.
        target: The event or the period.
        hand: Who does it, why and when.
        prices: A price book, or the hash of one that is kept: it goes in front of the books of
            the policy in force for each event, in the place of one of the same id.
        rules: A rule set instead of that of the policy.
        charges: A charge book instead of that of the policy.
        undo: Take earlier restatements back: the policies decide again. What was said of an event
            alone leaves what was said of its period in force.
        dry_run: Say what would be, and change nothing.
        tell: Is told how many events were decided so far.

    Raises:
        RestateError: if there is no such event or book, nothing is asked for, or nobody says so;
            if nothing was ever drained into the ledger.
    """
    hand.check()
    if not undo and prices is None and rules is None and charges is None:
        raise RestateError("nothing to restate with: give prices, rules or charges, or undo")
    with trying() as tried, ledger.settling(TIMEOUT_SECONDS) as settlement:
        if not undo and not settlement.policies():
            raise RestateError("nothing was ever drained into this ledger: it has no policy yet")
        scope = Scope(settlement, target)
        before = scope.without if undo else scope.in_force
        books = None if before is None else before.books
        new_rules = None if before is None else before.rules
        new_charges = None if before is None else before.charges
        if prices is not None:
            books = scope.in_front_of_policy(_kept(settlement, prices))
        if rules is not None:
            settlement.keep_rule_set(rules)
            new_rules = rules.sha256
        if charges is not None:
            settlement.keep_charge_book(charges)
            new_charges = charges.sha256
        record = scope.record(hand, new_rules, books, new_charges)
        change = scope.settle([] if record is None else [record], tell)
        if undo and target.period is not None:
            cost, entries = withdraw_idle(ledger, settlement, target.period, *hand)
            change = with_platform(change, cost, entries)
        change = msgspec.structs.replace(change, books=books or ())
        keep_only_what_counts(change, scope.is_repeated(record), dry_run)
        tried.change = msgspec.structs.replace(change, recorded=True)
    return tried.change


def _kept(settlement: Settlement, prices: PriceBook | str) -> str:
    """The hash of a book that is kept now; one that is named by its hash, or how that begins."""
    if isinstance(prices, PriceBook):
        settlement.keep_price_book(prices)
        return prices.sha256
    return book_named(settlement.price_book_versions(), prices)


def book_named(versions: Collection[tuple[str, str, str | None]], name: str) -> str:
    """The hash of the kept book of this hash (or how it begins), `id@version`, or id.

    Raises:
        RestateError: if there is none, or there are several.
    """
    found = [
        sha
        for sha, id, version in versions
        if name in (sha, f"{id}@{version}", id) or (len(name) >= 6 and sha.startswith(name))
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(
        f"{id}{f'@{version}' if version else ''} {sha[:12]}" for sha, id, version in versions
    )
    what = "there is no kept price book" if not found else "several kept price books are called"
    raise RestateError(f"{what} {name!r}; kept are {known or 'none'}")
