"""`costspan allocate` and `costspan backtest`: what they show, post and refuse."""

from __future__ import annotations

import csv
import io

import pytest
from desk import HOSTILE, Desk

HAND = ("--by", "ann", "--reason", "month's end")


def test_the_pools_are_shared_and_the_table_says_so(shop: Desk) -> None:
    ran = shop.run("allocate", "2026-11", *HAND)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert "pool router of @platform: activity: own cost, shown to tenants, not charged" in lines
    assert "in 0.000015000000 = out 0.000015000000 + kept 0.000000000000" in lines
    assert "pool unattributed of @unattributed: the rule shares it out to nobody" in lines
    assert "posted 3 entries: direct and agent rows are as they were" in lines
    report = shop.run("report", "--json", "--by", "owner,bucket", "--period", "2026-11")
    assert report.code == 0
    rows = {(row["owner"], row["bucket"]): row["cost"] for row in report.json["rows"]}
    assert rows["@platform", "allocated"] == "-0.000015000000"
    assert rows["acme", "direct"] == shop_cost(shop, "acme")
    again = shop.run("allocate", "2026-11", *HAND)
    assert "all of it stood in the books already: nothing was posted" in again.out


def shop_cost(shop: Desk, tenant: str) -> str:
    found = shop.run("report", "--json", "--by", "owner,bucket", "--period", "2026-11").json
    rows = {(row["owner"], row["bucket"]): row["cost"] for row in found["rows"]}
    return str(rows[tenant, "direct"])


def test_a_dry_run_posts_nothing(shop: Desk) -> None:
    before = shop.run("report", "--json").out
    ran = shop.run("allocate", "2026-11", "--dry-run", "--method", "even", "--charged")
    assert "dry run: nothing was posted; 2 shares would change" in ran.out
    assert "even, charged to tenants" in ran.out
    assert shop.run("report", "--json").out == before


def test_json_and_csv_add_up(shop: Desk) -> None:
    found = shop.run("allocate", "2026-11", "--json", "--charged", *HAND).json
    assert (found["posted"], found["dry_run"]) == (3, False)
    pools = {pool["pool"]: pool for pool in found["pools"]}
    assert pools["router"]["in"] == pools["router"]["out"] == "0.000015000000"
    assert {each["tenant"] for each in pools["router"]["tenants"]} == {"acme", HOSTILE}
    assert all(each["share"] == each["charge"] for each in pools["router"]["tenants"])
    ran = shop.run("allocate", "2026-11", "--csv", *HAND)
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert {row["tenant"] for row in rows} == {"acme", f"'{HOSTILE}", "'@unattributed"}


def test_a_rule_file(shop: Desk) -> None:
    rule = shop.folder / "rule.toml"
    rule.write_text(
        'name = "ours"\n[pool.router]\nmethod = "weighted"\nweights = {new = 1}', "utf-8"
    )
    ran = shop.run("allocate", "2026-11", "--rule", rule, *HAND)
    assert "rule ours" in ran.out.splitlines()[0]
    found = shop.run("statement", "new", "--period", "2026-11", "--json").json
    assert found["allocated"]["cost"] == "0.000015000000"
    assert shop.run("allocate", "2026-11", "--undo", *HAND).code == 0
    found = shop.run("statement", "new", "--period", "2026-11", "--json").json
    assert found["allocated"]["cost"] == "0.000000000000"
    rule.write_text("[pool.rooter]", "utf-8")
    ran = shop.run("allocate", "2026-11", "--rule", rule, *HAND)
    assert ran.code == 2
    assert "did you mean router?" in ran.err
    assert str(rule) in ran.err


def test_what_cannot_be_allocated(shop: Desk) -> None:
    for arguments, said in (
        (("2026-11",), "every hand that moves money has a name"),
        (("2026-11", "--by", "ann", "--reason", " "), "every hand that moves money has a name"),
        (("2026-13", *HAND), "no period"),
        (("2026-11", "--method", "weighted", *HAND), "weighted needs weights"),
        (("2026-11", "--method", "shapley", *HAND), "a Shapley value is of a game"),
        (("2026-11", "--undo", "--charged", *HAND), "--undo shares out nothing"),
        (("2026-11", "--rule", "missing.toml", *HAND), "No such file"),
    ):
        ran = shop.run("allocate", *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert said in ran.err
    assert shop.run("report", "--json", "--by", "bucket").json["balanced"]


def test_a_month_without_overhead(empty: Desk) -> None:
    ran = empty.run("allocate", "2026-11", *HAND)
    assert (ran.code, "nothing to allocate: the platform bore nothing in 2026-11" in ran.out) == (
        0, True,
    )  # fmt: skip


def test_backtest_scores_best_first_and_says_what_scores_mean(shop: Desk) -> None:
    ran = shop.run("backtest", "--period", "2026-11")
    assert ran.code == 0
    lines = ran.out.splitlines()
    assert lines[1].startswith("hidden: 0.164500000000 USD of 2 tenants, direct and agent;")
    assert any(line.startswith("WAPE ") for line in lines)
    found = shop.run("backtest", "--period", "2026-11", "--json").json
    tried = found["methods"]
    assert found["hidden_cost"] == "0.164500000000"
    wapes = [each["wape"] for each in tried if "wape" in each]
    assert wapes == sorted(wapes)
    even = next(each for each in tried if each["method"] == "even")
    # Half of 0.1645 each: acme 0.0145, the other 0.15; both are off by 0.06775.
    assert even["wape"] == "0.823708"
    assert (even["bias"], even["to_small"]) == ("0.000000", "0.411854")
    assert (even["worst"], even["worst_error"]) == (HOSTILE, "-0.067750000000")


def test_backtest_of_some_methods(shop: Desk) -> None:
    found = shop.run("backtest", "--period", "2026-11", "--methods", "tokens, even", "--json").json
    assert [each["method"] for each in found["methods"]] == ["tokens", "even"]
    ran = shop.run("backtest", "--period", "2026-11", "--methods", "guess")
    assert ran.code == 2
    assert "there is no method 'guess' to test" in ran.err
    ran = shop.run("backtest", "--period", "2026-09")
    assert ran.code == 2
    assert "nothing to hide" in ran.err


def test_a_whole_invoice_goes_in_and_is_taken_out_again_and_it_says_so(shop: Desk) -> None:
    bill, columns = shop.folder / "gpu.csv", shop.folder / "columns.toml"
    bill.write_text("day,amount\n2026-11-01,8.00\n", "utf-8")
    columns.write_text(
        '[invoice]\nprovider = "acme-gpu"\naccount = "org-9"\ncurrency = "USD"\n'
        '[columns]\namount = "amount"\nday = "day"\n', "utf-8",
    )  # fmt: skip
    imported = shop.run("invoices", "import", bill, "--columns", columns, "--by", "ann")
    assert imported.code == 0, imported.err
    rule = shop.folder / "rule.toml"
    rule.write_text('[[invoice]]\nsource = "csv"\naccount = "org-9"\n', "utf-8")
    before = shop.run("report", "--json").json["rows"]
    ran = shop.run("allocate", "2026-11", "--rule", rule, *HAND)
    assert "invoice csv org-9: 8.000000000000 USD, of no known call" in ran.out
    found = shop.run("allocate", "2026-11", "--json", "--undo", *HAND).json
    (taken,) = found["invoices"]
    assert (taken["amount"], taken["brought_in"]) == ("0.000000000000", "-8.000000000000")
    assert taken["note"] == "the rule does not name it: it is taken out of the books"
    assert shop.run("allocate", "2026-11", "--rule", rule, *HAND).code == 0
    ran = shop.run("allocate", "2026-11", "--undo", *HAND)
    assert "8.000000000000 USD taken out; the rule does not name it" in ran.out
    rows = shop.run("report", "--json").json["rows"]
    assert [row for row in rows if row["cost"] != "0.000000000000"] == before


def test_posting_very_many_shares_shows_progress(
    shop: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("costspan.cli.progress.LINE_EVERY_SECONDS", 0.0)
    ran = shop.run("allocate", "2026-11", *HAND)
    assert "posting: 3 entries" in ran.err.splitlines()
    late = {"attempt_id": "late", "cause": "router", "initiator": "platform", "flat_cost": "1"}
    assert shop.ingest([{**late, "started_at": "2026-10-21T08:00:00Z"}]).code == 0
    ran = shop.run("close", "2026-10", *HAND, "--allocate", "even", "--force")
    assert ran.code == 0, ran.err
    assert "sharing out: 2 entries" in ran.err.splitlines()
