"""`costspan report`: the sums, by what they are grouped, and what is listed with its reason."""

from __future__ import annotations

import csv
import io
import sqlite3

import pytest
from desk import HOSTILE, Desk

import costspan
from costspan.core import runtime
from costspan.core.read.books import Books
from costspan.core.settle.ledger import open_url


def test_sums(shop: Desk) -> None:
    found = shop.run("report", "--json", "--by", "owner").json
    costs = {row["owner"]: row["cost"] for row in found["rows"]}
    assert costs == {
        "acme": "0.014500000000",
        "globex": "0.007000000000",
        HOSTILE: "0.150000000000",
        "@platform": "0.000015000000",
        "@unattributed": "0.002500000000",
    }
    assert found["totals"]["cost"] == "0.174015000000"
    assert found["totals"]["unpriced_events"] == 1
    assert found["totals"]["open"] == 1


def test_tenants_by_cost_then_the_platform_and_nobody(shop: Desk) -> None:
    lines = shop.run("report", "--by", "owner").out.splitlines()
    owners = [line.split("  ")[0] for line in lines[2:7]]
    assert owners == [HOSTILE, "acme", "globex", "@unattributed", "@platform"]


def test_days_stay_in_their_order(shop: Desk) -> None:
    lines = shop.run("report", "--by", "day").out.splitlines()
    days = [line.split()[0] for line in lines if line.startswith("2026-")]
    assert days == sorted(days)
    assert len(days) > 3


def test_by_label(shop: Desk) -> None:
    found = shop.run("report", "--json", "--by", "label:team, owner", "--period", "2026-11").json
    rows = {(row["label:team"], row["owner"]): row["cost"] for row in found["rows"]}
    assert rows["blue", "acme"] == "0.014500000000"
    assert ("red", "globex") not in rows
    assert "(none)" in shop.run("report", "--by", "label:team").out


def test_period_and_span(shop: Desk) -> None:
    october = shop.run("report", "--json", "--period", "2026-10").json
    assert october["totals"]["cost"] == "0.007000000000"
    span = ("--since", "2026-11-06", "--until", "2026-11-07T10:00:00Z")
    assert shop.run("report", "--json", *span).json["totals"]["cost"] == "0.150015000000"
    shifted = ("--since", "2026-11-07T12:00:00+02:00", "--until", "2026-11-08")
    assert shop.run("report", "--json", *shifted).json["totals"]["cost"] == "0.002500000000"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--period", "2026-13"], "YYYY-MM"),
        (["--since", "yesterday"], "no date"),
        (["--since", "2026-11-02", "--until", "2026-11-02"], "before"),
        (["--by", "nobody"], "no field 'nobody'"),
    ],
)
def test_options_that_mean_nothing(shop: Desk, options: list[str], said: str) -> None:
    ran = shop.run("report", *options)
    assert ran.code == 2
    assert said in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_unattributed_and_why(shop: Desk) -> None:
    (row,) = shop.run("report", "--unattributed", "--json").json["unattributed"]
    assert (row["cost"], row["model"]) == ("0.002500000000", "gpt-4o")
    assert "no tenant was attributed" in row["why"]
    assert row["event"] in shop.run("report", "--unattributed").out
    assert shop.run("report", "--unattributed", "--period", "2026-10", "--json").json == {
        "unattributed": []
    }


def test_why_nobody_owns_it(empty: Desk) -> None:
    usage = {"usage": {"input": 10}, "executed_model": "gpt-4o", "provider_result": "ok"}
    empty.ingest(
        [
            {"attempt_id": "a1", "parent": "gone", "parent_origin": "ours", **usage},
            {"attempt_id": "a2", "parent": "a1", "parent_origin": "ours", **usage},
            {"attempt_id": "a3", "session": "s1", "session_origin": "ours", **usage},
            {"attempt_id": "a4", "tenant": "@platform", **usage},
            {"attempt_id": "a5", "members": {"acme": 1, "@x": 1}, **usage},
        ]
    )
    rows = empty.run("report", "--unattributed", "--json").json["unattributed"]
    why = {row["event"]: row["why"] for row in rows}
    assert "gone is not in the ledger" in why["a1"]
    assert "a1 names no tenant" in why["a2"]
    assert "whose session s1 is" in why["a3"]
    assert "tenant_invalid" in why["a4"]
    assert "members of the batch" in why["a5"]
    half = next(row["cost"] for row in rows if row["event"] == "a5")
    assert half == "0.000012500000"


def test_unpriced_and_why(empty: Desk) -> None:
    ok = {"provider_result": "ok"}
    empty.ingest(
        [
            {"attempt_id": "a1", "executed_model": "mystery-1", "usage": {"input": 1}, **ok},
            {"attempt_id": "a2", "executed_model": "gpt-4o-mini", "provider": "nobody-known",
             "usage": {"input": 1, "holograms": 3}, **ok},
            {"attempt_id": "a3", "executed_model": "gpt-4o", **ok},
            {"attempt_id": "a4", "requested_model": "gpt-4o", "provider_result": "failed",
             "error_type": "Timeout"},
            {"attempt_id": "a5", "usage": {"input": 1}, **ok},
        ]
    )  # fmt: skip
    rows = empty.run("report", "--unpriced", "--json").json["unpriced"]
    why = {row["event"]: row["why"] for row in rows}
    assert "mystery-1" in why["a1"]
    assert "holograms" in why["a2"]
    assert "stream" in why["a3"]
    assert "Timeout" in why["a4"]
    assert "nobody names the model" in why["a5"]
    assert all(row["cost"] is None for row in rows)
    plain = empty.run("report", "--unpriced").out
    assert plain.count("unknown") >= 5


def test_books_that_do_not_balance_are_not_shown_as_good(shop: Desk) -> None:
    with sqlite3.connect(shop.ledger) as connection:
        connection.execute("UPDATE lines SET cost_pico = cost_pico + 1 WHERE owner = 'acme'")
    with Books(open_url(f"sqlite:///{shop.ledger}", create=False)) as books:
        assert not books.is_balanced()  # what doctor asks; the roll-up alone agrees with itself
    ran = shop.run("report", "--by", "owner,feature")
    assert ran.code == 1
    assert "NOT BALANCED" in ran.out
    with sqlite3.connect(shop.ledger) as connection:
        connection.execute("UPDATE lines SET events = 0 WHERE owner = 'acme'")
    connection.close()
    ran = shop.run("report", "--json")
    assert ran.code == 1
    assert ran.json["balanced"] is False
    assert "NOT BALANCED" in ran.err


def test_what_waits_in_the_spool_is_hinted_at(shop: Desk) -> None:
    costspan.configure(ledger=shop.ledger, spool=shop.spool, background=False)
    costspan.record({"tenant": "acme", "flat_cost": "1"})
    assert "1 still being written" in shop.run("report").out
    runtime.recorder().rotate()
    assert f"1 segment in {shop.spool} (costspan drain)" in shop.run("report").out


def test_groups_of_nothing_but_unknown_cost_are_shown(empty: Desk) -> None:
    unknown = {"executed_model": "mystery-1", "usage": {"input": 1}, "provider_result": "ok"}
    empty.ingest(
        [
            {"attempt_id": "a1", "tenant": "acme", **unknown, "executed_model": "gpt-4o"},
            {"attempt_id": "a2", "tenant": "acme", **unknown},
            {"attempt_id": "a3", "tenant": "globex", **unknown},
            {"attempt_id": "a4", "tenant": "globex", **unknown},
        ]
    )
    acme, globex = empty.run("report", "--by", "owner", "--json").json["rows"]
    assert acme == {
        "owner": "acme", "cost": "0.000002500000", "charge": "0.000002500000", "events": 1
    }  # fmt: skip
    assert globex == {"owner": "globex", "cost": None, "charge": None, "events": 2}
    rows = list(csv.DictReader(io.StringIO(empty.run("report", "--by", "owner", "--csv").out)))
    assert [(row["owner"], row["cost"], row["unpriced"]) for row in rows] == [
        ("acme", "0.000002500000", "1"),
        ("globex", "", "2"),
    ]
    lines = [line.split() for line in empty.run("report", "--by", "owner").out.splitlines()]
    assert ["globex", "unknown", "unknown", "2", "2"] in lines
    (known,) = csv.DictReader(
        io.StringIO(empty.run("report", "--by", "model,owner", "--csv").out.split("mystery")[0])
    )
    assert known["model"] == "gpt-4o"


def test_by_flags_counts_an_event_once(empty: Desk) -> None:
    usage = {"usage": {"input": 1000, "output": 10}, "provider_result": "ok", "tenant": "acme"}
    cheaper = {"requested_model": "gpt-4o", "executed_model": "gpt-4o-mini"}
    empty.ingest(
        [
            {"attempt_id": "a1", **usage, **cheaper, "cause": "whim"},
            {"attempt_id": "a2", **usage, **cheaper},
            {"attempt_id": "a3", **usage, "executed_model": "gpt-4o"},
        ]
    )
    found = empty.run("report", "--by", "flags", "--json").json
    assert {row["flags"]: row["events"] for row in found["rows"]} == {
        "charged_above_cost, invalid:cause": 1,
        "charged_above_cost": 1,
        "": 1,
    }
    assert found["balanced"]


def test_totals_of_a_program(shop: Desk) -> None:
    with Books(open_url(f"sqlite:///{shop.ledger}", create=False)) as books:
        assert books.totals(by="owner, bucket") == books.totals()
        for period in ("2026-13", "2026-1", "november"):
            with pytest.raises(ValueError, match="YYYY-MM"):
                books.totals(period=period)


def test_a_selection_that_holds_nothing(shop: Desk) -> None:
    out = shop.run("report", "--period", "2020-01").out
    assert "none in this selection" in out
    assert "no events here yet" not in out


@pytest.mark.parametrize("option", ["--rules", "--prices", "--profile"])
def test_a_reader_takes_no_policy(shop: Desk, option: str) -> None:
    ran = shop.run("report", option, "billing")
    assert ran.code == 2
    assert "the ledger's own policy" in ran.err


def test_no_ledger_while_records_wait(desk: Desk) -> None:
    assert "wait in" not in desk.run("report").err
    desk.spool.mkdir()
    (desk.spool / "w.seg").write_bytes(b"costspan\x01")
    for command in (["report"], ["explain", "req-1"]):
        ran = desk.run(*command)
        assert ran.code == 3
        assert f"1 segment of records wait in {desk.spool}: run costspan drain" in ran.err


@pytest.mark.parametrize("setting", ["gateways = 5", "profile = 5", 'spool = ["a"]'])
def test_settings_of_the_wrong_type_are_said(
    shop: Desk, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    file = shop.folder / "costspan.toml"
    file.write_text(setting, "utf-8")
    monkeypatch.setenv("COSTSPAN_CONFIG", str(file))
    monkeypatch.delenv("COSTSPAN_SPOOL")
    for command in (["report"], ["doctor"], ["drain"]):
        ran = shop.run(*command)
        assert ran.code == 2
        assert setting.split()[0] in ran.err


def test_a_ledger_that_holds_nothing(empty: Desk) -> None:
    ran = empty.run("report")
    assert ran.code == 0
    assert "no events here yet" in ran.out
    assert "balanced" in ran.out


def test_by_cost_centre(shop: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = shop.run("report", "--by", "cost_centre")
    assert (ran.code, ran.out) == (2, "")
    assert "by cost_centre and parent_tenant needs a directory: --directory FILE" in ran.err
    path = shop.folder / "tenants.csv"
    path.write_text("tenant,parent,cost_centre\nacme,globex,CC-1\nglobex,,CC-1\n", "utf-8")
    by = ("report", "--by", "cost_centre, parent_tenant", "--period", "2026-11")
    found = shop.run(*by, "--directory", path, "--json").json
    rows = {(row["cost_centre"], row["parent_tenant"]): row["cost"] for row in found["rows"]}
    assert rows == {
        ("", ""): "0.150000000000",
        ("@platform", "@platform"): "0.000015000000",
        ("@unattributed", "@unattributed"): "0.002500000000",
        ("CC-1", "globex"): "0.014500000000",
    }
    monkeypatch.setenv("COSTSPAN_DIRECTORY", str(path))
    lines = shop.run("report", "--by", "cost_centre").out.splitlines()
    centres = [line.split()[0] for line in lines[2:6]]
    assert centres == ["(none)", "CC-1", "@unattributed", "@platform"]
    span = ("--since", "2026-11-07", "--until", "2026-11-10")
    lines = shop.run("report", "--by", "cost_centre", *span).out.splitlines()
    # Though nobody knows what the calls of CC-1 cost on these days.
    assert [line.split()[0] for line in lines[2:4]] == ["CC-1", "@unattributed"]
    table = csv.DictReader(io.StringIO(shop.run("report", "--csv", "--by", "cost_centre").out))
    assert {row["cost_centre"]: row["cost"] for row in table}["CC-1"] == "0.021500000000"
    path.write_text("tenant,parent\nacme,acme\n", "utf-8")
    assert shop.run("report", "--by", "cost_centre").code == 2
    assert shop.run("report").code == 0  # which asks for nothing of it
