"""`assign`, `adjust`, `credit`: settled at once, said where, refused in clear words."""

from __future__ import annotations

from contextlib import closing

import pytest
from desk import Desk

from costspan.core.journal.records import Assignment, FreePostings
from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import open_url

HAND = ("--by", "ann", "--reason", "their ticket 7")
DECEMBER_NS = 1_796_100_000 * 10**9


def close_october(desk: Desk) -> None:
    with closing(open_url(f"sqlite:///{desk.ledger}", create=False)) as ledger:
        close_period(ledger, "2026-10", "ann", "month's end", DECEMBER_NS)


def charged(desk: Desk, tenant: str) -> str:
    rows = desk.run("report", "--by", "owner", "--json").json["rows"]
    return next((row["charge"] for row in rows if row["owner"] == tenant), "none")


def test_assign_moves_an_event_and_says_what_was_posted(shop: Desk) -> None:
    ran = shop.run("assign", "resp-globex", "initech", *HAND)
    assert ran.code == 0
    assert "was: globex pays 0.007 USD (direct)" in ran.out
    assert "now: initech pays 0.007 USD (direct)" in ran.out
    assert "posted in 2026-10: globex direct cost -0.007, charge -0.007 USD" in ran.out
    assert (charged(shop, "initech"), charged(shop, "globex")) == ("0.007000000000", "none")
    assert "corrected" in shop.run("explain", "resp-globex").out
    assert shop.run("rebuild").code == 0
    assert charged(shop, "initech") == "0.007000000000"


def test_assign_posts_in_the_open_month_when_its_own_is_closed(shop: Desk) -> None:
    close_october(shop)
    found = shop.run("assign", "resp-globex", "initech", *HAND, "--json").json
    assert {each["posted_period"] for each in found["posted"]} == {"2026-11"}
    assert {each["period"] for each in found["posted"]} == {"2026-10"}
    assert found["before"]["owner"] == "globex"
    assert found["after"] == {
        "owner": "initech", "bucket": "direct",
        "cost": "0.007000000000", "charge": "0.007000000000",
    }  # fmt: skip


def test_the_last_of_several_assignments_counts_even_if_a_clock_went_back(shop: Desk) -> None:
    event = shop.run("explain", "resp-globex", "--json").json["matched"][0]
    with closing(open_url(f"sqlite:///{shop.ledger}", create=False)) as ledger:
        from costspan.core.settle import settle

        with ledger.settling(1) as settlement:
            future = Assignment(event, "acme", "bob", "from a clock ahead", 2**62)
            settle(settlement, [], [future])
    assert shop.run("assign", "resp-globex", "initech", *HAND).code == 0
    assert charged(shop, "initech") == "0.007000000000"


def test_assign_of_what_changes_nothing_says_so(shop: Desk) -> None:
    ran = shop.run("assign", "resp-globex", "globex", *HAND)
    assert ran.code == 0
    assert "nothing had to be posted" in ran.out


def test_assign_refuses_what_it_cannot_mean(shop: Desk) -> None:
    nobody = shop.run("assign", "nobody", "globex", *HAND)
    assert nobody.code == 3
    several = shop.run("assign", "req-1", "globex", *HAND)
    assert several.code == 2
    assert "names 3 events: assign one at a time" in several.err
    for tenant in ("@platform", "", " globex", "a\u202eb", "x" * 129):
        ran = shop.run("assign", "resp-globex", tenant, *HAND)
        assert ran.code == 2
        assert "is no tenant id" in ran.err
        assert "\u202e" not in ran.err
    for missing in (("--by", "ann"), ("--reason", "x")):
        assert shop.run("assign", "resp-globex", "globex", *missing).code == 2
    for blank in (("--by", " ", "--reason", "x"), ("--by", "a\nb", "--reason", "x")):
        assert shop.run("assign", "resp-globex", "globex", *blank).code == 2
    with closing(open_url(f"sqlite:///{shop.ledger}", create=False)) as ledger:
        assert not any(isinstance(each, Assignment) for each in ledger.controls())


def test_adjust_and_credit_post_in_the_first_open_month(shop: Desk) -> None:
    close_october(shop)
    ran = shop.run("adjust", "globex", "1.25", "--period", "2026-10", *HAND)
    assert ran.code == 0
    assert "adjustment for globex: charge 1.25 USD, cost 0.00 USD" in ran.out
    assert "posted in 2026-11, the first open month: 2026-10 is closed" in ran.out
    found = shop.run("credit", "globex", "0.25", "--period", "2026-11", *HAND, "--json").json
    assert found["charge"] == "-0.250000000000"
    assert found["posted_periods"] == ["2026-11"]
    assert charged(shop, "globex") == "1.007000000000"
    page = shop.run("explain", found["id"]).out
    assert "A credit for 2026-11: globex pays 0.25 USD less. Why: their ticket 7 (ann)." in page
    assert shop.run("rebuild").code == 0
    assert charged(shop, "globex") == "1.007000000000"


@pytest.mark.parametrize(
    ("options", "charge", "cost"),
    [
        ((), "-0.500000000000", "0.000000000000"),
        (("--cost",), "-0.500000000000", "-0.500000000000"),
        (("--cost", "-0.1"), "-0.500000000000", "-0.100000000000"),
    ],
)
def test_an_adjustment_may_be_of_the_cost_too(
    shop: Desk, options: tuple[str, ...], charge: str, cost: str
) -> None:
    ran = shop.run("adjust", "acme", "-0.50", "--period", "2026-11", *HAND, "--json", *options)
    assert (ran.json["charge"], ran.json["cost"]) == (charge, cost)


@pytest.mark.parametrize(
    "amount", ["NaN", "inf", "1e3", "0.0000000000001", "1,000", "1.2.3", "", "٣", "1_0", "0", "$5"]
)
def test_an_amount_is_a_plain_decimal(shop: Desk, amount: str) -> None:
    for command in ("adjust", "credit"):
        ran = shop.run(command, "acme", amount, "--period", "2026-11", *HAND)
        assert ran.code == 2
        assert ran.out == ""
    with closing(open_url(f"sqlite:///{shop.ledger}", create=False)) as ledger:
        assert not any(isinstance(each, FreePostings) for each in ledger.controls())


def test_what_adjust_and_credit_refuse(shop: Desk) -> None:
    for arguments in (
        ("credit", "acme", "-1", "--period", "2026-11", *HAND),
        ("credit", "acme", "99999999999", "--period", "2026-11", *HAND),
        ("adjust", "@platform", "1", "--period", "2026-11", *HAND),
        ("adjust", "acme", "1", "--period", "2026-13", *HAND),
        ("adjust", "acme", "1", *HAND),
        ("adjust", "acme", "1", "--period", "2026-11", "--by", "ann"),
    ):
        ran = shop.run(*arguments)
        assert ran.code == 2, arguments
        assert ran.err


def test_a_tenant_nobody_has_heard_of_is_named(shop: Desk) -> None:
    ran = shop.run("credit", "acmee", "1", "--period", "2026-11", *HAND)
    assert ran.code == 0
    assert "the books had nothing of acmee before" in ran.err
    known = shop.run("credit", "acmee", "1", "--period", "2026-11", *HAND)
    assert "before: is it the right id" not in known.err


def test_no_ledger_is_made(desk: Desk) -> None:
    assert desk.run("credit", "acme", "1", "--period", "2026-11", *HAND).code == 3
    assert desk.run("assign", "a1", "acme", *HAND).code == 3
    assert not desk.ledger.exists()
