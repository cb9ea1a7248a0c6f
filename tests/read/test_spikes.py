"""What drove a rise: exact to the pico, by every dimension, whatever the books hold."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import Journal, journals, settled
from shelf import at, call, keep, keep_all, shelf

from costspan.core.read.drivers import NO_TOOL, REST, Driver, Spikes, Window
from costspan.core.read.effects import SKETCH_MAX, Distinct, Figures, Tally, effects_of
from costspan.core.read.spikes import spikes
from costspan.core.schema import Observation
from costspan.core.settle.ledger import Ledger

DOLLAR = 10**12
OLD, NEW = "2026-11-01", "2026-11-08"
AFTER = Window(at(NEW), at("2026-11-15"))
_numbers = count(1)


def spent(day: str, usd: str = "1", tokens: int = 0, **facts: Any) -> Observation:
    usage = {"usage": {"input": tokens}} if tokens else {}
    return call(next(_numbers), day, flat_cost=usd, **usage, **facts)


def by_key(found: Spikes, dimension: str) -> dict[str, Driver]:
    return {each.key: each for each in found.drivers[dimension]}


# --- the decomposition -------------------------------------------------------------------------

_figures = st.builds(
    Figures, st.integers(0, 10**6), st.integers(0, 10**12), st.integers(-(10**20), 10**20)
)


@given(_figures, _figures)
def test_the_effects_are_the_difference_exactly(before: Figures, after: Figures) -> None:
    effects = effects_of(before, after)
    assert sum(effects) == after.cost - before.cost
    back = effects_of(after, before)
    assert sum(back) == before.cost - after.cost


@given(st.integers(1, 1000), st.integers(1, 1000), st.integers(1, 10**15))
def test_each_effect_alone_is_all_there_is(events: int, times: int, cost: int) -> None:
    before = Figures(events, 100 * events, cost * events)
    more = Figures(events * times, 100 * events * times, cost * events * times)
    assert effects_of(before, more) == (more.cost - before.cost, 0, 0)
    larger = Figures(events, 100 * events * times, cost * events * times)
    assert effects_of(before, larger) == (0, larger.cost - before.cost, 0)
    dearer = Figures(events, 100 * events, cost * events * times)
    assert effects_of(before, dearer) == (0, 0, dearer.cost - before.cost)


def test_what_is_new_or_gone_is_volume_and_without_tokens_nothing_is_said_of_size() -> None:
    assert effects_of(Figures(), Figures(3, 10, 500)) == (500, 0, 0)
    assert effects_of(Figures(3, 10, 500), Figures()) == (-500, 0, 0)
    assert effects_of(Figures(2, 0, 100), Figures(4, 0, 300)) == (100, 0, 100)


def test_distinct_is_exact_for_few_and_near_for_many() -> None:
    found = Distinct()
    for number in range(SKETCH_MAX):
        found.add(f"s{number}")
        found.add(f"s{number}")
    assert (found.count(), found.is_exact) == (SKETCH_MAX, True)
    for number in range(20_000):
        found.add(f"s{number}")
    assert not found.is_exact
    assert 16_000 < found.count() < 24_000


def test_a_tally_keeps_the_dearest_and_loses_nothing() -> None:
    tally = Tally(3)
    for number in range(100):
        tally.pair(f"k{number:03}").add(True, 1, 1, number)
    assert len(tally.pairs) <= 6
    assert tally.is_cut
    whole = sum(pair.after.cost for pair in tally.pairs.values()) + tally.rest.after.cost
    assert whole == sum(range(100))


# --- the books ---------------------------------------------------------------------------------


def test_it_names_tenant_loop_chain_and_template() -> None:
    with closing(shelf()) as ledger:
        quiet: dict[str, Any] = {"tenant": "quiet"}
        loud: dict[str, Any] = {"agent": "planner", "session": "s-9", "session_origin": "ours"}
        keep(ledger, spent(OLD, **quiet), spent(NEW, **quiet), spent(OLD, name="plan", **loud))
        root = spent(NEW, kind="request", agent="planner", name="plan", session="s-9")
        tool = spent(NEW, "0.5", kind="tool", name="search", parent=root.attempt_id)
        inner = spent(NEW, "0.25", kind="tool", name="fetch", parent=tool.attempt_id)
        template: dict[str, Any] = {"prompt_template": ("triage", "2")}
        steps = [
            spent(NEW, "2", name="plan", parent=inner.attempt_id, **loud, **template)
            for _ in range(4)
        ]
        keep(ledger, root, tool, inner, *steps)
        found = spikes(ledger, AFTER)
    assert found.windows[0] == Window(at("2026-11-01"), at(NEW))
    assert found.difference == 775 * DOLLAR // 100  # a request itself costs nothing
    tenant = by_key(found, "tenant")["acme"]
    assert (tenant.difference, found.share(tenant.difference)) == (found.difference, 1000)
    assert by_key(found, "tenant")["quiet"].difference == 0
    loop = by_key(found, "loop")["planner / plan"]
    assert loop.loop is not None
    assert loop.loop.requests == (1, 1)
    assert loop.loop.sessions == (1, 1)
    assert (loop.before.events, loop.after.events) == (1, 4)
    chain = by_key(found, "tool chain")["search > fetch"]
    assert (chain.state, chain.difference) == ("new", 825 * DOLLAR // 100)
    assert by_key(found, "tool chain")["search"].after.cost == DOLLAR // 2
    assert by_key(found, "tool chain")[NO_TOOL].state == "both"
    assert by_key(found, "prompt template")["triage@2"].difference == 8 * DOLLAR
    assert by_key(found, "session")["s-9"].after.events == 4


def test_size_and_mix_are_told_apart() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, *(spent(OLD, "1", 100, tenant="large") for _ in range(2)))
        keep(ledger, *(spent(NEW, "3", 300, tenant="large") for _ in range(2)))
        keep(ledger, spent(OLD, "1", 100, tenant="dear"), spent(NEW, "5", 100, tenant="dear"))
        keep(ledger, spent(OLD, "1", 9, tenant="gone"))
        found = by_key(spikes(ledger, AFTER), "tenant")
    assert found["large"].effects == (0, 4 * DOLLAR, 0)
    assert found["dear"].effects == (0, 0, 4 * DOLLAR)
    assert (found["gone"].state, found["gone"].effects) == ("vanished", (-DOLLAR, 0, 0))


def test_the_rest_is_added_up_and_every_dimension_comes_to_the_whole() -> None:
    with closing(shelf()) as ledger:
        keep_all(ledger, (spent(NEW, str(n), tenant=f"t{n:03}") for n in range(1, 60)))
        found = spikes(ledger, AFTER, at_most=5, keys_max=8)
    assert found.is_cut
    tenants = found.drivers["tenant"]
    assert len(tenants) == 6
    assert tenants[-1].key == REST
    assert_adds_up(found)


def assert_adds_up(found: Spikes) -> None:
    assert sum(found.effects) == found.difference
    for drivers in found.drivers.values():
        assert sum(each.difference for each in drivers) == found.difference
        assert sum(each.before.cost for each in drivers) == found.before.cost
        for each in drivers:
            assert sum(each.effects) == each.difference


@settings(max_examples=40)
@given(journals(most=14), st.integers(0, 400), st.integers(1, 90))
def test_whatever_the_books_hold_it_adds_up(journal: Journal, start: int, days: int) -> None:
    day = 86_400 * 10**9
    since = at("2026-01-01") + start % 120 * day
    with closing(settled(journal)) as ledger:
        found = spikes(ledger, Window(since, since + days * day), by=("bucket", "model"))
        assert_adds_up(found)
        expected = cost_between(ledger, since, since + days * day)
    assert found.after.cost == expected


def cost_between(ledger: Ledger, since: int, until: int) -> int:
    from costspan.core.settle.posting import counts_at

    total = 0
    for each in ledger.events():
        moment = counts_at(each.event, each.decision)
        if moment is not None and since <= moment < until:
            total += sum(amount.cost for _, amount in each.posted)
    return total


def test_what_several_tenants_share_is_an_event_of_each_and_its_tokens_once() -> None:
    with closing(shelf()) as ledger:
        members = {"members": {"acme": 300, "globex": 100}, "tenant": None, "tenant_source": None}
        keep(ledger, spent(NEW, "4", 4000, **members))
        tenants = by_key(spikes(ledger, AFTER), "tenant")
    assert [tenants[t].after.tokens for t in ("acme", "globex")] == [3000, 1000]
    assert [tenants[t].after.events for t in ("acme", "globex")] == [1, 1]


def test_unknown_cost_is_counted_and_in_no_sum() -> None:
    with closing(shelf()) as ledger:
        unknown = {"flat_cost": None, "executed_model": "mystery", "usage": {"input": 5}}
        keep(ledger, call(next(_numbers), NEW, **unknown), spent(NEW))
        found = spikes(ledger, AFTER)
    assert found.unpriced == (0, 1)
    assert (found.after.events, found.after.cost) == (1, DOLLAR)


def test_a_cycle_of_parents_ends() -> None:
    with closing(shelf()) as ledger:
        one, two = next(_numbers), next(_numbers)
        keep(
            ledger,
            call(one, NEW, kind="tool", name="a", parent=f"a{two:06}"),
            call(two, NEW, kind="tool", name="b", parent=f"a{one:06}"),
        )
        found = spikes(ledger, AFTER)
    assert_adds_up(found)
    assert sum(each.after.events for each in found.drivers["tool chain"]) == 2


@pytest.mark.parametrize(
    "before", [Window(at(NEW) - 1, at(NEW) + 1), Window(5, 5), Window(at(NEW), at("2026-11-15"))]
)
def test_windows_that_cannot_be_compared_are_refused(before: Window) -> None:
    with closing(shelf()) as ledger, pytest.raises(ValueError, match="window"):
        spikes(ledger, AFTER, before)
