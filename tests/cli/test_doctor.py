"""`costspan doctor`: every trap is provoked and named; clean books have none."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from desk import Desk

import costspan
from costspan.cli.counted import counters_of
from costspan.cli.surroundings import mounted_as, of_place
from costspan.core import hooks, runtime
from costspan.core.journal import records, spool
from costspan.core.journal.frames import MAGIC
from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url

OK: dict[str, Any] = {
    "tenant": "acme",
    "executed_model": "gpt-4o",
    "usage": {"input": 1000, "output": 100},
    "provider_result": "ok",
    "attempts_hidden": 0,
}


def _found(desk: Desk) -> dict[str, dict[str, Any]]:
    findings = desk.run("doctor", "--json").json["findings"]
    # What this process counted of itself belongs to the tests before this one.
    return {each["check"]: each for each in findings if each["check"] not in ("counter", "mount")}


def _change(desk: Desk, statement: str) -> None:
    """Do to the file what nobody should."""
    with closing(sqlite3.connect(desk.ledger)) as connection, connection:
        connection.execute(statement)


def test_clean_books(empty: Desk) -> None:
    empty.ingest([{"attempt_id": "a1", **OK}])
    ran = empty.run("doctor", "--json")
    assert ran.code == 0
    assert _found(empty) == {}
    assert ran.json["counts"]["events"] == 1
    assert str(empty.ledger) in ran.err


def test_no_ledger(desk: Desk) -> None:
    ran = desk.run("doctor")
    assert ran.code == 3
    assert "there is no ledger at" in ran.out
    assert not desk.ledger.exists()


def test_books_not_balanced(shop: Desk) -> None:
    _change(shop, "UPDATE lines SET cost_pico = cost_pico + 1 WHERE owner = 'acme'")
    ran = shop.run("doctor")
    assert ran.code == 1
    assert "ERROR    not_balanced" in ran.out


def test_the_shop(shop: Desk) -> None:
    _change(shop, "DELETE FROM counted")  # by this process, in tests before this one
    found = _found(shop)
    assert found["unpriced"]["what"].startswith("mystery-1: ")
    assert found["open"]["count"] == 1
    assert "0.002500000000 USD" in found["unattributed"]["what"]
    assert set(found) == {"unpriced", "open", "unattributed"}
    assert all(each["severity"] == "warning" for each in found.values())


def test_calls_that_never_ended_and_calls_under_way(empty: Desk) -> None:
    now = time.time_ns()
    old, fresh = now - 3 * 86_400 * 10**9, now
    empty.ingest(
        [
            {"attempt_id": "a1", "phase": "start", "started_at": old},
            {"attempt_id": "a2", "phase": "start", "started_at": fresh},
        ]
    )
    found = _found(empty)
    assert "the oldest 3 days ago" in found["open"]["what"]
    assert found["open_now"]["count"] == 1


def test_calls_that_were_given_up(empty: Desk) -> None:
    """Three that the same process wrote last, one that lived on, one that was cancelled."""
    old = time.time_ns() - 3 * 86_400 * 10**9
    started = {"phase": "start", "started_at": old, "source": "litellm", "kind": "model"}
    gpt = {**started, "requested_model": "gpt-4o"}
    empty.ingest(
        [
            {**gpt, "oid": "w1:1", "attempt_id": "a1"},
            {"oid": "w1:2", "attempt_id": "ok", **OK},
            {**gpt, "oid": "w1:3", "attempt_id": "a2"},
            {**gpt, "oid": "w1:4", "attempt_id": "a3"},
            {**gpt, "oid": "w2:1", "attempt_id": "a4", "source": "langchain"},
            {"oid": "w2:2", "attempt_id": "a4", "delivery": "cancelled_by_user"},
            {**started, "oid": "w3:1", "attempt_id": "t1", "kind": "tool", "name": "search"},
        ]
    )
    empty.run("drain", "--sweep-older", 0)
    by_name = {
        each["what"].partition(",")[0]: each
        for each in empty.run("doctor", "--json").json["findings"]
        if each["check"] == "swept"
    }
    assert set(by_name) == {"model gpt-4o", "tool search"}
    model, tool = by_name["model gpt-4o"], by_name["tool search"]
    assert (model["count"], model["severity"]) == (4, "warning")
    assert (tool["count"], tool["severity"]) == (1, "note")
    for said in (
        "started by litellm (3), langchain (1)",
        "the oldest started 3 days ago",
        "1 were cancelled",
        "2 are the last that their process wrote",
        "1 look like",
    ):
        assert said in model["what"]
    found = _found(empty)
    assert not {"open", "open_now", "unmeasured", "flags"} & set(found)


def test_cost_that_nobody_knows(empty: Desk) -> None:
    empty.ingest(
        [
            {"attempt_id": "a1", **OK, "executed_model": "mystery-1"},
            {"attempt_id": "a2", **OK, "usage": None},
            {"attempt_id": "a3", **OK, "usage": None, "provider_result": "failed"},
            {"attempt_id": "a4", **OK, "usage": {"input": -1}},
        ]
    )
    found = _found(empty)
    assert "mystery-1" in found["unpriced"]["what"]
    assert "stream" in found["no_usage"]["what"]
    assert found["no_usage"]["count"] == 1  # the refused usage is no missing one
    assert "failed" in found["unmeasured"]["what"]
    assert found["invalid_usage"]["count"] == 1


def test_retries_that_callbacks_cannot_see(empty: Desk) -> None:
    empty.ingest(
        [
            {"attempt_id": "a1", **OK, "attempts_hidden": None},
            {"attempt_id": "a2", **OK, "attempts_hidden": 2},
        ]
    )
    found = _found(empty)
    assert "gpt-4o (1)" in found["retries_unseen"]["what"]
    assert found["hidden_retries"]["count"] == 2


def test_owners(empty: Desk) -> None:
    empty.ingest(
        [
            {"attempt_id": "a1", **OK, "tenant": "@platform"},
            {"attempt_id": "a2", **OK, "labels": {"x": "y" * 300}},
            {
                "attempt_id": "a3",
                **OK,
                "requested_model": "gpt-4o",
                "executed_model": "gpt-4o-mini",
            },
        ]
    )
    found = _found(empty)
    assert found["tenant_invalid"]["count"] == 1
    assert found["unattributed"]["count"] == 1
    assert "truncated" in found["flags"]["what"]
    assert found["charged_above_cost"]["count"] == 1


def test_records_that_post_nothing(empty: Desk) -> None:
    signed = {"tenant_source": "signed", **OK}
    empty.ingest(
        [
            {"oid": "x1", "attempt_id": "a1", **signed},
            {"oid": "x2", "attempt_id": "a1", **signed, "tenant": "globex"},
            {"oid": "x3", "attempt_id": "a2", **OK},
            {"oid": "x3", "attempt_id": "a2", **OK, "usage": {"input": 2}},
            {"oid": "x4", "attempt_id": "a3", "response_id": "r", **OK},
            {"oid": "x5", "attempt_id": "a4", "response_id": "r", **OK},
            {"oid": "x6", "response_id": "r", "delivery": "blocked"},
        ]
    )
    ran = empty.run("doctor")
    found = _found(empty)
    assert ran.code == 1
    assert found["identity_conflict"]["severity"] == "error"
    assert found["conflict"]["count"] == 1
    assert found["unmatched"]["count"] == 1


def test_a_gateway_whose_own_records_are_missing(empty: Desk) -> None:
    empty.ingest([{"attempt_id": "a1", "flags": ["downstream"], **OK}])
    assert _found(empty)["unmatched_downstream"]["count"] == 1


def test_gaps_and_refusals(empty: Desk) -> None:
    empty.ingest([{"writer": "w", "seq": n, **OK} for n in (1, 2, 5)])
    ledger = open_url(f"sqlite:///{empty.ledger}", create=False)
    with ledger.settling(0) as settlement:
        settle(settlement, [], [records.Refusals("w", {"disk:28": 4}, 0)])
    ledger.close()
    found = _found(empty)
    assert (found["gaps"]["severity"], found["gaps"]["count"]) == ("error", 2)
    assert found["refused"]["count"] == 4
    assert "disk:28 (4)" in found["refused"]["what"]
    assert empty.run("doctor").code == 1


def test_the_spool(empty: Desk) -> None:
    costspan.configure(ledger=empty.ledger, spool=empty.spool, background=False)
    costspan.record({"tenant": "acme", "flat_cost": "1"})
    assert _found(empty)["live_writers"]["count"] == 1
    runtime.recorder().rotate()
    assert _found(empty)["undrained"]["severity"] == "note"
    (segment,) = spool.segments(empty.spool)
    hour_ago = time.time_ns() - 3600 * 10**9
    os.utime(segment, ns=(hour_ago, hour_ago))
    late = _found(empty)["undrained"]
    assert late["severity"] == "warning"
    assert "the oldest for 1 hour" in late["what"]
    segment.write_bytes(segment.read_bytes() + b"torn")
    empty.run("drain")
    torn = _found(empty)["quarantined"]
    assert (torn["severity"], torn["count"]) == ("warning", 1)
    assert "(4 bytes)" in torn["what"]
    assert "delete" not in torn["do"]
    (tail,) = (empty.spool / "quarantine").iterdir()
    whole = b"a record that was acknowledged"
    tail.write_bytes(len(whole).to_bytes(4, "little") + b"crc?" + whole)
    damage = _found(empty)["quarantined_damage"]
    assert (damage["severity"], damage["count"]) == ("error", 1)
    assert "had been acknowledged" in damage["what"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rules", b"[[owner", "rules.toml"),
        ("rules", b"\xff", "rules.toml"),
        ("prices", b"[[price]]\nmodel = 5", "prices.toml"),
        ("prices", None, "prices.toml"),
    ],
)
def test_settings_that_cannot_be_used(
    empty: Desk, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes | None, said: str
) -> None:
    file = empty.folder / f"{name}.toml"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setenv(f"COSTSPAN_{name.upper()}", str(file))
    assert empty.run("doctor").code == 1
    found = _found(empty)["settings_unusable"]
    assert found["severity"] == "error"
    assert said in found["what"]


def test_a_profile_nobody_knows(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSTSPAN_PROFILE", "nobodys")
    assert "nobodys" in _found(empty)["settings_unusable"]["what"]


@pytest.mark.parametrize("below", ["", "deeper/spool"])
def test_a_spool_that_is_no_folder(
    empty: Desk, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    file = empty.folder / "file"
    file.write_text("", "utf-8")
    monkeypatch.setenv("COSTSPAN_SPOOL", str(file / below))
    ran = empty.run("doctor")
    assert ran.code == 1
    assert f"{file} is no folder" in ran.out
    assert "balanced" in empty.run("report").out


def test_a_ledger_that_is_damaged(desk: Desk) -> None:
    desk.ledger.write_bytes(b"SQLite format 3\0" + bytes(5000))
    desk.spool.mkdir()
    (desk.spool / "w.seg").write_bytes(b"costspan\x01")
    ran = desk.run("doctor", "--json")
    assert ran.code == 1
    found = {each["check"]: each for each in ran.json["findings"]}
    assert found["ledger_unusable"]["severity"] == "error"
    assert str(desk.ledger) in found["ledger_unusable"]["what"]
    assert found["undrained"]["count"] == 1


def test_a_page_of_the_ledger_that_is_damaged(shop: Desk) -> None:
    _change(shop, "UPDATE events SET content = x'c1'")
    ran = shop.run("doctor")
    assert ran.code == 1
    assert "ledger_unusable" in ran.out


def test_fields_that_were_left_out_are_named(empty: Desk) -> None:
    empty.ingest([{"attempt_id": f"a{n}", **OK, "cause": "whim"} for n in range(4)])
    found = _found(empty)
    assert found["invalid_field"]["severity"] == "warning"
    assert "invalid:cause (4)" in found["invalid_field"]["what"]
    assert "flags" not in found


def test_policies_that_changed(empty: Desk) -> None:
    assert "policy_changes" not in _found(empty)
    empty.run("drain", "--profile", "chargeback")
    note = _found(empty)["policy_changes"]
    assert (note["severity"], note["count"]) == ("note", 1)


def test_a_plugin_that_failed(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "problems", [hooks.Problem("stranger", "prices", "Boom: no")])
    ran = empty.run("doctor")
    assert ran.code == 1
    assert "plugin stranger failed in prices: Boom: no" in ran.out


MOUNTS = r"""/dev/vda / ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
overlay /var/lib/app overlay rw 0 0
server:/x /mnt/my\040share nfs4 rw 0 0
/dev/vdb /run/books ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind", "said"),
    [
        ("/run/ledger.db", "tmpfs", "in memory"),
        ("/var/lib/app/ledger.db", "overlay", "container"),
        ("/mnt/my share/ledger.db", "nfs4", "network"),
        ("/run/books/ledger.db", "ext4", ""),
        ("/running/ledger.db", "ext4", ""),
    ],
)
def test_where_the_ledger_lies(tmp_path: Path, path: str, kind: str, said: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS, "utf-8")
    assert mounted_as(Path(path), mounts) == kind
    findings = list(of_place("ledger", Path(path), mounts))
    assert [said in finding.what for finding in findings] == ([True] if said else [])


def test_a_system_without_a_list_of_mounts(tmp_path: Path) -> None:
    assert mounted_as(tmp_path, tmp_path / "none") is None


def _tell(desk: Desk, *told: records.Control) -> None:
    """Control records of processes that are gone."""
    ledger = open_url(f"sqlite:///{desk.ledger}", create=False)
    with ledger.settling(0) as settlement:
        settle(settlement, [], told)
    ledger.close()


def test_what_the_processes_counted(empty: Desk) -> None:
    """Every rung of the ladder and every fault, over all processes; cumulative counts once."""
    told = {
        "ladder:beside": 3, "ladder:held": 2, "ladder:late": 2, "breaker:spool:disk:28": 4,
        "sync_failed:5": 1, "refused:disk:28": 5, "drain_failed:LedgerBusy": 6,
        "plugin_hung:slow": 1, "plugin_failed:slow": 2, "claim_failed:13": 1,
        "quarantine_failed:28": 1, "segment_gone": 1, "unsettled:OverflowError": 1,
        "bind_outside_request": 9,
    }  # fmt: skip
    _tell(
        empty,
        records.Counts("w1", {"ladder:beside": 1}, 0),
        records.Counts("w1", told, 0),
        records.Counts("w2", {"ladder:beside": 10, "refused:disk:28": 1}, 0),
        records.Refusals("w1", {"disk:28": 5}, 0),
        records.Refusals("w3", {"too_large": 7}, 0),
    )
    ran = empty.run("doctor", "--json", "--quick")
    assert ran.code == 1
    found = _found(empty)
    counts = {check: each["count"] for check, each in found.items()}
    assert counts == {
        "ladder_beside": 13, "ladder_held": 2, "breaker": 4, "sync_failed": 1, "refused": 13,
        "drain_failed": 6, "plugin_hung": 1, "plugin_failed": 2, "claim_failed": 1,
        "quarantine_failed": 1, "segment_gone": 1, "unsettled": 1, "counted": 9,
    }  # fmt: skip
    assert "too_large (7), disk:28 (6)" in found["refused"]["what"]
    assert "spool:disk:28 (4)" in found["breaker"]["what"]
    errors = {check for check, each in found.items() if each["severity"] == "error"}
    assert errors == {"refused", "sync_failed", "segment_gone", "unsettled"}
    assert ran.json["counters"]["ladder:beside"] == 13


def test_counts_are_cumulative_whatever_a_ledger_keeps_of_them() -> None:
    told = [records.Counts(writer, {"x": n}, 0) for writer, n in (("w1", 3), ("w1", 2), ("w2", 1))]
    assert counters_of(told) == {"x": 4}


def test_a_quick_look_takes_no_look_at_the_events(shop: Desk) -> None:
    _change(shop, "DELETE FROM counted")
    _change(shop, "UPDATE events SET content = x'c1'")
    ran = shop.run("doctor", "--quick")
    assert ran.code == 0
    assert "the events were not looked at (--quick)" in ran.out
    assert shop.run("doctor").code == 1


def test_a_ledger_that_somebody_else_settles(empty: Desk) -> None:
    other = sqlite3.connect(empty.ledger, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ran = empty.run("doctor", "--json")
    assert ran.code == 0
    assert _found(empty)["ledger_busy"]["severity"] == "note"
    assert "settled by another process" in ran.json["busy"]
    # Where segments wait for long, that is why.
    path = empty.spool / f"{spool.segment_name(1, 'w', 0)}.seg"
    path.parent.mkdir()
    path.write_bytes(MAGIC)
    os.utime(path, ns=(0, 0))
    assert _found(empty)["ledger_busy"]["severity"] == "warning"
    other.execute("ROLLBACK")
    other.close()
    ran = empty.run("doctor", "--json")
    assert ran.json["busy"] is None
    assert "ledger_busy" not in _found(empty)


def test_every_spool_folder(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder beside too; and what a newer version wrote waits for no drain of this one."""
    beside = empty.folder / "beside"
    monkeypatch.setenv("COSTSPAN_SPOOL_BESIDE", str(beside))
    name = f"{spool.segment_name(1, 'w', 0)}.seg"
    for folder, version in ((empty.spool, 0), (beside, 1)):
        folder.mkdir()
        (folder / name).write_bytes(MAGIC[:-1] + bytes((MAGIC[-1] + version,)))
    ran = empty.run("doctor", "--json")
    assert ran.code == 1
    main, other = ran.json["spools"]
    assert (main["folder"], main["segments"], main["newer"]) == (str(empty.spool), 1, 0)
    assert (other["folder"], other["segments"], other["newer"]) == (str(beside), 1, 1)
    assert main["bytes"] == len(MAGIC)
    assert main["oldest_seconds"] >= 0
    found = _found(empty)
    assert str(beside) in found["newer_segments"]["what"]
    assert (found["undrained"]["count"], found["newer_segments"]["count"]) == (1, 1)
    ran = empty.run("drain")
    assert ran.code == 1
    assert "1 segment of a newer format stay" in ran.out
    assert [each["segments"] for each in empty.run("doctor", "--json").json["spools"]] == [0, 1]


def test_sinks_and_how_far_they_are(shop: Desk) -> None:
    def posted(batch: object) -> None:
        raise OSError("the other end is down")

    module = ModuleType("down")
    module.posted = hooks.hookimpl(posted)  # type: ignore[attr-defined]  # made by hand
    hooks.plugins().register(module, "down")
    try:
        note = _found(shop)["sink_behind"]
        assert (note["severity"], note["count"]) == ("note", 7)
        assert "down has taken postings up to number 0; 7 wait" in note["what"]
        ran = shop.run("drain")
        assert ran.code == 0
        assert "sink down: 7 postings to take, from 1: OSError: the other end is down" in ran.out
        warning = _found(shop)["sink_behind"]
        assert warning["severity"] == "warning"
        assert "it last failed here: OSError: the other end is down" in warning["what"]
        (standing,) = shop.run("doctor", "--json", "--quick").json["sinks"]
        assert (standing["sink"], standing["taken"], standing["waiting"]) == ("down", 0, 7)
    finally:
        hooks.plugins().unregister(name="down")
        hooks.problems[:] = [each for each in hooks.problems if each.plugin != "down"]
