"""`costspan replay`: the golden books, in any order, and books that are not as expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from desk import Desk

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ("ownership.json", "merge.json")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("options", [[], ["--shuffle", "7"], ["--shuffle", "8", "--batches", "3"]])
def test_golden_books(desk: Desk, name: str, options: list[str]) -> None:
    ran = desk.run("replay", GOLDEN / name, *options)
    assert ran.code == 0
    assert "0 differ" in ran.out
    assert not desk.ledger.exists()


@pytest.mark.parametrize("name", FILES)
def test_json_is_the_format_of_expected(desk: Desk, name: str) -> None:
    golden = json.loads((GOLDEN / name).read_text("utf-8"))
    ran = desk.run("replay", GOLDEN / name, "--json")
    printed = {each["id"]: each for each in ran.json["scenarios"]}
    assert set(ran.json) == {"scenarios"}
    assert ran.err == ""
    for scenario in golden["scenarios"]:
        books, expected = printed[scenario["id"]], scenario["expected"]
        assert books["events"] == expected["events"]
        assert books["ledger"] == expected["ledger"]
        assert expected["totals"].items() <= books["totals"].items()
        assert books.get("by_period") == expected.get("by_period")


def _changed(tmp_path: Path, change: dict[str, Any]) -> Path:
    golden = json.loads((GOLDEN / "ownership.json").read_text("utf-8"))
    golden["scenarios"] = golden["scenarios"][:2]
    golden["scenarios"][0]["expected"]["totals"].update(change)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(golden), "utf-8")
    return path


def test_books_that_differ(desk: Desk, tmp_path: Path) -> None:
    path = _changed(tmp_path, {"cost": "9.000000000000"})
    ran = desk.run("replay", path)
    assert ran.code == 1
    assert 'totals[cost]: expected "9.000000000000", found "0.006500000000"' in ran.out
    assert "2 scenarios, 2 with expected books, 1 differ" in ran.out
    ran = desk.run("replay", path, "--json")
    assert ran.code == 1
    assert len(ran.json["scenarios"]) == 2
    assert "expected" in ran.err


def test_without_expected_books_it_only_prints(desk: Desk, tmp_path: Path) -> None:
    path = _changed(tmp_path, {})
    golden = json.loads(path.read_text("utf-8"))
    for scenario in golden["scenarios"]:
        del scenario["expected"]
    path.write_text(json.dumps(golden), "utf-8")
    ran = desk.run("replay", path, "--json")
    assert ran.code == 0
    assert ran.json["scenarios"][0]["totals"]["cost"] == "0.006500000000"
    assert "2 scenarios, 0 with expected books" in desk.run("replay", path).out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "Expecting value"),
        ("[]", "not a JSON object"),
        ('{"schema": "other"}', "schema is 'other'"),
        ('{"schema": "costspan-scenarios/1", "scenarios": [{"id": "x"}]}', "deliveries"),
        ('{"schema": "costspan-scenarios/1", "scenarios": [3]}', "scenario 1"),
        (
            '{"schema": "costspan-scenarios/1", "scenarios":'
            ' [{"id": "x", "deliveries": [], "profile": "none"}]}',
            "no profile 'none'",
        ),
    ],
)
def test_a_file_that_is_no_scenario(desk: Desk, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content, "utf-8")
    ran = desk.run("replay", path)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err


def test_no_such_file(desk: Desk) -> None:
    assert desk.run("replay", "nowhere.json").code == 2


@pytest.mark.parametrize("scheme", ["sqlite:///", ""])
def test_golden_books_in_files(desk: Desk, scheme: str) -> None:
    """Beside the ledger that is named, which is not looked at; nothing is left."""
    desk.ledger.write_bytes(b"somebody's books")
    before = sorted(desk.folder.iterdir())
    ran = desk.run("replay", GOLDEN / "merge.json", "--ledger", f"{scheme}{desk.ledger}")
    assert ran.code == 0
    assert "0 differ" in ran.out
    assert desk.ledger.read_bytes() == b"somebody's books"
    assert sorted(desk.folder.iterdir()) == before


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("sqlite:////nowhere/at/all.db", "there is no folder /nowhere/at"),
        ("mysql://here/there", "scheme 'mysql'"),
        ("postgresql://nobody@/none?host=/nowhere", "cannot be opened"),
    ],
)
def test_where_no_ledger_can_be_made(desk: Desk, place: str, said: str) -> None:
    ran = desk.run("replay", GOLDEN / "merge.json", "--ledger", place)
    assert ran.code == 4
    assert said in ran.err
    assert "Traceback" not in ran.err
