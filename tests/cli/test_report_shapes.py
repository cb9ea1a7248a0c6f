"""The shapes of `costspan report`: JSON, tables on terminals, and CSV that runs nothing."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from desk import HOSTILE, Desk

from costspan.cli.printing import csv_cell, print_csv, shown
from costspan.core.read.books import Books
from costspan.core.settle.ledger import open_url


def test_json_is_the_totals_and_nothing_else(shop: Desk) -> None:
    ran = shop.run("report", "--json")
    with Books(open_url(f"sqlite:///{shop.ledger}", create=False)) as books:
        assert ran.json == books.totals()
    assert ran.code == 0
    assert str(shop.ledger) in ran.err


def test_the_table_says_everything_in_plain_lines(shop: Desk) -> None:
    ran = shop.run("report")
    lines = ran.out.splitlines()
    assert ran.code == 0
    assert lines[0] == f"ledger sqlite:///{shop.ledger}"
    assert lines[1].split()[:2] == ["owner", "bucket"]
    assert "balanced  (the sums of the roll-up: costspan doctor adds every posting up)" in lines
    assert "balanced" in shop.run("report", "--by", "owner,feature").out.splitlines()
    assert any(line.startswith("total") and "0.174015000000" in line for line in lines)
    assert any(line.startswith("1 open") for line in lines)
    assert any(line.startswith("1 of unknown cost") for line in lines)
    assert ran.out.isascii()
    assert "\x1b" not in ran.out
    assert all(line == line.rstrip() for line in lines)


def test_csv_is_the_same_sums_and_runs_nothing(shop: Desk) -> None:
    ran = shop.run("report", "--csv", "--by", "owner,bucket")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert {row["owner"] for row in rows} >= {"'" + HOSTILE, "'@platform", "'@unattributed", "acme"}
    assert sum(Decimal(row["cost"]) for row in rows) == Decimal("0.174015")
    assert not any(
        cell.startswith(("=", "+", "@", "\t", "\r")) for row in rows for cell in row.values()
    )


@pytest.mark.parametrize(
    "formula", ["=1+1", "+1+1", "-1+1", "@sum(a1)", "\t=1", "\r=1", "\n=1", "\uff1d1", "-", "--1"]
)
def test_a_formula_is_text(formula: str) -> None:
    assert csv_cell(formula) == "'" + shown(formula)


@pytest.mark.parametrize(
    ("cell", "said"),
    [("evil\x1b[31m", r"evil\x1b[31m"), ("\u202egnp", r"\u202egnp"), ("a\r\nb\x07", r"a\r\nb\x07")],
)
def test_a_cell_gives_a_terminal_no_commands(
    cell: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_csv([cell], [[cell]])
    assert capsys.readouterr().out == f"{said}\r\n" * 2


@pytest.mark.parametrize("number", ["-1", "0.000000000001", "-0.5", 12, -3])
def test_a_number_stays_a_number(number: object) -> None:
    assert csv_cell(number) == str(number)


def test_a_list_as_csv(shop: Desk) -> None:
    (row,) = csv.DictReader(io.StringIO(shop.run("report", "--unpriced", "--csv").out))
    assert (row["model"], row["cost"], row["outcome"]) == ("mystery-1", "", "ok")


def test_ids_stay_whole_and_bars_fit_on_a_terminal(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = shop.run("report", "--unattributed", "--json").json["unattributed"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    assert row["event"] in shop.run("report", "--unattributed").out
    lines = shop.run("report").out.splitlines()
    assert "█" * 12 in shop.run("report", "--by", "owner", "--period", "2026-10").out
    table = lines[1 : lines.index("") if "" in lines else len(lines)]
    assert all(len(line) <= 80 for line in lines), lines
    assert not any(line.strip() and set(line.strip()) <= {"█"} for line in table)
