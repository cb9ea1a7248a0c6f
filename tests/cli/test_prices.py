"""`costspan prices`: rows, and why one of them prices a model."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from desk import Desk

CONTRACT = """
[book]
id = "ours"

[aliases]
"house-model-2026-01-01" = "house-model"

[[price]]
model = "house-model"
effective_to = 2026-06-01
input = "4"
output = "8"

[[price]]
model = "house-model"
effective_from = 2026-06-01
input = "3"
output = "6"
"""


@pytest.fixture
def contract(tmp_path: Path) -> Path:
    path = tmp_path / "contract.toml"
    path.write_text(CONTRACT, "utf-8")
    return path


def test_why_by_date(desk: Desk, contract: Path) -> None:
    asked = ("prices", "why", "house-model-2026-01-01", "--prices", contract)
    ran = desk.run(*asked, "--at", "2026-05-31", "--json")
    ours = ran.json["books"][0]
    assert (ran.code, ours["outcome"], ours["row"]["rates"]["input"]) == (0, "chosen", "4")
    ours = desk.run(*asked, "--at", "2026-06-01", "--json").json["books"][0]
    assert ours["row"]["rates"]["input"] == "3"
    out = desk.run(*asked, "--at", "2026-06-01").out
    assert "ours  chosen" in out
    assert "2026-06-01.." in out
    assert "not then  ..2026-06-01 input=4 output=8" in out


def test_a_tier_without_a_row_has_no_price(desk: Desk, contract: Path) -> None:
    ran = desk.run("prices", "why", "house-model", "--tier", "batch", "--prices", contract)
    assert ran.code == 3
    assert "no book has a price" in ran.out
    assert "missed" in ran.out


def test_list(desk: Desk, contract: Path) -> None:
    rows = desk.run("prices", "list", "--book", "ours", "--prices", contract, "--json").json["rows"]
    assert [row["rates"]["input"] for row in rows] == ["4", "3"]
    ran = desk.run("prices", "list", "--model", "house-*", "--prices", contract)
    assert "2 rows" in ran.out
    assert "..2026-06-01" in ran.out
    cells = desk.run("prices", "list", "--model", "HOUSE", "--prices", contract, "--csv").out
    assert [row["output"] for row in csv.DictReader(io.StringIO(cells))] == ["8", "6"]
    assert desk.run("prices", "list", "--model", "no-such-*", "--prices", contract).code == 3
    assert desk.run("prices", "list", "--book", "nobodys", "--prices", contract).code == 2


def test_the_books_the_ledger_kept(shop: Desk) -> None:
    ran = shop.run("prices", "list", "--ledger-books", "--book", "contract", "--json")
    assert {row["model"] for row in ran.json["rows"]} == {"gpt-4o", "gpt-4o-mini"}
    assert str(shop.ledger) in ran.err
    why = shop.run("prices", "why", "gpt-4o", "--ledger-books", "--json").json["books"]
    assert (why[0]["book"], why[0]["outcome"]) == ("contract", "chosen")


def test_reading_creates_no_ledger(desk: Desk) -> None:
    assert desk.run("prices", "list", "--ledger-books").code == 3
    assert not desk.ledger.exists()


def test_a_contract_that_cannot_be_used(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[[price]]\nmodel = "x"\ninput = 0.1\n', "utf-8")
    ran = desk.run("prices", "list", "--prices", path)
    assert ran.code == 2
    assert "bad.toml" in ran.err
    assert "Traceback" not in ran.err
