"""Pools of a real ledger are shared out: in = out, only differences are posted, rows stay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from allocating import MONTH, NOW, allocated, rows, usd
from hypothesis import given, settings
from hypothesis import strategies as st
from shelf import call, close_month, keep, shelf

import costspan.core.allocate.run as run_module
from costspan.core.allocate import (
    AllocationError,
    AllocationRule,
    allocate_period,
    load_rule,
)
from costspan.core.journal.records import FreeLine
from costspan.core.money import PICO, format_usd
from costspan.core.read.books import Books
from costspan.core.rebuild import copy_books
from costspan.core.settle.free import FreePostingError, free_postings
from costspan.core.settle.ledger import Ledger
from costspan.core.settle.settle import settle

OVERHEAD: dict[str, Any] = {"tenant": None, "tenant_source": None, "initiator": "platform"}


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    """Acme has 3 USD of its own, globex 1; the platform 0.5 safety and 0.1 faults; nobody 2."""
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, usage={"input": 100}, session="s1"),
            call(2, flat_cost="2", cause="step", initiator="agent", usage={"input": 300}),
            call(3, tenant="globex", usage={"input": 600, "cache_read": 50}, session="s2"),
            call(4, flat_cost="0.5", cause="safety", **OVERHEAD),
            call(5, flat_cost="0.1", provider_result="failed", fault="provider"),
            call(6, flat_cost="2", tenant=None, tenant_source=None),
            call(7, day="2026-12-02", tenant="initech"),
        )
        yield ledger


def test_every_pool_by_activity_and_not_charged(ledger: Ledger) -> None:
    before = rows(ledger)
    found = allocated(ledger)
    after = rows(ledger)
    assert {key: after[key] for key in before} == before
    assert {key: amounts for key, amounts in after.items() if key not in before} == {
        ("@platform", "allocated", "safety"): (usd("-0.5"), 0),
        ("acme", "allocated", "safety"): (usd("0.375"), 0),
        ("globex", "allocated", "safety"): (usd("0.125"), 0),
        ("@platform", "allocated", "faults"): (usd("-0.1"), 0),
        ("acme", "allocated", "faults"): (usd("0.075"), 0),
        ("globex", "allocated", "faults"): (usd("0.025"), 0),
    }
    assert found.posted == 6
    kept = {each.pool: (each.cost, each.kept, each.why) for each in found.allocations}
    assert kept == {
        "faults": (usd("0.1"), 0, ""),
        "safety": (usd("0.5"), 0, ""),
        "unattributed": (usd("2"), usd("2"), "the rule shares it out to nobody"),
    }
    assert Books(ledger).is_balanced()


def test_again_posts_nothing_and_a_changed_pool_what_it_changed_by(ledger: Ledger) -> None:
    allocated(ledger)
    assert allocated(ledger).posted == 0
    keep(ledger, call(8, flat_cost="0.3", cause="safety", **OVERHEAD))
    found = allocated(ledger)
    assert found.posted == 3
    (record,) = list(ledger.free_postings())[2:]
    assert [(line.owner, format_usd(line.cost)) for line in record.lines] == [
        ("@platform", "-0.300000000000"),
        ("acme", "0.225000000000"),
        ("globex", "0.075000000000"),
    ]
    assert record.about["method"] == "activity: own cost"
    assert record.about["rule_sha256"] == AllocationRule().sha256
    assert (record.by, record.reason, record.kind) == ("ann", "month's end", "allocation")


def test_undone_is_as_if_it_had_never_been(ledger: Ledger) -> None:
    before = rows(ledger)
    allocated(ledger, "charged = true")
    assert rows(ledger) != before
    assert allocated(ledger, AllocationRule().undone()).posted == 6
    assert rows(ledger) == before
    assert allocated(ledger, AllocationRule().undone()).posted == 0


def test_charged_is_charged_and_can_be_changed(ledger: Ledger) -> None:
    allocated(ledger)
    assert allocated(ledger, AllocationRule().all_charged()).posted == 4  # tenants' lines alone
    assert rows(ledger)["acme", "allocated", "safety"] == (usd("0.375"), usd("0.375"))
    assert rows(ledger)["@platform", "allocated", "safety"] == (usd("-0.5"), 0)
    only = "[pool.safety]\ncharged = true"
    allocated(ledger, only)
    assert rows(ledger)["acme", "allocated", "faults"] == (usd("0.075"), 0)
    assert rows(ledger)["acme", "allocated", "safety"] == (usd("0.375"), usd("0.375"))


def test_another_method_moves_what_it_moves(ledger: Ledger) -> None:
    allocated(ledger)
    found = allocated(ledger, AllocationRule().with_method("even"))
    safety = next(each for each in found.allocations if each.pool == "safety")
    assert [(part.tenant, part.cost, part.more_cost) for part in safety.parts] == [
        ("acme", usd("0.25"), usd("-0.125")),
        ("globex", usd("0.25"), usd("0.125")),
    ]
    assert Books(ledger).is_balanced()


@pytest.mark.parametrize(
    ("rule", "shares"),
    [
        ('by = "tokens"', {"acme": "4/21", "globex": "13/42"}),  # 100 + 300 of 1,050
        ('by = "requests"', {"acme": "1/3", "globex": "1/6"}),
        ('method = "even"\nwithout = ["globex"]', {"acme": "1/2"}),
        ('method = "even"\ntenants = ["globex", "umbrella"]', {"globex": "1/4", "umbrella": "1/4"}),
        (
            'method = "weighted"\nweights = {acme = 1, globex = "1.5"}',
            {"acme": "1/5", "globex": "3/10"},
        ),
        (
            'method = "shapley"\nneeds = {acme = "0.5", globex = "0.2"}',
            {"acme": "2/5", "globex": "1/10"},
        ),
        (
            'method = "shapley"\ncosts = {acme = "0.3", globex = "0.3", "acme+globex" = "0.5"}',
            {"acme": "1/4", "globex": "1/4"},
        ),
        ('method = "shapley"\nneeds = "longest_prefix"', {"globex": "1/2"}),
    ],
)
def test_each_method_on_a_pool(ledger: Ledger, rule: str, shares: dict[str, str]) -> None:
    found = allocated(ledger, f"[pool.safety]\n{rule}")
    safety = next(each for each in found.allocations if each.pool == "safety")
    for part in safety.parts:
        assert abs(part.cost - Fraction(shares[part.tenant]) * PICO) < 1
    assert {part.tenant for part in safety.parts} == set(shares)
    assert sum(part.cost for part in safety.parts) == safety.cost == usd("0.5")


def test_what_is_nobodys_only_where_the_rule_says_so(ledger: Ledger) -> None:
    allocated(ledger, '[pool.unattributed]\nmethod = "even"')
    assert rows(ledger)["@unattributed", "allocated", "unattributed"] == (usd("-2"), 0)
    assert rows(ledger)["acme", "allocated", "unattributed"] == (usd("1"), 0)
    assert rows(ledger)["@unattributed", "unattributed", ""] == (usd("2"), 0)
    assert Books(ledger).is_balanced()


def test_a_closed_month_is_allocated_in_the_next(ledger: Ledger) -> None:
    close_month(ledger, MONTH)
    sealed = [posting for _, posting in ledger.sealed(MONTH)]
    allocated(ledger)
    assert [posting for _, posting in ledger.sealed(MONTH)] == sealed
    late = [
        each for each in ledger.roll_ups(posted_period="2026-12") if each.line.bucket == "allocated"
    ]
    assert {each.line.effective_period for each in late} == {MONTH}
    assert allocated(ledger).posted == 0


def test_a_dry_run_posts_nothing_and_needs_no_name(ledger: Ledger) -> None:
    before = rows(ledger)
    found = allocated(ledger, by="", reason="", dry_run=True)
    assert (found.posted, rows(ledger)) == (0, before)
    assert found.allocations == allocated(ledger).allocations
    with pytest.raises(FreePostingError, match="by"):
        allocated(ledger, AllocationRule().undone(), by="")
    with pytest.raises(AllocationError, match="no period"):
        allocate_period(ledger, "2026-13", AllocationRule(), by="a", reason="b", now_ns=1)


def test_nobody_to_share_with_keeps_it() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1, cause="safety", **OVERHEAD))
        found = allocated(ledger)
        assert (found.posted, found.allocations[0].kept) == (0, PICO)
        assert found.allocations[0].why == "nobody has any weight"


def test_many_tenants_stand_in_records_that_each_add_up(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "LINES_MAX", 3)
    keep(ledger, *(call(100 + n, tenant=f"t{n:02}") for n in range(10)))
    safety = allocated(ledger, at_most=2).allocations[1]
    assert [part.tenant for part in safety.parts] == ["acme", "globex"]
    assert (safety.tenants, safety.changed, safety.out) == (12, 12, usd("0.5"))
    records = list(ledger.free_postings())
    assert len(records) == 8  # two pools of 12 tenants
    assert all(sum(line.cost for line in record.lines) == 0 for record in records)
    assert allocated(ledger).posted == 0


def test_a_pool_too_large_for_one_posting(ledger: Ledger) -> None:
    most = 2**63 - 1
    for n in range(3):
        line = FreeLine("@platform", "adjustment", "idle", "", "", most - n, 0)
        with ledger.settling(1) as settlement:
            record = free_postings(
                kind="capacity",
                period=MONTH,
                lines=[line],
                about={},
                by="a",
                reason="b",
                recorded_at=n,
            )
            settle(settlement, [], [record])
    allocated(ledger, "charged = true")
    share = rows(ledger)["acme", "allocated", "idle"]
    assert abs(share[0] - (3 * most - 3) * 3 // 4) <= 1
    assert share[0] == share[1]
    assert Books(ledger).is_balanced()
    assert allocated(ledger, "charged = true").posted == 0


TENANTS = ("acme", "globex", "initech", "ünï")
METHODS = ('method = "even"', 'by = "cost"', 'by = "tokens"', 'by = "requests"', 'method = "none"')


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.sampled_from(TENANTS), st.integers(0, 10**6)), max_size=6),
    st.lists(
        st.tuples(st.sampled_from(["safety", "router", "eval"]), st.integers(-(10**6), 10**6)),
        max_size=4,
    ),
    st.lists(st.tuples(st.sampled_from(METHODS), st.booleans()), min_size=1, max_size=3),
)
def test_what_goes_in_comes_out_of_any_ledger(
    own: list[tuple[str, int]], pools: list[tuple[str, int]], rules: list[tuple[str, bool]]
) -> None:
    """Whatever rules follow one another, the books are those of the last alone."""
    with closing(shelf()) as ledger, closing(shelf()) as other:
        for books in (ledger, other):
            number = 0
            for tenant, pico in own:
                number += 1
                keep(books, call(number, tenant=tenant, flat_cost=format_usd(pico)))
            for cause, pico in pools:
                number += 1
                cost = format_usd(abs(pico))
                keep(books, call(number, flat_cost=cost, cause=cause, **OVERHEAD))
        texts = [f"charged = {str(charged).lower()}\n[every]\n{said}" for said, charged in rules]
        before = rows(ledger)
        for text in texts:
            found = allocated(ledger, text)
            for each in found.allocations:
                assert each.cost == each.kept + sum(part.cost for part in each.parts)
        allocated(other, texts[-1])
        assert rows(ledger) == rows(other)
        assert {
            key: after for key, after in rows(ledger).items() if key[1] != "allocated"
        } == before
        assert Books(ledger).is_balanced()


def test_the_rule_is_named_by_its_content() -> None:
    one = load_rule('charged = true\n[pool.safety]\nmethod = "even"')
    two = load_rule('[pool.safety]\nmethod = "even"')
    assert one.sha256 == load_rule('pool.safety.method = "even"\ncharged = true').sha256
    assert one.sha256 != two.sha256
    assert msgspec.structs.replace(one, charged=False).sha256 == two.sha256


def test_a_pool_that_is_no_more_gives_back_what_was_shared() -> None:
    rule = '[pool.faults]\nmethod = "activity"\nby = "tokens"\n'
    failed = call(3, provider_result="failed", fault="provider", layer="gateway")
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1, usage={"input": 1}),
            call(2, tenant="globex", usage={"input": 1}),
            failed,
        )
        assert allocated(ledger, rule).posted == 3
        keep(ledger, call(33, attempt_id="a000003", layer="provider"))
        with ledger.rebuilding() as fresh:
            copy_books(ledger, fresh)  # which leaves out the pool's line: nothing stands on it
        assert allocated(ledger, rule, now_ns=NOW + 1).posted == 3
        assert {
            row for row in rows(ledger) if row[1] == "allocated" and any(rows(ledger)[row])
        } == set()
        assert allocated(ledger, rule, now_ns=NOW + 2).posted == 0
