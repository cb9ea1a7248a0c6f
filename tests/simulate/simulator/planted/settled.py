"""Bugs of the settlement and of the rebuild."""

from __future__ import annotations

import builtins
from collections.abc import Generator
from importlib import import_module
from typing import Any

import msgspec

from costspan.core import rebuild
from costspan.core.decide import Share
from costspan.core.join.precedence import is_sweep
from costspan.core.settle import decisions, posting
from costspan.core.settle.entries import Appended
from costspan.plugins.ledgers import appending
from costspan.plugins.ledgers.sqlite import journal, settlement, store
from simulator.hosts import replaced
from simulator.planted.bug import bug, nothing

settle = import_module("costspan.core.settle.settle")
"""The module: its package has a function of that name."""


# --- the settlement ------------------------------------------------------------------------------


@bug(8, seed=4)
def the_roll_up_counts_ignored_duplicates() -> Generator[None]:
    right = journal.JournalTables.append

    def append(self: Any, observations: Any) -> Appended:
        appended = right(self, observations)
        self._db.execute(
            "UPDATE lines SET events = events + ? WHERE id IN (SELECT max(id) FROM lines)",
            (appended.duplicates,),
        )
        return appended

    with replaced(journal.JournalTables, "append", append):
        yield


@bug(23, 5, 19, seed=1)
def children_are_not_told_of_a_parent_that_was_missing() -> Generator[None]:
    right = settle._descendants

    def descendants(draft: Any, names: set[str]) -> set[str]:
        known = {name for each in draft._read.values() for name in each.event.names}
        return right(draft, names & known)

    with replaced(settle, "_descendants", descendants):
        yield


@bug(23, 5, 19, seed=4)
def sessions_are_not_decided_again_for_another_owner() -> Generator[None]:
    with replaced(settle, "_dirtied_by_sessions", nothing):
        yield


@bug(22, 5, 19, seed=3)
def a_reversal_ignores_the_assignment() -> Generator[None]:
    right = posting.entries_of

    def entries_of(event: Any, posted: Any, target: Any, closed_until: Any) -> Any:
        is_assigned = event.facts.tenant_source == "assignment"
        return right(event, () if is_assigned else posted, target, closed_until)

    with replaced(settle, "entries_of", entries_of):
        yield


@bug(23, 5, 19, seed=1)
def an_end_is_lost_when_its_start_comes_later() -> Generator[None]:
    right = settle.component

    def component(settlement: Any, seeds: Any, lost: Any, gateways: Any) -> Any:
        found = right(settlement, seeds, lost, gateways)
        if seeds and all(seen.phase == "start" for seen in seeds):
            return found._replace(observations=list(seeds))
        return found

    with replaced(settle, "component", component):
        yield


@bug(23, 7, seed=4)
def a_sweep_beats_the_real_end() -> Generator[None]:
    right = settle.merge

    def merge(event_id: str, spoken: Any) -> Any:
        if any(is_sweep(each.observation) for each in spoken):
            spoken = [
                each
                for each in spoken
                if each.observation.phase == "start" or is_sweep(each.observation)
            ]
        return right(event_id, spoken)

    with replaced(settle, "merge", merge):
        yield


@bug(10, seed=1)
def late_truth_is_posted_into_a_closed_period() -> Generator[None]:
    def posted_period(period: str, closed_until: str | None) -> str:
        return period

    with replaced(posting, "posted_period", posted_period):
        yield


@bug(23, 5, 19, seed=3)
def a_new_policy_decides_nothing_again() -> Generator[None]:
    with replaced(settlement.SqliteSettlement, "started_since", nothing):
        yield


@bug(23, 5, 19, seed=2)
def of_two_payloads_the_first_wins() -> Generator[None]:
    def ordered(items: Any, key: Any = None) -> Any:
        return list(items) if key is appending.payload_hash else builtins.sorted(items, key=key)

    with replaced(appending, "sorted", ordered):
        yield


@bug(1, 2, 3, 23, seed=2)
def shares_are_rounded_as_floats() -> Generator[None]:
    right = decisions.decide

    def rounded(amount: int, whole: int | None) -> int:
        return round(amount / whole * float(whole)) if whole else 0

    def decide(*given: Any) -> Any:
        decision = right(*given)
        shares = tuple(
            Share(
                each.owner, each.bucket, each.pool,
                rounded(each.cost, decision.cost), rounded(each.charge, decision.charge),
            )
            for each in decision.shares
        )  # fmt: skip
        return msgspec.structs.replace(decision, shares=shares)

    with replaced(decisions, "decide", decide):
        yield


@bug(12, 23, seed=1)
def what_is_unpriced_costs_nothing() -> Generator[None]:
    right = decisions.decide

    def decide(*given: Any) -> Any:
        decision = right(*given)
        if decision.cost is None:
            decision = msgspec.structs.replace(decision, cost=0, charge=0)
        return decision

    with replaced(decisions, "decide", decide):
        yield


@bug(8, 22, 23, 6, seed=2)
def a_settlement_that_failed_is_kept_in_part() -> Generator[None]:
    def roll_back(self: store.SqliteLedger) -> None:
        if self.connection.in_transaction:
            self.connection.execute("COMMIT")

    with replaced(store.SqliteLedger, "_roll_back", roll_back):
        yield


# --- the rebuild ---------------------------------------------------------------------------------


@bug(10, 19, "sinks", seed=3)
def a_rebuild_decides_anew_what_is_sealed() -> Generator[None]:
    with replaced(store.SqliteLedger, "given_away", nothing):
        yield


@bug(5, 19, 6, seed=1)
def a_rebuild_forgets_the_losers_of_a_conflict() -> Generator[None]:
    right = store.SqliteLedger.journal

    def kept(self: store.SqliteLedger) -> Any:
        losers = {row[0] for row in self.connection.execute("SELECT sha256 FROM conflicts")}
        return (seen for seen in right(self) if appending.payload_hash(seen) not in losers)

    right_copy = rebuild.copy_books

    def copy_books(old: Any, new: Any, *given: Any, **named: Any) -> Any:
        with replaced(store.SqliteLedger, "journal", kept):
            return right_copy(old, new, *given, **named)

    with replaced(rebuild, "copy_books", copy_books):
        yield
