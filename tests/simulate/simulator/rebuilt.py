"""The same records settled anew, whole or in another order: the same books (4, 5 and 19)."""

from __future__ import annotations

import random
from contextlib import closing
from itertools import islice

from costspan.core.journal.records import Close, Control, Counts, Refusals
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers.sqlite.store import SqliteLedger
from simulator.checks import EVERYTHING, check, closes, sealed_by


def check_rebuild(ledger: Ledger) -> None:
    """19: rebuilt from the journal alone, the books are the same."""
    with closing(SqliteLedger(":memory:", create=True)) as fresh:
        copy_books(ledger, fresh)
        _check_same_books(19, ledger, fresh)
        was, now = (list(each.postings_after(0, EVERYTHING)) for each in (ledger, fresh))
        seals = closes(ledger)
        check(list(sealed_by(seals, was)) == list(sealed_by(seals, now)), 19, "sealed", was, now)


def check_order(ledger: Ledger, seed: int) -> None:
    """4 and 5: the same records in another order, some of them twice, give the same books."""
    source = random.Random(seed)
    journal = list(ledger.journal())
    records: list[Observation | Control] = [
        *journal,
        *(source.choices(journal, k=3) if journal else []),
    ]
    held = [each for each in ledger.controls() if not isinstance(each, (Close, Counts, Refusals))]
    records += held[1:]
    source.shuffle(records)
    with closing(SqliteLedger(":memory:", create=True)) as fresh:
        _, rules, books = ledger.policy_parts()
        with fresh.settling(0) as settlement:
            for rule_set in rules.values():
                settlement.keep_rule_set(rule_set)
            for book in books.values():
                settlement.keep_price_book(book)
            settle(settlement, [], held[:1])
        rest = iter(records)
        while batch := list(islice(rest, source.randint(1, 7))):
            with fresh.settling(0) as settlement:
                settle(
                    settlement,
                    [each for each in batch if isinstance(each, Observation)],
                    [each for each in batch if not isinstance(each, Observation)],
                )
        _check_same_books(5, ledger, fresh)


def _check_same_books(invariant: int, ledger: Ledger, fresh: Ledger) -> None:
    for was, now in zip(ledger.events(), fresh.events(), strict=True):
        check(
            (was.event, was.decision) == (now.event, now.decision),
            invariant,
            "was",
            was,
            "now",
            now,
        )
    here, there = nets(ledger), nets(fresh)
    check(here == there, invariant, "the nets were", here, "and are", there)
    problems = set(ledger.problems())
    check(problems == set(fresh.problems()), invariant, "problems", problems)
    for name in ("observations", "events", "open", "swept", "conflict"):
        was_n, now_n = ledger.counts()[name], fresh.counts()[name]
        check(was_n == now_n, invariant, name, was_n, "and now", now_n)
