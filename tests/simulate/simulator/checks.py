"""The invariants of the books (DESIGN.md section 11), each by its number.

What is checked reads the ledger through a connection of its own: only what was committed counts.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

import oracle
from msgspec.structs import astuple

from costspan.core.decide import Decision
from costspan.core.journal.records import Assignment, Close, SessionOwner
from costspan.core.schema import Observation
from costspan.core.settle.close import broken_seals
from costspan.core.settle.entries import Posting, Settled
from costspan.core.settle.ledger import Ledger
from costspan.plugins.ledgers.sqlite.store import SqliteLedger
from simulator import naive

EVERYTHING = 2**62
Numbered = list[tuple[int, Posting]]


class Violation(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: int | str, text: str) -> None:
        super().__init__(f"invariant {invariant}: {text}")
        self.invariant = invariant


def check(holds: bool, invariant: int | str, *said: object) -> None:
    """Raise unless it holds."""
    if not holds:
        raise Violation(invariant, " ".join(map(str, said)))


class Books:
    """What the ledger said so far, and whether it may say what it says now."""

    def __init__(self, path: str) -> None:
        self.ledger = SqliteLedger(path, create=False)
        self._version = -1
        self.postings: Numbered = []
        self.marks: Counter[str] = Counter()
        self.sealed: dict[str, Numbered] = {}
        self.taken: dict[str, Numbered] = {}

    def close(self) -> None:
        self.ledger.close()

    def check_changes(self, is_rebuilt: bool = False) -> None:
        """If anything was committed: every invariant of the books that costs little.

        Of books that were rebuilt, only what is sealed or was given away has to be the same.
        """
        if self.is_changed():
            if is_rebuilt:
                self.postings = []
            self.check_all()

    def is_changed(self) -> bool:
        """Whether anybody committed since this was asked."""
        (version,) = self.ledger.connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        return bool(before != version)

    def read_marks(self) -> Counter[str]:
        """How often each marked observation is in the journal, losers of a conflict included."""
        self.marks = Counter(
            seen.request_id for seen in self.ledger.journal() if seen.request_id is not None
        )
        return self.marks

    def check_all(self) -> None:
        ledger = self.ledger
        journal = list(ledger.journal())
        events = list(ledger.events())
        postings = list(ledger.postings_after(0, EVERYTHING))
        check(postings[: len(self.postings)] == self.postings, 9, "a posting was changed")
        self.postings = postings
        self._check_marks(journal)
        self._check_sealed(postings)
        self._check_taken(postings)
        check_roll_up(ledger, postings)
        check_counts(ledger, events)
        check_events(events, postings)
        check_sums(ledger, events)
        check_oracle(ledger, journal, events)

    def _check_marks(self, journal: list[Observation]) -> None:
        """6: what was settled is settled once, and stays."""
        marks = Counter(seen.request_id for seen in journal if seen.request_id is not None)
        twice = [mark for mark, times in marks.items() if times > 1]
        check(not twice, 6, "settled twice:", twice)
        gone = self.marks - marks
        check(not gone, 6, "gone from the journal:", sorted(gone))
        self.marks = marks

    def _check_sealed(self, postings: Numbered) -> None:
        """10: nothing is posted into a closed period, and what was sealed is as it was."""
        for close, sealed in sealed_by(closes(self.ledger), postings):
            before = self.sealed.setdefault(close.period, sealed)
            check(sealed == before, 10, close.period, "was", before, "and is", sealed)
            check(len(sealed) == close.postings, 10, close, "seals", len(sealed))
        broken = broken_seals(self.ledger)
        check(not broken, 10, "the root is another:", broken)

    def _check_taken(self, postings: Numbered) -> None:
        """A sink may ask again for what it took: the same numbers, the same entries."""
        for sink, number in self.ledger.cursors().items():
            taken = [each for each in postings if each[0] <= number]
            before = self.taken.get(sink, [])
            check(taken[: len(before)] == before, "sinks", sink, "took", before, "and now", taken)
            self.taken[sink] = taken


def sealed_by(closes: Iterable[Close], postings: Numbered) -> Iterator[tuple[Close, Numbered]]:
    """What each close sealed: everything posted up to its period, and after the one before it."""
    after = ""
    for close in closes:
        yield close, [each for each in postings if after < each[1].posted_period <= close.period]
        after = close.period


def closes(ledger: Ledger) -> list[Close]:
    """The periods closed so far."""
    found = [record for record in ledger.controls() if isinstance(record, Close)]
    return sorted(found, key=lambda close: close.period)


def check_roll_up(ledger: Ledger, postings: Numbered) -> None:
    """8: the roll-up is what the postings sum up to."""
    sums: dict[Any, list[int]] = {}
    for _, each in postings:
        total = sums.setdefault((*astuple(each.line), each.posted_period), [0, 0, 0])
        total[0] += each.amount.cost
        total[1] += each.amount.charge
        total[2] += each.events
    standing = {key: total for key, total in sums.items() if any(total)}
    rolled = {
        (*astuple(each.line), each.posted_period): [each.cost, each.charge, each.events]
        for each in ledger.roll_ups()
    }
    check(standing == rolled, 8, "recomputed", standing, "but rolled up", rolled)


def check_counts(ledger: Ledger, events: list[Settled]) -> None:
    """7: every event is open, or swept, or somebody saw its end."""
    counts = ledger.counts()
    said = (counts["events"], counts["open"], counts["swept"])
    is_open = sum(each.event.is_open for each in events)
    is_swept = sum(each.event.is_swept for each in events)
    check(said == (len(events), is_open, is_swept), 7, said, len(events), is_open, is_swept)


def check_events(events: list[Settled], postings: Numbered) -> None:
    """2, 12 and 22: each decision adds up, and what is posted for an event is its decision."""
    lines: dict[str, dict[Any, list[int]]] = defaultdict(dict)
    for _, each in postings:
        line = each.line
        key = (line.owner, line.bucket, line.pool, line.effective_period, line.day, line.model)
        sums = lines[each.event_id].setdefault(key, [0, 0, 0])
        sums[0] += each.amount.cost
        sums[1] += each.amount.charge
        sums[2] += each.events
    for settled in events:
        event_id, decision = settled.event.id, settled.decision
        posted = {key: sums for key, sums in lines.pop(event_id, {}).items() if any(sums)}
        check_decision(event_id, settled.event.facts, decision)
        standing = {astuple(line): [*astuple(amount), 1] for line, amount in settled.posted}
        check(posted == standing, 22, event_id, "is posted", posted, "not", standing)
        shares: dict[Any, list[int]] = {}
        if decision is not None and decision.cost is not None and decision.is_money:
            shares = {
                (each.owner, each.bucket, each.pool): [each.cost, each.charge, 1]
                for each in decision.shares
            }
        owed = {key[:3]: sums for key, sums in posted.items()}
        check(owed == shares, 22, event_id, "is posted", owed, "but decided", shares)
    left = {event_id: sums for event_id, sums in lines.items() if any(map(any, sums.values()))}
    check(not left, 22, "posted for what is no event:", left)


def check_decision(event_id: str, facts: Observation, decision: Decision | None) -> None:
    """1, 2, 3 and 12 for one event."""
    if decision is None:
        return
    if decision.cost is None or decision.charge is None:
        unknown = (decision.cost, decision.charge, tuple(decision.shares)) == (None, None, ())
        check(unknown, 12, event_id, "of unknown cost has amounts", decision)
        return
    if decision.rules[:1] == ("O1",) and "O8" not in decision.rules:
        members = facts.members or {}
        whole = sum(members.values())
        for share in decision.shares:
            ideal = Fraction(decision.cost * members[share.owner], whole)
            check(abs(share.cost - ideal) < 1, 3, event_id, share, "of", ideal)
    cost = sum(each.cost for each in decision.shares)
    charge = sum(each.charge for each in decision.shares)
    check(cost == decision.cost, 1, event_id, "costs", decision.cost, "shared out", cost)
    check(charge == decision.charge, 2, event_id, "charge", decision.charge, "shared out", charge)
    check(decision.absorbed == decision.cost - decision.charge, 2, event_id, "absorbed", decision)


def check_sums(ledger: Ledger, events: Iterable[Settled]) -> None:
    """1: what the provider is owed is what the tenants, the platform and nobody bear together."""
    total = charged = 0
    for each in events:
        decision = each.decision
        if decision is not None and decision.is_money:
            total += decision.cost or 0
            charged += decision.charge or 0
    borne: Counter[str] = Counter()
    charge = 0
    for rolled in ledger.roll_ups():
        owner = rolled.line.owner
        borne[owner if owner.startswith("@") else "tenants"] += rolled.cost
        charge += rolled.charge
    check(sum(borne.values()) == total, 1, "cost", total, "is borne as", dict(borne))
    check(charge == charged, 2, "charge", charged, "stands as", charge)


def check_oracle(ledger: Ledger, journal: list[Observation], events: list[Settled]) -> None:
    """23: the incremental settlement equals the naive one."""
    full = full_settlement(ledger, journal)
    check({each.event.id: each.event for each in events} == full.events, 23, "other events")
    for each in events:
        event_id, decision = each.event.id, full.decisions[each.event.id]
        check(each.decision == decision, 23, event_id, *different(each.decision, decision))
    problems = set(ledger.problems())
    check(problems == full.problems, 23, "problems", problems, "not", full.problems)


def different(was: Decision | None, now: Decision | None) -> list[str]:
    """The fields that differ."""
    if was is None or now is None:
        return [f"was {was}, should be {now}"]
    fields = [
        (f"{of}{name}", getattr(here, name), getattr(there, name))
        for of, here, there in (("", was, now), ("ruling.", was.ruling, now.ruling))
        for name in here.__struct_fields__
        if name != "ruling"
    ]
    return [f"{name} was {a!r}, should be {b!r};" for name, a, b in fields if a != b]


def full_settlement(ledger: Ledger, journal: list[Observation]) -> oracle.Settlement:
    """The naive settlement of what the ledger keeps."""
    policies, rules, books = ledger.policy_parts()
    controls = ledger.controls()
    return naive.settle_all(
        journal,
        [
            oracle.Rule(each.effective_from, rules[each.rules], tuple(books[b] for b in each.books))
            for each in policies
        ],
        [record for record in controls if isinstance(record, SessionOwner)],
        [record for record in controls if isinstance(record, Assignment)],
    )


def check_refuses_changes(ledger: SqliteLedger) -> None:
    """9: the ledger itself refuses to change a posting."""
    for change in ("UPDATE postings SET cost = cost + 1", "DELETE FROM postings"):
        connection = ledger.connection
        connection.execute("BEGIN")
        try:
            changed = connection.execute(change).rowcount
        except sqlite3.IntegrityError:
            changed = 0
        finally:
            connection.execute("ROLLBACK")
        check(changed == 0, 9, "the ledger let", changed, "postings be changed")
