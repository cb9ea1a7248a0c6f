"""`costspan statement`: finance's page as a table, JSON, a spreadsheet and a file to attach."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from desk import HOSTILE, Desk

from costspan.core.money import parse_usd

DIRECTORY = """
[[tenant]]
tenant = "group"
name = "The Group"
[[tenant]]
tenant = "acme"
name = "Acme Ltd"
parent = "group"
cost_centre = "CC-1"
[[tenant]]
tenant = "globex"
parent = "group"
"""
STATEMENT = ("statement", "acme", "--period", "2026-11")


@pytest.fixture
def directory(shop: Desk) -> Path:
    path = shop.folder / "tenants.toml"
    path.write_text(DIRECTORY, "utf-8")
    return path


def test_the_name_of_a_tenant_gives_a_terminal_no_commands(shop: Desk) -> None:
    path = shop.folder / "tenants.toml"
    path.write_text('[[tenant]]\ntenant = "acme"\nname = "evil\\u001b[31m\\u202e"\n', "utf-8")
    for form in ((), ("--csv",), ("--json",)):
        ran = shop.run(*STATEMENT, "--directory", path, *form)
        assert "\x1b" not in ran.out + ran.err
        assert "\u202e" not in ran.out + ran.err


def test_the_table_reads_as_a_bill(shop: Desk, directory: Path) -> None:
    hand = ("--by", "ann", "--reason", "month's end", "--charged")
    assert shop.run("allocate", "2026-11", *hand).code == 0
    assert (
        shop.run(
            "credit", "acme", "0.005", "--period", "2026-11", "--by", "bob", "--reason", "outage"
        ).code
        == 0
    )
    ran = shop.run(*STATEMENT, "--directory", directory)
    lines = ran.out.splitlines()
    assert (ran.code, ran.err) == (0, "")
    assert lines[1] == "Acme Ltd (acme) is charged 0.009501322188 USD for November 2026"
    assert "cost centre CC-1, parent group" in lines
    assert any("UNKNOWN COST" in line for line in lines)
    assert any(line.startswith("PRELIMINARY: 2026-11 is not closed") for line in lines)
    said = "direct 0.0035 + agent 0.011 + allocated 0.000001322188 + adjustments -0.005"
    assert f"{said} = total 0.009501322188, exactly" in lines
    (credit,) = [line for line in lines if "outage" in line]
    assert credit.split()[:4] == ["credit", "2026-11", "-0.005000000000", "0.000000000000"]
    assert "decided by profile billing, rule set " in ran.out
    assert "\x1b" not in ran.out


def test_json_and_csv_say_the_same(shop: Desk, directory: Path) -> None:
    found = shop.run(*STATEMENT, "--directory", directory, "--json").json
    assert (found["tenant"], found["name"], found["currency"]) == ("acme", "Acme Ltd", "USD")
    assert found["directory"]["cost_centre"] == "CC-1"
    assert found["decided_by"][0]["profile"] == "billing"
    ran = shop.run(*STATEMENT, "--directory", directory, "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    total = rows.pop()
    assert total["line"] == "total"
    for name in ("cost", "charge"):
        assert sum(parse_usd(row[name]) for row in rows) == parse_usd(total[name])
        assert total[name] == found["total"][name]
    assert str(shop.ledger) in ran.err


def test_a_page_to_attach(shop: Desk, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_DIRECTORY", str(directory))
    path = shop.folder / "acme.html"
    ran = shop.run(*STATEMENT, "--html", path)
    assert (ran.code, ran.out) == (0, "")
    assert f"written: {path}" in ran.err
    html = path.read_text("utf-8")
    assert "Acme Ltd is charged <b>0.0145 USD</b> for November 2026" in html
    assert shop.run(*STATEMENT, "--html", "-").out == html
    for other in ("globex", "calc", "gpt-4o-mini"):
        assert other not in html
    ran = shop.run("statement", HOSTILE, "--period", "2026-11", "--html", "-")
    assert "acme" not in ran.out.replace(str(shop.folder), "")


def test_a_tenant_and_those_below_it(shop: Desk, directory: Path) -> None:
    with_children = ("--directory", directory, "--with-children")
    group = ("statement", "group", "--period", "2026-10", *with_children)
    found = shop.run(*group, "--json").json
    assert [each["tenant"] for each in found["children"]] == ["acme", "globex"]
    assert found["total_with_children"]["charge"] == "0.007000000000"
    assert found["total"]["charge"] == "0.000000000000"
    lines = shop.run(*group).out.splitlines()
    assert lines[1] == "The Group and below are charged 0.007 USD for October 2026"
    assert "globex is charged 0.007 USD for October 2026" in lines
    html = shop.run(*group, "--html", "-").out
    assert "The Group and below: <b>0.007 USD</b> for October 2026" in html
    rows = list(csv.DictReader(io.StringIO(shop.run(*group, "--csv").out)))
    assert {row["tenant"] for row in rows} == {"group", "acme", "globex"}


def test_what_is_refused(shop: Desk, directory: Path) -> None:
    for arguments, said in (
        (("statement", "@platform", "--period", "2026-11"), "is no tenant id"),
        (("statement", "acme", "--period", "november"), "no period"),
        ((*STATEMENT, "--with-children"), "needs a directory"),
        ((*STATEMENT, "--directory", "missing.toml"), "No such file"),
        ((*STATEMENT, "--profile", "billing"), "changes nothing here"),
    ):
        ran = shop.run(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    directory.write_text('[[tenant]]\ntenant = "a"\nparent = "a"', "utf-8")
    ran = shop.run(*STATEMENT, "--directory", directory)
    assert ran.code == 2
    assert "their own ancestors" in ran.err


def test_a_tenant_without_anything(shop: Desk) -> None:
    ran = shop.run("statement", "nobody", "--period", "2026-11")
    assert ran.code == 0
    assert "nobody is charged 0.00 USD for November 2026" in ran.out
