"""`costspan restate`: what changes is said, posted once, and can be taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from desk import Desk, Ran

HAND = ("--by", "ann", "--reason", "the contract came late")
DEARER = '[book]\nid = "late"\n[[price]]\nmodel = "gpt-4o"\ninput = "5"\noutput = "20"\n'


@pytest.fixture
def dearer(tmp_path: Path) -> Path:
    path = tmp_path / "late.toml"
    path.write_text(DEARER, "utf-8")
    return path


def restate(shop: Desk, *options: object) -> Ran:
    return shop.run("restate", "--period", "2026-11", *options, *HAND)


def totals(shop: Desk) -> Any:
    return shop.run("report", "--json").json


def test_a_month_there_and_back(shop: Desk, dearer: Path) -> None:
    before = totals(shop)
    tried = restate(shop, "--prices", dearer, "--dry-run", "--json").json
    assert (tried["recorded"], tried["changed"], totals(shop)) == (False, 3, before)
    done = restate(shop, "--prices", dearer, "--json").json
    assert (done["recorded"], done["changed"]) == (True, 3)
    assert done["differences"] == [
        {"owner": "@unattributed", "cost": "0.002500000000", "charge": "0.000000000000"},
        {"owner": "acme", "cost": "0.004500000000", "charge": "0.004500000000"},
    ]
    assert done["books"][0].startswith("late ")
    assert done["books"][1] == "those of the policy in force"
    again = restate(shop, "--prices", dearer)
    assert "nothing was recorded" in again.out
    assert "0 postings" in again.out
    undone = restate(shop, "--undo")
    assert undone.code == 0
    assert "in all" in undone.out
    now = totals(shop)
    assert now["totals"]["cost"] == before["totals"]["cost"]
    assert now["rows"] == before["rows"]
    assert shop.run("rebuild").code == 0


def test_one_event_by_a_kept_book_and_why_it_has_that_price(shop: Desk, dearer: Path) -> None:
    kept = restate(shop, "--prices", dearer, "--json").json["books"][0].split()[1]
    restate(shop, "--undo")
    done = shop.run("restate", "--event", "resp-acme", "--book", kept, *HAND)
    assert "1 event decided again, 1 changed" in done.out
    why = shop.run("prices", "why", "--event", "resp-acme")
    assert "restated by ann: the contract came late" in why.out
    assert "late  chosen" in why.out


def test_charges_and_rules(shop: Desk, tmp_path: Path) -> None:
    charges = tmp_path / "charges.toml"
    charges.write_text('[[charge]]\ntenant = "acme"\nfactor = "2"\n', "utf-8")
    done = restate(shop, "--charges", charges, "--json").json
    assert [(each["owner"], each["cost"]) for each in done["differences"]] == [
        ("acme", "0.000000000000")
    ]
    assert done["differences"][0]["charge"] == "0.014500000000"
    rules = tmp_path / "rules.toml"
    rules.write_text('profile = "chargeback"\n', "utf-8")
    done = restate(shop, "--rules", rules, "--json").json
    assert done["differences"][0]["charge"] == "-0.014500000000"


def test_what_gpus_cost(shop: Desk, tmp_path: Path) -> None:
    gpus = tmp_path / "gpus.toml"
    gpus.write_text(
        '[[capacity]]\nmodel = "mystery-1"\nperiod = "2026-11"\ngpu_hours = "10"\n'
        'usd_per_gpu_hour = "2.5"\nbasis = "usage"\ncapacity = 100\n',
        "utf-8",
    )
    ran = restate(shop, "--capacity", gpus, "--json")
    (model,) = ran.json["models"]
    assert (model["tokens"], model["used"], model["idle"]) == (
        "20",
        "5.000000000000",
        "20.000000000000",
    )
    shown = restate(shop, "--capacity", gpus)
    assert "nothing was recorded" in shown.out
    assert "mystery-1  usage" in shown.out
    assert totals(shop)["balanced"] is True
    assert shop.run("rebuild").code == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "say one thing to restate with"),
        (("--undo", "--book", "x"), "say one thing to restate with"),
        (("--book", "nobodys"), "no kept price book"),
        (("--prices", "missing.toml"), "cannot be read"),
        (("--capacity", "missing.toml"), "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said(shop: Desk, options: tuple[str, ...], said: str) -> None:
    ran = restate(shop, *options)
    assert (ran.code, said in ran.err) == (2, True)
    assert "Traceback" not in ran.err


def test_nobody_moves_money_without_a_name(shop: Desk) -> None:
    assert shop.run("restate", "--period", "2026-11", "--undo").code == 2
    nameless = shop.run(
        "restate", "--period", "2026-11", "--book", "x", "--by", " ", "--reason", ""
    )
    assert (nameless.code, "every hand" in nameless.err) == (2, True)
    assert shop.run("restate", "--event", "nobodys", "--undo", *HAND).code == 3
    assert shop.run("restate", "--event", "x", "--capacity", "y", *HAND).code == 3
