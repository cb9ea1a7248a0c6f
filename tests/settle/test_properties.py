"""Settlement as a pure function of the journal: any batches, any order, any duplicates."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from contextlib import closing
from fractions import Fraction
from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import GATEWAY, POLICIES, Journal, journal_pairs, journals, opened, settled
from msgspec.structs import astuple
from oracle import Rule, settle_all

from costspan.core.decide import DOMAINS
from costspan.core.journal.records import SessionOwner
from costspan.core.rebuild import copy_books, nets
from costspan.core.schema import Observation
from costspan.core.settle.entries import Settled
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers import events as event_tables

EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "300"))
settle_module = sys.modules["costspan.core.settle.settle"]
proving = settings(
    max_examples=EXAMPLES,
)


def books(ledger: Ledger) -> dict[tuple[str, str], tuple[int, int]]:
    """(owner, bucket) -> (cost, charge), without the lines that no event stands on any more."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for roll_up in ledger.roll_ups():
        total = sums[roll_up.line.owner, roll_up.line.bucket]
        total[0] += roll_up.cost
        total[1] += roll_up.charge
        total[2] += roll_up.events
    return {key: (cost, charge) for key, (cost, charge, n) in sums.items() if cost or charge or n}


def decisions(ledger: Ledger) -> dict[str, Any]:
    return {each.event.id: each.decision for each in ledger.events()}


def posted(ledger: Ledger) -> list[tuple[Any, ...]]:
    """Every posting there is, those of events that are gone too."""
    return [
        (each.event_id, *msgspec.structs.astuple(each.line), each.posted_period,
         *msgspec.structs.astuple(each.amount), each.events)
        for _, each in ledger.postings_after(0, -1)
    ]  # fmt: skip


@proving
@given(journals())
def test_incremental_settlement_equals_the_naive_one(journal: Journal) -> None:
    full = settle_all(journal.observations, POLICIES, journal.directory, (GATEWAY,))
    with closing(settled(journal)) as ledger:
        assert {each.event.id: each.event for each in ledger.events()} == full.events
        assert decisions(ledger) == full.decisions
        assert books(ledger) == full.ledger
        assert set(ledger.problems()) == full.problems


@settings(proving, max_examples=EXAMPLES // 3)
@given(journals(), st.integers(1, 3))
def test_more_dirty_events_than_are_held_at_once_change_nothing(
    journal: Journal, at_once: int
) -> None:
    full = settle_all(journal.observations, POLICIES, journal.directory, (GATEWAY,))
    few = patch.object(settle_module, "EVENTS_PER_DECISION", at_once)
    with few, closing(settled(journal)) as ledger:
        assert {each.event.id: each.event for each in ledger.events()} == full.events
        assert decisions(ledger) == full.decisions
        assert books(ledger) == full.ledger


@settings(proving, max_examples=EXAMPLES // 5)
@given(journals())
def test_keys_whose_digests_collide_change_nothing(journal: Journal) -> None:
    """A ledger may keep digests of keys: events are looked at, not believed to be the right one."""
    full = settle_all(journal.observations, POLICIES, journal.directory, (GATEWAY,))
    colliding = patch.object(event_tables, "digest_of", lambda key: len(key) % 2)
    with colliding, closing(settled(journal)) as ledger:
        assert {each.event.id: each.event for each in ledger.events()} == full.events
        assert decisions(ledger) == full.decisions
        assert set(ledger.problems()) == full.problems


@proving
@given(journal_pairs())
def test_any_order_and_batching_gives_the_same_books(pair: tuple[Journal, Journal]) -> None:
    """Invariants 4 and 5; the rebuilt books too (19)."""
    with closing(settled(pair[0])) as first, closing(settled(pair[1])) as second:
        assert decisions(first) == decisions(second)
        assert books(first) == books(second)
        assert nets(first) == nets(second)
        assert set(first.problems()) == set(second.problems())
        with closing(opened(POLICIES[:1])) as rebuilt:
            copy_books(first, rebuilt, (GATEWAY,))
            assert decisions(rebuilt) == decisions(first)
            assert books(rebuilt) == books(first)
            assert nets(rebuilt) == nets(first)


@proving
@given(journals())
def test_the_books_balance(journal: Journal) -> None:
    """Invariants 1, 2, 3, 8, 12, 18 and 22."""
    with closing(settled(journal)) as ledger:
        lines: dict[str, dict[Any, list[int]]] = defaultdict(dict)
        rolled: dict[Any, list[int]] = {}
        for event_id, *line, cost, charge, events in posted(ledger):
            for sums in (
                lines[event_id].setdefault(tuple(line[:4]), [0, 0, 0]),
                rolled.setdefault(tuple(line), [0, 0, 0]),
            ):
                for at, amount in enumerate((cost, charge, events)):
                    sums[at] += amount
        assert {key: sums for key, sums in rolled.items() if any(sums)} == {
            (*astuple(each.line), each.posted_period): [each.cost, each.charge, each.events]
            for each in ledger.roll_ups()
        }
        for each in ledger.events():
            check(each, lines.pop(each.event.id, {}))
        # The others were withdrawn: events that turned out to be evidence on others.
        assert not any(any(sums) for gone in lines.values() for sums in gone.values())


def check(each: Settled, lines: dict[Any, list[int]]) -> None:
    """One event: its decision adds up, and what is posted for it is its decision."""
    decision, facts = each.decision, each.event.facts
    standing = {key: sums for key, sums in lines.items() if any(sums)}
    if decision is not None:
        said = decision.features
        assert all(value in DOMAINS[feature] for feature, value in said.items())
        free = (
            said["is_money"] == "no" or said["provider_billed"] == "no" or said["cache"] == "exact"
        )
        priced = said["usage"] != "missing" and said["is_priced"] == "yes"
        assert (decision.cost is not None) == (facts.flat_cost is not None or free or priced)
    if decision is None or decision.cost is None or decision.charge is None:
        assert standing == {}
        if decision is not None:
            assert (decision.charge, decision.shares, decision.rules) == (None, (), ("P0",))
            assert {"unpriced", "unmeasured"} & set(decision.flags)
        return
    shares = decision.shares
    assert sum(share.cost for share in shares) == decision.cost
    assert sum(share.charge for share in shares) == decision.charge
    assert decision.absorbed == decision.cost - decision.charge
    assert all(share.cost >= 0 and share.charge >= 0 for share in shares)
    for share in shares:
        if share.owner.startswith("@"):
            assert (share.bucket, share.charge) == (share.owner[1:], 0)
            assert (share.pool is not None) == (share.owner == "@platform")
        else:
            assert share.bucket in ("direct", "agent")
            assert share.pool is None
    if decision.is_money:
        period = {line[3] for line in standing}
        assert len(period) == 1
        assert standing == {
            (s.owner, s.bucket, s.pool, *period): [s.cost, s.charge, 1] for s in shares
        }
    else:
        assert decision.cost == 0
        assert standing == {}
    overhead = decision.features["is_overhead"] == "yes" and facts.policy_owner != "tenant"
    if overhead and not facts.members:
        assert {share.owner for share in shares} == {"@platform"}
    if decision.rules[0] == "O1" and "O8" not in decision.rules:
        whole = sum((facts.members or {}).values())
        for share in shares:
            ideal = Fraction(decision.cost * (facts.members or {})[share.owner], whole)
            assert abs(share.cost - ideal) < 1


@proving
@given(journals())
def test_decisions_follow_from_what_the_ledger_keeps(journal: Journal) -> None:
    """Invariant 15: the journal, and the policies by their hashes, give every decision again."""
    with closing(settled(journal)) as ledger:
        policies, rules, kept = ledger.policy_parts()
        again = settle_all(
            ledger.journal(),
            [
                Rule(each.effective_from, rules[each.rules], tuple(kept[sha] for sha in each.books))
                for each in policies
            ],
            [record for record in ledger.controls() if isinstance(record, SessionOwner)],
            (GATEWAY,),
        )
        assert decisions(ledger) == again.decisions
        for decision in again.decisions.values():
            assert decision is None or decision.rules_sha256 in rules


_strange = st.sampled_from(["acme", "globex", "s0", "a1", "run:0", "w0:1"])


@proving
@given(journals(distinct=True), st.data())
def test_what_a_client_says_changes_no_amount(journal: Journal, data: st.DataObject) -> None:
    """Invariant 24: claims, and a session, parent or trace that a caller chose."""

    def claimed(seen: Any) -> Any:
        if not isinstance(seen, Observation):
            return seen
        changes: dict[str, Any] = {
            "client_claims": data.draw(st.none() | st.dictionaries(_strange, _strange, max_size=2)),
            "client_request_id": data.draw(st.none() | _strange),
        }
        for name in ("session", "parent"):
            origin = f"{name}_origin"
            if getattr(seen, name) is None or getattr(seen, origin) == "caller":
                changes |= {name: data.draw(st.none() | _strange), origin: "caller"}
        return msgspec.structs.replace(seen, **changes)

    other = Journal(tuple(tuple(map(claimed, batch)) for batch in journal.batches))
    with closing(settled(journal)) as honest, closing(settled(other)) as client:
        assert decisions(client) == decisions(honest)
        assert books(client) == books(honest)
