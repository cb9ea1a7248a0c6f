"""The sums of a statement: from the roll-up, equal to the postings, nobody else's."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journals import GATEWAY, Journal, journals, opened
from shelf import at, call, close_month, free, keep, shelf, statement, usd

from costspan.core.journal.records import Assignment
from costspan.core.money import PICO
from costspan.core.read.books import Books
from costspan.core.read.statement import NOTHING, Amounts, Statement
from costspan.core.schema import Observation
from costspan.core.settle import settle
from costspan.core.settle.ledger import Ledger

EXAMPLES = int(os.environ.get("COSTSPAN_TEST_EXAMPLES", "80"))


def test_direct_and_agent_are_the_total() -> None:
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1),
            call(2, day="2026-11-06", executed_model="gpt-4o-mini"),
            call(3, day="2026-11-06", cause="step", initiator="agent"),
            call(4, day="2026-12-01"),
            call(5, tenant="globex"),
        )
        found = statement(ledger)
    assert (found.direct, found.agent, found.allocated) == (usd(2, 2), usd(1, 1), NOTHING)
    assert (found.adjusted, found.total) == (NOTHING, usd(3, 3))
    assert found.models == {"gpt-4o": usd(2, 2), "gpt-4o-mini": usd(1, 1)}
    assert found.days == {"2026-11-05": usd(1, 1), "2026-11-06": usd(2, 2)}
    assert found.unknown == 0


def test_amounts_are_decimal_strings_outside() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1, delivery="blocked"), call(2))
        plain = json.loads(json.dumps(statement(ledger).plain()))
    row = {"cost": "2.000000000000", "charge": "1.000000000000", "absorbed": "1.000000000000"}
    assert plain["total"] == {**row, "events": 2}
    assert plain["by_model"] == [{"model": "gpt-4o", **row, "events": 2}]
    assert plain["by_day"] == [{"day": "2026-11-05", **row, "events": 2}]
    assert (plain["tenant"], plain["period"], plain["unknown_events"]) == ("acme", "2026-11", 0)
    assert plain["adjustments"]["cost"] == "0.000000000000"


def test_what_comes_late_is_an_adjustment_of_the_month_that_is_open() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2))
        sealed = statement(ledger)
        close_month(ledger, "2026-11")
        keep(ledger, call(3, flat_cost="5"), call(4, day="2026-12-02"))
        keep(ledger, Assignment("a000001", "globex", "ann", "mistaken", 1))
        assert statement(ledger) == sealed
        december = statement(ledger, period="2026-12")
        assert december.direct == usd(1, 1)
        assert december.adjustments == {"2026-11": usd(4, 0)}  # 5 came, 1 went to globex
        assert december.total == usd(5, 1)
        assert sum(each.cost for each in december.days.values()) == PICO
        globex = statement(ledger, "globex", "2026-12")
        assert (globex.direct, globex.adjusted) == (NOTHING, usd(1, 1))
        assert statement(ledger, "globex") == Statement(
            tenant="globex", period="2026-11", unknown=0,
            buckets={}, models={}, days={}, adjustments={},
        )  # fmt: skip


def test_what_is_unknown_is_counted_and_no_amount() -> None:
    batch: dict[str, Any] = {"cause": "batch", "initiator": "user", "started_at": at("2026-10-31")}
    with closing(shelf()) as ledger:
        keep(
            ledger,
            call(1),
            call(2, flat_cost=None),
            call(3, flat_cost=None, usage={"holograms": 1}),
            call(4, flat_cost=None, day="2026-12-01"),
            call(5, flat_cost=None, tenant="globex"),
            call(6, flat_cost=None, **batch, ended_at=at("2026-11-01")),
            call(7, flat_cost=None, tenant="acme 2026-11"),
        )
        found = statement(ledger)
        assert (found.unknown, found.total) == (3, usd(1, 1))
        keep(ledger, call(8, attempt_id="a000002", flat_cost="2"))  # now somebody knows
        found = statement(ledger)
        assert (found.unknown, found.total) == (2, usd(3, 2))
        rows = Books(ledger).sheet("owner", period="2026-11")
        assert dict(zip([row["owner"] for row in rows.rows], rows.unpriced, strict=True)) == {
            "acme": 2, "acme 2026-11": 1, "globex": 1,
        }  # fmt: skip


LIKE_ACME = (
    "Acme",
    "acme ",
    "acm",
    "acmee",
    "%",
    "a%",
    "_cme",
    "acme' OR '1'='1",
    "acme\n",
    "acmé",
)


def test_nothing_of_another_tenant() -> None:
    """Invariant 16, with names that a careless comparison would take for one another."""
    with closing(shelf()) as ledger:
        keep(ledger, call(1))
        alone = statement(ledger)
        for number, tenant in enumerate(LIKE_ACME, 2):
            secret = {"executed_model": f"secret-{number}", "cause": "step", "initiator": "agent"}
            keep(
                ledger,
                call(number, day=f"2026-11-{number + 8:02}", tenant=tenant, **secret),
                call(number + 50, tenant=tenant, flat_cost=None, **secret),
            )
        assert statement(ledger) == alone
        assert "secret" not in json.dumps(statement(ledger).plain())
        for number, tenant in enumerate(LIKE_ACME, 2):
            found = statement(ledger, tenant)
            assert (found.total, found.unknown) == (usd(1, 1), 1)
            assert list(found.models) == [f"secret-{number}"]


@pytest.mark.parametrize(
    ("tenant", "period"),
    [("acme", "2026-13"), ("acme", "november"), ("@platform", "2026-11"), ("", "2026-11")],
)
def test_what_is_no_tenant_or_month_is_refused(tenant: str, period: str) -> None:
    with closing(shelf()) as ledger, pytest.raises(ValueError, match=r"no (tenant|period)"):
        statement(ledger, tenant, period)


MONTHS = ("2026-01", "2026-02", "2026-03", "2026-04")


@settings(
    max_examples=EXAMPLES,
)
@given(journals(most=10), st.lists(st.sampled_from(MONTHS[:3]), max_size=3))
def test_every_posting_is_on_one_statement(journal: Journal, months: list[str]) -> None:
    """Whatever is closed while records come: each is what was posted in its month, no more."""
    with closing(opened()) as ledger:
        closings = sorted(set(months))
        for batch in journal.batches:
            seen = [each for each in batch if isinstance(each, Observation)]
            controls = [each for each in batch if not isinstance(each, Observation)]
            with ledger.settling(0) as settlement:
                settle(settlement, seen, controls, (GATEWAY,))
            if closings:
                close_month(ledger, closings.pop(0))
        wanted = _from_postings(ledger)
        months = sorted({period for _, period in wanted})
        for tenant in ("acme", "globex", "initech"):
            for period in filter(None, {*months, *MONTHS} - {"0000-00"}):
                found = statement(ledger, tenant, period)
                want = wanted.get((tenant, period), {"own": (0, 0, 0), "late": (0, 0, 0)})
                own = _total([*found.buckets.values()])
                assert (own, _total([found.adjusted])) == (want["own"], want["late"])
                assert _total([*found.days.values()]) == own
                assert _total([*found.models.values()]) == own
                assert _total([found.direct, found.agent, found.allocated, found.adjusted]) == (
                    _total([found.total])
                )


def _total(parts: list[Amounts]) -> tuple[int, int, int]:
    return (
        sum(each.cost for each in parts),
        sum(each.charge for each in parts),
        sum(each.events for each in parts),
    )


def _from_postings(ledger: Ledger) -> dict[tuple[str, str], dict[str, Any]]:
    sums: dict[tuple[str, str], dict[str, Any]] = defaultdict(
        lambda: {"own": (0, 0, 0), "late": (0, 0, 0)}
    )
    for _, each in ledger.postings_after(0, -1):
        side = "own" if each.line.effective_period == each.posted_period else "late"
        total = sums[each.line.owner, each.posted_period]
        cost, charge, events = total[side]
        total[side] = (cost + each.amount.cost, charge + each.amount.charge, events + each.events)
    return sums


def test_it_reads_lines_of_this_tenant_and_no_event(tmp_path: Path) -> None:
    """What SQLite is asked, and how it finds it: by an index of the tenant and month."""
    with closing(shelf(tmp_path / "ledger.db")) as ledger:
        keep(ledger, call(1), call(2, tenant="globex"))
        asked: list[str] = []
        connection = ledger.connection  # type: ignore[attr-defined]
        connection.set_trace_callback(asked.append)
        statement(ledger)
        connection.set_trace_callback(None)
        selects = [sql for sql in asked if "SELECT" in sql]
        plans = [
            row[3] for sql in selects for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")
        ]
    assert len(selects) == 2
    assert not [plan for plan in plans if plan.startswith("SCAN")]
    assert any("owner=? AND posted_period=?" in plan for plan in plans)
    assert any("events_status (status=? AND about=?)" in plan for plan in plans)


def test_what_people_adjusted_is_named_and_adds_up() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1))
        credit = free(ledger, "credit", ("acme", 0, -3))
        free(ledger, "allocation", ("acme", 2, 2), ("@platform", -2, 0))
        free(ledger, "invoice_adjust", ("acme", 1, 1), ("globex", 5, 5))
        found = statement(ledger)
    assert (found.direct, found.allocated) == (usd(1, 1), usd(2, 0))
    assert found.pools == {"allocation": usd(2, 0)}
    assert found.adjusted == Amounts(PICO, -2 * PICO, 0)
    assert found.total == Amounts(4 * PICO, PICO, 1)
    named = {each.kind: each for each in found.corrections}
    assert set(named) == {"credit", "invoice_adjust"}
    assert named["credit"].amounts == Amounts(0, -3 * PICO, 0)
    assert (named["credit"].id, named["credit"].by) == (credit, "ann")
    assert named["credit"].reason == "so it was agreed"
    assert found.days == {"2026-11-05": usd(1, 1)}
    assert found.models == {"gpt-4o": usd(1, 1)}


def test_what_comes_late_is_named_too() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1))
        early = free(ledger, "credit", ("acme", 0, -7))
        close_month(ledger, "2026-11")
        keep(ledger, call(2))
        free(ledger, "credit", ("acme", 0, -1))
        free(ledger, "allocation", ("acme", 2, 0), ("@platform", -2, 0))
        free(ledger, "credit", ("acme", 0, -5), period="2026-12")
        november, december = statement(ledger), statement(ledger, period="2026-12")
    assert [each.id for each in november.corrections] == [early]
    assert november.total == Amounts(PICO, -6 * PICO, 1)
    assert [(each.kind, each.period, each.amounts) for each in december.corrections] == [
        ("late", "2026-11", usd(1, 1)),
        *sorted(
            [
                ("credit", "2026-11", Amounts(0, -PICO, 0)),
                ("allocation", "2026-11", Amounts(2 * PICO, 0, 0)),
            ],
            key=lambda each: [c.id for c in december.corrections if c.kind == each[0]],
        ),
        ("credit", "2026-12", Amounts(0, -5 * PICO, 0)),
    ]
    assert december.allocated == NOTHING
    assert december.total == december.adjusted == Amounts(3 * PICO, -5 * PICO, 1)
