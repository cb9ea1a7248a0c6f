"""Assignments, and closed periods: late truth is posted in the open month, what is sealed stays."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from costspan.core.config import Config
from costspan.core.decide import load_profile
from costspan.core.journal.records import Assignment, Policy
from costspan.core.money import PICO
from costspan.core.rebuild import nets, rebuild
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.close import CloseError, broken_seals, close_period
from costspan.core.settle.ledger import Ledger, open_url
from costspan.core.settle.merkle import Tree

FEBRUARY, MARCH = 1_770_000_000 * 10**9, 1_773_000_000 * 10**9
NOW = 1_800_000_000 * 10**9  # in January 2027


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(fresh(tmp_path / "ledger.db")) as opened:
        yield opened


def fresh(path: Path | str) -> Ledger:
    ledger = open_url(f"sqlite:///{path}", create=True)
    with ledger.settling(1) as settlement:
        rules = load_profile("billing")
        settlement.keep_rule_set(rules)
        settle(settlement, [], [Policy(rules.sha256, (), 0, "test")])
    return ledger


def keep(ledger: Ledger, *records: Observation | Assignment) -> None:
    seen = [each for each in records if isinstance(each, Observation)]
    said = [each for each in records if isinstance(each, Assignment)]
    with ledger.settling(1) as settlement:
        settle(settlement, seen, said)


def call(number: int, usd: str = "1", tenant: str | None = "acme", **facts: Any) -> Observation:
    facts = {"attempt_id": f"a{number}", "started_at": FEBRUARY, **facts}
    return Observation(
        oid=f"w:{number}", tenant=tenant, provider_result="ok", flat_cost=usd, **facts
    )


def assigned(event: str, tenant: str, at: int = 1) -> Assignment:
    return Assignment(event, tenant, "ann", "the caller was mistaken", at)


def entries(ledger: Ledger) -> list[tuple[str, str, str, str, int]]:
    return [
        (p.event_id, p.line.owner, p.line.effective_period, p.posted_period, p.amount.cost // PICO)
        for _, p in ledger.postings_after(0, 1000)
    ]


def test_an_assignment_moves_an_event_and_what_inherits_from_it(ledger: Ledger) -> None:
    keep(ledger, call(1), call(2, parent="a1", parent_origin="ours", tenant=None))
    assert nets(ledger) == {("acme", "direct", "2026-02"): (2 * PICO, 2 * PICO)}
    keep(ledger, assigned("a1", "globex"))
    assert nets(ledger) == {("globex", "direct", "2026-02"): (2 * PICO, 2 * PICO)}
    keep(ledger, call(3, attempt_id="a1", tenant="initech", tenant_source="principal"))
    (event,) = ledger.events(["a1"])
    assert event.event.facts.tenant_source == "assignment"
    assert nets(ledger) == {("globex", "direct", "2026-02"): (2 * PICO, 2 * PICO)}


@pytest.mark.parametrize("name", ["op", "a1", "w:1"])
def test_assignments_count_in_any_order_and_the_latest_wins(name: str) -> None:
    records: tuple[Observation | Assignment, ...] = (
        call(1, operation_ids=("op",)),
        assigned(name, "globex", 1),
        assigned(name, "initech", 2),
        Observation(oid="w:9", operation_ids=("op",), feature="late"),
    )
    for order in permutations(records):
        with closing(fresh(":memory:")) as ledger:
            for record in order:
                keep(ledger, record)
            assert nets(ledger) == {("initech", "direct", "2026-02"): (PICO, PICO)}, order


def test_an_operation_that_only_attempts_name_is_assigned_with_all_of_them(ledger: Ledger) -> None:
    keep(ledger, call(1, operation_ids=("run",)), call(2, operation_ids=("run",)))
    keep(ledger, assigned("run", "globex"))
    assert nets(ledger) == {("globex", "direct", "2026-02"): (2 * PICO, 2 * PICO)}


def test_an_assigned_batch_is_one_tenants(ledger: Ledger) -> None:
    keep(ledger, call(1, members={"acme": 1, "globex": 3}), assigned("a1", "initech"))
    assert {key[0] for key in nets(ledger)} == {"initech"}


def test_late_truth_is_posted_in_the_open_month(ledger: Ledger) -> None:
    keep(ledger, call(1))
    sealed = close_period(ledger, "2026-02", "ann", "month's end", NOW)
    assert (sealed.postings, broken_seals(ledger)) == (1, [])
    keep(ledger, call(2), call(3, usd="4", attempt_id="a1"), call(4, started_at=MARCH))
    keep(ledger, assigned("a1", "globex"))
    assert entries(ledger) == [
        ("a1", "acme", "2026-02", "2026-02", 1),
        ("a1", "acme", "2026-02", "2026-03", 3),
        ("a2", "acme", "2026-02", "2026-03", 1),
        ("a4", "acme", "2026-03", "2026-03", 1),
        ("a1", "acme", "2026-02", "2026-03", -4),
        ("a1", "globex", "2026-02", "2026-03", 4),
    ]
    close_period(ledger, "2026-12", "ann", "year's end", NOW)
    keep(ledger, call(5))
    assert entries(ledger)[-1] == ("a5", "acme", "2026-02", "2027-01", 1)
    first, second = ledger.closes()
    assert (first, second.postings, broken_seals(ledger)) == (sealed, 5, [])


@pytest.mark.parametrize(
    "period", ["2026-02", "2026-01", "2026-13", "2026", "٢٠٢٦-٠٢", "", "2027-01", "9999-12"]
)
def test_what_is_closed_or_no_period_is_refused(ledger: Ledger, period: str) -> None:
    keep(ledger, call(1))
    close_period(ledger, "2026-02", "ann", "month's end", NOW)
    with pytest.raises(CloseError, match=r"no period|is closed|not over"):
        close_period(ledger, period, "ann", "again", NOW)
    assert len(ledger.closes()) == 1


def test_a_changed_amount_breaks_the_seal(ledger: Ledger, tmp_path: Path) -> None:
    keep(ledger, call(1), call(2))
    sealed = close_period(ledger, "2026-02", "ann", "month's end", NOW)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as foreign, foreign:
        foreign.execute("DROP TRIGGER postings_no_update")
        foreign.execute("UPDATE postings SET cost = cost + 1 WHERE event_id = 'a2'")
    assert broken_seals(ledger) == [sealed]


def test_a_rebuild_keeps_what_was_sealed_or_given_away(ledger: Ledger, tmp_path: Path) -> None:
    loose = Observation(
        oid="f:1", operation_ids=("run",), tenant="acme", provider_result="ok", flat_cost="7",
        started_at=FEBRUARY,
    )  # fmt: skip
    keep(ledger, call(1), call(2), loose)
    close_period(ledger, "2026-02", "ann", "month's end", NOW)
    # One is revised and assigned, another turns out to be evidence on an attempt of its own.
    keep(ledger, call(3, usd="4", attempt_id="a1"), assigned("a1", "globex"))
    keep(ledger, call(4, operation_ids=("run",), started_at=MARCH))
    with ledger.settling(1) as settlement:
        settlement.move_cursor("somebody", 5)
    keep(ledger, call(5, usd="2", attempt_id="a2"), call(6, usd="3", attempt_id="a2"))
    given = ledger.postings_after(0, 5)
    before = nets(ledger), list(ledger.sealed("2026-02")), ledger.closes()
    rebuild(Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path))
    assert (nets(ledger), list(ledger.sealed("2026-02")), ledger.closes()) == before
    assert ledger.postings_after(0, 5) == given
    assert ledger.cursors() == {"somebody": 5}
    assert broken_seals(ledger) == []
    assert [each for each in entries(ledger) if each[0] == "run"] == [
        ("run", "acme", "2026-02", "2026-02", 7),
        ("run", "acme", "2026-02", "2026-03", -7),
    ]
    rebuild(Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path))
    assert (nets(ledger), list(ledger.sealed("2026-02")), ledger.closes()) == before


def test_an_import_may_say_when_an_entry_was_posted(ledger: Ledger, tmp_path: Path) -> None:
    """Its later word on the same event is posted elsewhere; a rebuild keeps both, or neither."""
    keep(ledger, call(1, "10", period="2026-05"), call(7, "3", period="whenever"))
    keep(
        ledger,
        call(2, "15", attempt_id="a1", period="2026-02", layer="provider"),
        call(8, "4", attempt_id="a7", layer="provider"),
    )
    close_period(ledger, "2026-02", "ann", "month's end", NOW)
    before = nets(ledger), entries(ledger)
    assert before[0] == {("acme", "direct", "2026-02"): (19 * PICO, 19 * PICO)}
    rebuild(Config(ledger=str(tmp_path / "ledger.db"), spool=tmp_path))
    assert (nets(ledger), entries(ledger)) == before


def test_the_tree_is_that_of_rfc_6962() -> None:
    """The roots of the test vectors of the certificate transparency reference code."""
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657",
              "606162636465666768696a6b6c6d6e6f"]  # fmt: skip
    tree = Tree()
    assert tree.root() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    roots: list[str] = []
    for leaf in leaves:
        tree.add(bytes.fromhex(leaf))
        roots.append(tree.root())
    assert roots[0] == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert roots[1] == "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    assert roots[7] == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
