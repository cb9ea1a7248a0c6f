"""Sums by cost centre and parent: what the directory says of an owner in an amount's own month."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import at, call, keep, shelf

from costspan.core.journal.records import FreeLine
from costspan.core.money import PICO, parse_usd
from costspan.core.read.books import Books
from costspan.core.read.directory import Directory, Entry
from costspan.core.read.grouping import Grouping, Selection
from costspan.core.read.sheet import of_events, of_lines
from costspan.core.settle import settle
from costspan.core.settle.free import free_postings
from costspan.core.settle.ledger import Ledger

DIRECTORY = Directory(
    [
        Entry(tenant="group"),
        Entry(tenant="acme", cost_centre="CC-1", parent="group", until="2026-11-30"),
        Entry(tenant="acme", cost_centre="CC-2", since="2026-11-30"),
        Entry(tenant="globex", cost_centre="CC-1", parent="group"),
    ]
)
OVERHEAD: dict[str, Any] = {"tenant": None, "tenant_source": None, "initiator": "platform"}


def books() -> Ledger:
    """Acme 1 USD in October and 2 in November, globex 4, a stranger 8, the platform 16, nobody 32;
    of the platform's 3 go to globex.
    """
    ledger = shelf()
    keep(
        ledger,
        call(1, day="2026-10-31"),
        call(2, flat_cost="2"),
        call(3, flat_cost="4", tenant="globex"),
        call(4, flat_cost="8", tenant="stranger"),
        call(5, flat_cost="16", cause="safety", **OVERHEAD),
        call(6, flat_cost="32", tenant=None, tenant_source=None),
    )
    lines = [("@platform", -3), ("globex", 3)]
    record = free_postings(
        kind="allocation", period="2026-11", about={}, by="ann", reason="end", recorded_at=1,
        lines=[FreeLine(who, "allocated", "safety", "", "", usd * PICO, 0) for who, usd in lines],
    )  # fmt: skip
    with ledger.settling(1) as settlement:
        settle(settlement, [], [record])
    return ledger


def costs(ledger: Ledger, by: str, **selection: Any) -> dict[tuple[str, ...], int]:
    """Key -> whole USD."""
    found = Books(ledger).sheet(by, directory=DIRECTORY, **selection)
    assert found.is_balanced
    fields = tuple(field.strip() for field in by.split(","))
    return {
        tuple(row[field] for field in fields): parse_usd(row["cost"]) // PICO for row in found.rows
    }


def test_each_amount_is_where_its_owner_was_at_the_end_of_its_month() -> None:
    rest = {("",): 8, ("@platform",): 13, ("@unattributed",): 32}
    with closing(books()) as ledger:
        assert costs(ledger, "cost_centre") == {("CC-1",): 1 + 7, ("CC-2",): 2, **rest}
        assert costs(ledger, "parent_tenant") == {**rest, ("group",): 1 + 7, ("",): 8 + 2}
        assert costs(ledger, "cost_centre,period") == {
            ("CC-1", "2026-10"): 1, ("CC-1", "2026-11"): 7, ("CC-2", "2026-11"): 2,
            ("", "2026-11"): 8, ("@platform", "2026-11"): 13, ("@unattributed", "2026-11"): 32,
        }  # fmt: skip
        assert costs(ledger, "cost_centre", period="2026-10") == {("CC-1",): 1}
        assert costs(ledger, "cost_centre", until=at("2026-11-01")) == {("CC-1",): 1}


def test_it_is_read_from_the_roll_up_unless_another_field_is_not_there() -> None:
    with closing(books()) as ledger:
        sheet = Books(ledger).sheet("cost_centre,bucket", directory=DIRECTORY)
        assert sheet.is_rolled_up
        assert not Books(ledger).sheet("cost_centre,cause", directory=DIRECTORY).is_rolled_up
        by_cause = costs(ledger, "cost_centre,cause")
    assert by_cause["@platform", "safety"] == 16
    assert by_cause["@platform", ""] == -3  # what went out is of no event
    assert by_cause["CC-1", "primary"] == 5


def test_what_an_event_calls_its_parent_is_another_thing() -> None:
    with closing(books()) as ledger:
        keep(ledger, call(7, parent="a000001"))
        assert ("a000001",) in costs(ledger, "parent")
        with pytest.raises(ValueError, match="cost_centre is of the tenant directory"):
            Books(ledger).sheet("owner,cost_centre")


TENANTS = ("acme", "globex", "initech")
DAYS = ("2026-10-31", "2026-11-01", "2026-11-30", "2026-12-31")


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.sampled_from((*TENANTS, None)), st.sampled_from(DAYS)), max_size=8),
    st.dictionaries(st.sampled_from(TENANTS), st.sampled_from(["2026-11-15", "2026-12-01", ""])),
    st.lists(
        st.sampled_from(["cost_centre", "parent_tenant", "owner", "day", "bucket", "period"]),
        min_size=1, max_size=3, unique=True,
    ),
)  # fmt: skip
def test_lines_and_events_say_the_same_and_nothing_is_lost(
    calls: list[tuple[str | None, str]], moves: dict[str, str], by: list[str]
) -> None:
    entries = [Entry(tenant="group")]
    for tenant, day in moves.items():
        entries.append(Entry(tenant=tenant, cost_centre="old", parent="group", until=day or None))
        if day:
            entries.append(Entry(tenant=tenant, cost_centre=f"new {tenant}", since=day))
    directory = Directory(entries)
    with closing(shelf()) as ledger:
        for number, (owner, day) in enumerate(calls):
            source = {"tenant": owner, "tenant_source": "principal" if owner else None}
            keep(ledger, call(number, day=day, **source))
        found: list[Any] = []
        for way in (of_lines, of_events):
            grouping = Grouping(tuple(by), directory)
            groups, sums = way(ledger, grouping, Selection())
            found.append((list(grouping.rows(groups)), sums))
    assert found[0] == found[1]
    assert sum(parse_usd(row["cost"]) for row, _ in found[0][0]) == len(calls) * PICO
