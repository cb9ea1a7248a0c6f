"""Bugs of the kind that this software could have had: each replaces a part of it by a wrong one.

For each the invariants by which the simulator may find it.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from typing import Any, NamedTuple

import msgspec

from costspan.core import drain, rebuild
from costspan.core.decide import Share
from costspan.core.join.precedence import is_sweep
from costspan.core.journal import ladder, ring, rung, segment, spool
from costspan.core.recorder import Recorder
from costspan.core.settle import decisions, posting
from costspan.core.settle.entries import Appended
from costspan.plugins.ledgers import appending
from costspan.plugins.ledgers.sqlite import journal, settlement, store
from simulator import files
from simulator.hosts import replaced

settle = import_module("costspan.core.settle.settle")
"""The module: its package has a function of that name."""


class Bug(NamedTuple):
    """A bug, and what it breaks."""

    name: str
    breaks: frozenset[int | str]
    plant: Callable[[], AbstractContextManager[None]]
    seed: int
    """Of the runs that find it soonest; others find it too."""


BUGS: list[Bug] = []


def bug(*breaks: int | str, seed: int = 1) -> Callable[[Callable[[], Generator[None]]], None]:
    """Register a bug."""

    def register(plant: Callable[[], Generator[None]]) -> None:
        name = plant.__name__
        BUGS.append(Bug(name, frozenset(breaks), contextmanager(plant), seed))

    return register


def nothing(*given: object) -> frozenset[Any]:
    """Nothing is found."""
    return frozenset()


# --- the spool -----------------------------------------------------------------------------------


@bug("torn", seed=5)
def half_a_frame_is_left_after_a_short_write() -> Generator[None]:
    def cut(self: segment.Segment) -> None:
        self.size_bytes = len(self._files.read(self._fd))  # type: ignore[attr-defined]
        self.is_suspect = False

    with replaced(segment.Segment, "_cut", cut):
        yield


@bug(6, seed=1)
def acknowledged_before_it_is_written() -> Generator[None]:
    right = segment.Segment.append
    waiting: dict[int, bytes] = {}

    def append(self: segment.Segment, frames: bytes) -> None:
        first = waiting.pop(id(self), b"")
        if self.size_bytes == 0:
            right(self, frames)
            return
        if first:
            right(self, first)
        waiting[id(self)] = frames

    with replaced(segment.Segment, "append", append):
        yield


@bug(7, seed=8)
def a_failed_write_takes_a_number() -> Generator[None]:
    right = ladder.Ladder._write_numbered

    def write_numbered(self: ladder.Ladder, now_ns: int) -> bool:
        written = right(self, now_ns)
        if not written:
            first, entries = self._numbered
            self.last_seq += 1
            self._numbered = (first + 1, entries)
        return written

    with replaced(ladder.Ladder, "_write_numbered", write_numbered):
        yield


@bug(6, "descriptors", seed=1)
def the_lock_is_released_in_the_child() -> Generator[None]:
    with replaced(segment.Segment, "abandon", segment.Segment.close):
        yield


@bug(6, seed=1)
def a_child_goes_on_as_its_parents_writer() -> Generator[None]:
    def after_fork(self: Recorder) -> None:
        pass

    with replaced(Recorder, "after_fork", after_fork):
        yield


@bug(6, seed=4)
def what_was_held_is_lost_when_the_disk_is_well_again() -> Generator[None]:
    right = ring.Ring.first

    def first(self: ring.Ring, bytes_max: int) -> Any:
        taken = right(self, bytes_max)
        self.entries.clear()
        return taken[:1]

    with replaced(ring.Ring, "first", first):
        yield


@bug(7, seed=4)
def a_refusal_is_not_counted() -> Generator[None]:
    with replaced(ladder, "refuse", ladder.Refused):
        yield


@bug(6, seed=10)
def a_segment_that_is_full_is_never_synced() -> Generator[None]:
    right = rung.Rung._shut

    def shut(self: rung.Rung, left: segment.Segment, fd: int | None) -> None:
        if fd is not None:
            self._close(fd)
        right(self, left, None)

    with replaced(rung.Rung, "_shut", shut):
        yield


@bug(6, seed=7)
def the_names_of_segments_are_never_synced() -> Generator[None]:
    def sync_name(self: segment.Segment) -> None:
        self.is_name_synced = True

    with replaced(segment.Segment, "sync_name", sync_name):
        yield


@bug(17, 7, 6, seed=5)
def a_full_disk_raises_into_the_host() -> Generator[None]:
    def fail(self: rung.Rung, error: OSError, began_ns: int) -> None:
        raise error

    with replaced(rung.Rung, "fail", fail):
        yield


# --- the drain -----------------------------------------------------------------------------------


@bug(6, seed=1)
def a_segment_goes_before_its_records_are_committed() -> Generator[None]:
    right = drain._Batch._add

    def add(self: Any, claimed: Any) -> None:
        right(self, claimed)
        spool.finish(claimed.content, self._files)

    with replaced(drain._Batch, "_add", add):
        yield


@bug(6, seed=3)
def a_living_writers_segment_is_drained() -> Generator[None]:
    right = files.SimulatedFiles.lock

    def lock(self: files.SimulatedFiles, fd: int) -> bool:
        right(self, fd)
        return True

    with replaced(files.SimulatedFiles, "lock", lock):
        yield


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
