"""A sum of FOCUS is right or is not added: of a part of a day, of torn rows, in other tenants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from desk import Desk
from exports import books, call, ingest, ndjson, owners, table
from focus_rows import charge, read

Row = dict[str, Any]


def of_day(day: int, quantity: int, component: str = "input") -> Row:
    """A row of a day of its own."""
    return charge(
        component,
        str(quantity),
        ChargePeriodStart=f"2026-10-{day:02}T00:00:00Z",
        ChargePeriodEnd=f"2026-10-{day:02}T23:00:00Z",
        BilledCost=f"0.{quantity:02}",
    )


def test_parts_of_what_is_in_change_no_money(any_ledger: Desk) -> None:
    desk, days = any_ledger, range(1, 13)  # of two payloads a ledger believes either
    parts = [
        table(desk.folder / f"part-{part}.csv", [of_day(day, part * day) for day in days])
        for part in (1, 2, 3)
    ]
    whole = desk.run("ingest", "focus", *parts, "--json").json
    assert (whole["new"], whole["conflicts"]) == (12, 0)
    before = books(desk)
    for some in (parts[:1], parts[:2], parts[1:], parts[2:]):
        ran = desk.run("ingest", "focus", *some, "--json")
        assert (ran.json["new"], ran.json["conflicts"]) == (0, 12)
        assert books(desk) == before
    assert len(ran.json["withheld"]) == 12
    assert ran.json["withheld"][-1] == (
        "2026-10-12, acme, gpt-4o-mini: 72 input for 0.720000000000 USD in the books,"
        " 36 input for 0.360000000000 USD here"
    )
    said = desk.run("ingest", "focus", parts[0])
    assert "12 conflicts" in said.out
    assert said.err.count("not added: ") == 12
    again = desk.run("ingest", "focus", *parts[::-1], "--json").json
    assert (again["new"], again["duplicates"], again["conflicts"]) == (0, 12, 0)
    assert desk.run("doctor").code == 0


def test_days_that_have_grown_stay_and_new_ones_go_in(desk: Desk) -> None:
    read(desk, [of_day(day, 10) for day in range(1, 9)])
    before = owners(desk)["acme"][0]
    grown = read(desk, [of_day(day, 20) for day in range(1, 10)], "--json").json
    assert (grown["new"], grown["conflicts"]) == (1, 8)
    assert grown["totals"]["theirs"] == "1.800000000000"
    assert before == "0.000012000000"
    assert owners(desk)["acme"] == ("0.000015000000", 9)


@pytest.mark.parametrize(
    ("quantity", "unit", "tokens"),
    [
        ("1500", "Tokens", 1500),
        ("1.5", "1000 Tokens", 1500),
        ("1.5", "1K tokens", 1500),
        ("0.0015", "1M Tokens", 1500),
        ("1.5E3", "Token", 1500),
        ("1500", None, 1500),
        ("1.5", "Units", None),  # of how many tokens, nobody knows
        ("1500", "Characters", None),
        ("1.5", "Tokens", None),
    ],
)
def test_tokens_by_the_thousand_are_tokens(
    desk: Desk, quantity: str, unit: str | None, tokens: int | None
) -> None:
    ran = read(desk, [charge(quantity=quantity, ConsumedUnit=unit)], "--json")
    assert (ran.code, ran.json["new"]) == (0, 1)
    cost = owners(desk)["acme"][0]
    assert cost == (None if tokens is None else "0.000225000000")


def test_searches_are_counted_in_their_own_word(desk: Desk) -> None:
    row = charge("web_search", "7", ConsumedUnit="Searches")
    found = read(desk, [row, charge("images", "2", ConsumedUnit="100 Images")], "--json").json
    assert found["flags"]["unit:100 Images"] == 1
    assert not [flag for flag in found["flags"] if "Searches" in flag]


def test_a_torn_row_lets_no_sum_in(desk: Desk) -> None:
    whole = table(desk.folder / "a.csv", [of_day(1, 1), of_day(2, 2)])
    torn = table(desk.folder / "b.csv", [of_day(1, 3), of_day(2, 4)])
    torn.write_bytes(torn.read_bytes()[:-30])
    aside = desk.folder / "rejected"
    ran = desk.run("ingest", "focus", whole, torn, "--rejected", aside)
    assert ran.code == 2
    assert f"{torn}, line 3" in ran.err
    assert "too small" in ran.err
    assert aside.read_text()
    assert not desk.ledger.exists()


def test_the_same_rows_are_not_added_for_other_tenants(desk: Desk) -> None:
    row = charge(SubAccountName="Acme Ltd", x_Customer="customer-7")
    read(desk, [row])
    before = owners(desk)
    for places in ("SubAccountName", "x_Customer", "x_Customer,SubAccountId"):
        ran = read(desk, [row], "--tenant-from", places)
        assert ran.code == 2
        assert "--tenant-from Tags.tenant,x_Tenant,SubAccountId" in ran.err
        assert owners(desk) == before
    same = read(desk, [row], "--json", "--tenant-from", "Tags.tenant, x_Tenant,SubAccountId")
    assert (same.code, same.json["duplicates"]) == (0, 1)
    rows = [{**row, "ChargePeriodStart": "2026-09-05T12:00:00Z"}]
    assert read(desk, rows, "--tenant-from", "x_Customer").code == 0


def test_no_month_goes_in_if_one_is_refused(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costspan.cli.backfill.RECORDS_PER_SETTLEMENT", 1)
    ingest(desk, [call()])
    before = owners(desk)
    rows = [of_day(1, 1)]
    rows += [
        {**of_day(day, 1), "ChargePeriodStart": f"2026-09-{day:02}T00:00:00Z"}
        for day in range(1, 9)
    ]
    ran = desk.run("ingest", "focus", ndjson(tmp_path / "year.ndjson", rows))
    assert ran.code == 2
    assert "2026-10" in ran.err
    assert owners(desk) == before
