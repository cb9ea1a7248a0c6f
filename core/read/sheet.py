"""Sums by any fields: from the roll-up where its lines have them all, else from every event."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import msgspec

from costspan.core.decide.decision import PLATFORM, UNATTRIBUTED
from costspan.core.join import Event
from costspan.core.money import format_usd
from costspan.core.read.grouping import Group, Grouping, Key, Selection
from costspan.core.schema import Observation
from costspan.core.settle.entries import Line, Settled
from costspan.core.settle.free import FREE_BUCKETS, target_of_free
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.posting import would_be

_UNMATCHED = ("unmatched", "unmatched_downstream")


class Sums(msgspec.Struct):
    """Totals in pico-USD and counts; `unpriced` counts the swept ones of unknown cost too."""

    cost: int = 0
    charge: int = 0
    platform: int = 0
    unattributed: int = 0
    unpriced: int = 0
    open: int = 0
    swept: int = 0
    is_balanced: bool = True

    def count(self, each: Settled) -> None:
        """Count what an event is, whatever it costs."""
        self.swept += each.event.is_swept
        if each.decision is None:
            self.open += 1
        elif each.decision.cost is None:
            self.unpriced += 1


class Sheet(msgspec.Struct, frozen=True):
    """Rows and totals as `Books.totals` gives them.

    `unpriced` says of each row how many events of unknown cost belong to it, `is_rolled_up`
    whether the sums are those of the roll-up's lines or of the events themselves.
    """

    rows: list[dict[str, Any]]
    totals: dict[str, Any]
    is_balanced: bool
    unpriced: list[int]
    is_rolled_up: bool

    def plain(self) -> dict[str, Any]:
        """As plain JSON values; amounts are decimal strings of USD."""
        return {"rows": self.rows, "totals": self.totals, "balanced": self.is_balanced}


def sheet_of(ledger: Ledger, grouping: Grouping, selection: Selection) -> Sheet:
    """The sheet; the two ways give the same one, but for what `is_balanced` has compared."""
    names, days = grouping.of_line, selection.days
    if names is None or days is None:
        groups, sums = of_events(ledger, grouping, selection)
    else:
        groups, sums = of_lines(ledger, grouping, selection)
    unmatched = ledger.counts(*_UNMATCHED)
    totals = {
        "cost": format_usd(sums.cost),
        "charge": format_usd(sums.charge),
        "absorbed": format_usd(sums.cost - sums.charge),
        "platform": format_usd(sums.platform),
        "unattributed": format_usd(sums.unattributed),
        "unpriced_events": sums.unpriced,
        "open": sums.open,
        "swept": sums.swept,
        "unmatched": sum(unmatched.values()),
    }
    rows = list(grouping.rows(groups))
    return Sheet(
        [row for row, _ in rows],
        totals,
        sums.is_balanced,
        [unpriced for _, unpriced in rows],
        names is not None and days is not None,
    )


def of_lines(
    ledger: Ledger, grouping: Grouping, selection: Selection
) -> tuple[dict[Key, Group], Sums]:
    """From the roll-up, and the few events of which its lines do not tell all.

    Balanced is what has no amount without an event that it stands for, but free postings. That
    every line is the sum of its postings, and every event's postings its decision, `is_balanced`
    finds.
    """
    names, days = grouping.of_line, selection.days
    assert names is not None
    assert days is not None
    chosen = {"period": selection.period, "since_day": days[0], "until_day": days[1]}
    sums = Sums()
    groups: dict[Key, Group] = {}
    for (bucket, *rest), (cost, charge, events) in ledger.sums(("bucket", *names), **chosen):
        key = grouping.key_of_line(dict(zip(names, rest, strict=True)))
        group = groups.setdefault(key, Group())
        group.cost += cost
        group.charge += charge
        group.events += events
        sums.cost += cost
        sums.charge += charge
        is_free = bucket in FREE_BUCKETS
        if events < 0 or (not events and not is_free and (cost or charge)) or (is_free and events):
            sums.is_balanced = False
    for _, (cost, _, _) in ledger.sums((), owner=PLATFORM, **chosen):
        sums.platform += cost
    for _, (cost, _, _) in ledger.sums((), owner=UNATTRIBUTED, **chosen):
        sums.unattributed += cost
    for each in ledger.untold():
        if selection.has(each):
            sums.count(each)
            _count_unpriced(groups, grouping, each)
            # It stands on several lines of one group: there it is one event all the same.
            keys = [grouping.key(each, line) for line, _ in each.posted]
            for key in set(keys):
                groups.setdefault(key, Group()).events -= keys.count(key) - 1
    return groups, sums


def of_events(
    ledger: Ledger, grouping: Grouping, selection: Selection
) -> tuple[dict[Key, Group], Sums]:
    """From every event, one at a time.

    Balanced is what every event's decision says, and, unless a span of time was chosen, what the
    roll-up says too.
    """
    sums = Sums()
    groups: dict[Key, Group] = {}
    for each in ledger.events():
        if not selection.has(each):
            continue
        sums.count(each)
        sums.is_balanced = sums.is_balanced and is_as_decided(each)
        _count_unpriced(groups, grouping, each)
        keys: set[Key] = set()
        for line, amount in each.posted:
            key = grouping.key(each, line)
            group = groups.setdefault(key, Group())
            group.cost += amount.cost
            group.charge += amount.charge
            group.events += key not in keys
            keys.add(key)
            sums.cost += amount.cost
            sums.charge += amount.charge
            if line.owner == PLATFORM:
                sums.platform += amount.cost
            elif line.owner == UNATTRIBUTED:
                sums.unattributed += amount.cost
    _add_free(ledger, grouping, selection, groups, sums)
    if selection.since is None and selection.until is None:
        for _, (cost, charge, _) in ledger.sums((), period=selection.period):
            sums.is_balanced = sums.is_balanced and (cost, charge) == (sums.cost, sums.charge)
    return groups, sums


def _add_free(
    ledger: Ledger,
    grouping: Grouping,
    selection: Selection,
    groups: dict[Key, Group],
    sums: Sums,
) -> None:
    """Free postings are of no event: of its fields, they have none but those of a line."""
    for record in ledger.free_postings(selection.period):
        stand_in = Settled(
            event=Event(
                id=record.id, facts=Observation(source=record.kind), outcome="unknown",
                is_open=False, is_swept=False, operation_names=(), oid_names=(), span_names=(),
            )
        )  # fmt: skip
        for line, amount in target_of_free(record):
            if not selection.has_free(line):
                continue
            group = groups.setdefault(grouping.key(stand_in, line), Group())
            group.cost += amount.cost
            group.charge += amount.charge
            sums.cost += amount.cost
            sums.charge += amount.charge
            if line.owner == PLATFORM:
                sums.platform += amount.cost
            elif line.owner == UNATTRIBUTED:
                sums.unattributed += amount.cost


def _count_unpriced(groups: dict[Key, Group], grouping: Grouping, each: Settled) -> None:
    if each.decision is not None and each.decision.cost is None:
        key = grouping.key(each, would_be(each.event, each.decision))
        groups.setdefault(key, Group()).unpriced += 1


def is_as_decided(each: Settled) -> bool:
    """Whether what is posted for an event is what its decision says it costs and is charged."""
    decision = each.decision
    cost = sum([amount.cost for _, amount in each.posted])
    charge = sum([amount.charge for _, amount in each.posted])
    if decision is None or decision.cost is None or not decision.is_money:
        return not each.posted
    return (cost, charge) == (decision.cost, decision.charge)


def is_balanced(ledger: Ledger) -> bool:
    """Every line is the sum of its postings, every event's postings are its decision, sums agree.

    Those of free postings are what their records say. Takes a look at every posting and every
    event, one at a time.
    """
    on_lines, on_free = [0, 0, 0], dict[Line, list[int]]()
    for rolled_up, added_up in zip_longest(ledger.roll_ups(), ledger.added_up()):
        if rolled_up is None or rolled_up != added_up:
            return False
        is_free = rolled_up.line.bucket in FREE_BUCKETS
        sums = on_free.setdefault(rolled_up.line, [0, 0, 0]) if is_free else on_lines
        _add(sums, rolled_up.cost, rolled_up.charge, rolled_up.events)
    for record in ledger.free_postings():
        for line, amount in target_of_free(record):
            _add(on_free.setdefault(line, [0, 0, 0]), -amount.cost, -amount.charge, 0)
    if any(map(any, on_free.values())):
        return False
    of_events = [0, 0, 0]
    for each in ledger.events():
        if not is_as_decided(each):
            return False
        for _, amount in each.posted:
            _add(of_events, amount.cost, amount.charge, 1)
    return on_lines == of_events


def _add(sums: list[int], cost: int, charge: int, events: int) -> None:
    sums[0] += cost
    sums[1] += charge
    sums[2] += events
