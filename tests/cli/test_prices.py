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


def test_history_tells_what_moved(desk: Desk, contract: Path) -> None:
    asked = ("prices", "history", "house-model-2026-01-01", "--prices", contract)
    first, second = desk.run(*asked, "--json").json["rows"]
    assert (first["moved"], second["moved"]) == (
        {},
        {"input": ["4", "3"], "output": ["8", "6"]},
    )
    out = desk.run(*asked).out
    assert "2026-06-01.." in out
    assert "input 4 -> 3" in out
    assert "2 rows" in out
    cells = desk.run(*asked, "--csv").out
    moved = [row["moved"] for row in csv.DictReader(io.StringIO(cells))]
    assert moved == ["", "input 4 -> 3, output 8 -> 6"]
    assert desk.run("prices", "history", "nobodys-model", "--prices", contract).code == 3


def test_history_of_a_public_model(desk: Desk) -> None:
    ran = desk.run("prices", "history", "o3", "--provider", "openai", "--tier", "standard")
    lines = [line for line in ran.out.splitlines() if line.startswith("genai-prices")]
    assert ["..2025-06-10" in lines[0], "input 10 -> 2" in lines[1]] == [True, True]


def test_diff_of_files_and_books(desk: Desk, contract: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(CONTRACT.replace('input = "3"', 'input = "2"'), "utf-8")
    ran = desk.run("prices", "diff", contract, other)
    assert (ran.code, "input 3 -> 2" in ran.out, "1 changed" in ran.out) == (0, True, True)
    assert desk.run("prices", "diff", contract, other, "--exit-code").code == 1
    same = desk.run("prices", "diff", contract, contract, "--exit-code")
    assert (same.code, "the same prices" in same.out) == (0, True)
    changes = desk.run("prices", "diff", contract, other, "--json").json["changes"]
    assert [(each["kind"], each["components"]) for each in changes] == [("changed", ["input"])]
    against = desk.run("prices", "diff", contract, "genai-prices", "--model", "house-*", "--json")
    assert {each["kind"] for each in against.json["changes"]} == {"removed"}
    assert against.json["after"]["id"] == "genai-prices"
    refused = desk.run("prices", "diff", contract, "nobodys")
    assert (refused.code, "no installed price book" in refused.err) == (2, True)


def test_diff_with_a_book_of_the_ledger(shop: Desk, contract: Path) -> None:
    ran = shop.run("prices", "diff", "contract", contract, "--json")
    assert ran.json["before"]["rows"] == 2
    by_hash = shop.run("prices", "diff", ran.json["before"]["sha256"][:10], contract, "--json")
    assert by_hash.json == ran.json
    assert str(shop.ledger) in by_hash.err


def test_the_price_of_an_event_and_why(shop: Desk) -> None:
    ran = shop.run("prices", "why", "--event", "resp-acme", "--json")
    plain = ran.json
    assert (ran.code, plain["cost"], plain["cost_rule"]) == (0, "0.003500000000", "K4")
    chosen = plain["books"][0]
    assert (chosen["book"], chosen["row"]["id"]) == ("contract", plain["price_row"])
    out = shop.run("prices", "why", "--event", "resp-acme").out
    assert "contract  chosen" in out
    assert "input=1,000" in out
    missing = shop.run("prices", "why", "--event", "nobodys")
    assert (missing.code, missing.out) == (3, "")
    assert shop.run("prices", "why").code == 2


def test_what_is_unpriced(shop: Desk) -> None:
    (row,) = shop.run("prices", "unpriced", "--json").json["unpriced"]
    assert (row["model"], row["events"], row["first"]) == ("mystery-1", 1, "2026-11-08")
    assert "contract: no row for mystery-1" in row["why"]
    assert "mystery-1" in shop.run("prices", "unpriced").out
    nothing = shop.run("prices", "unpriced", "--period", "2026-10")
    assert (nothing.code, "every usage has a price" in nothing.out) == (0, True)
    cells = shop.run("prices", "unpriced", "--csv").out
    assert next(csv.DictReader(io.StringIO(cells)))["events"] == "1"
