"""`costspan doctor`: what processes left in the spool, what they counted, what sinks took."""

from __future__ import annotations

import os
import sqlite3
import time
from types import ModuleType

import pytest
from desk import Desk
from doctor_desk import OK, findings_of, tell

import costspan
from costspan.cli.counted import counters_of
from costspan.core import hooks, runtime
from costspan.core.journal import records, spool
from costspan.core.journal.frames import MAGIC
from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url


def test_gaps_and_refusals(empty: Desk) -> None:
    empty.ingest([{"writer": "w", "seq": n, **OK} for n in (1, 2, 5)])
    ledger = open_url(f"sqlite:///{empty.ledger}", create=False)
    with ledger.settling(0) as settlement:
        settle(settlement, [], [records.Refusals("w", {"disk:28": 4}, 0)])
    ledger.close()
    found = findings_of(empty)
    assert (found["gaps"]["severity"], found["gaps"]["count"]) == ("error", 2)
    assert found["refused"]["count"] == 4
    assert "disk:28 (4)" in found["refused"]["what"]
    assert empty.run("doctor").code == 1


def test_the_spool(empty: Desk) -> None:
    costspan.configure(ledger=empty.ledger, spool=empty.spool, background=False)
    costspan.record({"tenant": "acme", "flat_cost": "1"})
    assert findings_of(empty)["live_writers"]["count"] == 1
    runtime.recorder().rotate()
    assert findings_of(empty)["undrained"]["severity"] == "note"
    (segment,) = spool.segments(empty.spool)
    hour_ago = time.time_ns() - 3600 * 10**9
    os.utime(segment, ns=(hour_ago, hour_ago))
    late = findings_of(empty)["undrained"]
    assert late["severity"] == "warning"
    assert "the oldest for 1 hour" in late["what"]
    segment.write_bytes(segment.read_bytes() + b"torn")
    empty.run("drain")
    torn = findings_of(empty)["quarantined"]
    assert (torn["severity"], torn["count"]) == ("warning", 1)
    assert "(4 bytes)" in torn["what"]
    assert "delete" not in torn["do"]
    (tail,) = (empty.spool / "quarantine").iterdir()
    whole = b"a record that was acknowledged"
    tail.write_bytes(len(whole).to_bytes(4, "little") + b"crc?" + whole)
    damage = findings_of(empty)["quarantined_damage"]
    assert (damage["severity"], damage["count"]) == ("error", 1)
    assert "had been acknowledged" in damage["what"]


def test_a_plugin_that_failed(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "problems", [hooks.Problem("stranger", "prices", "Boom: no")])
    ran = empty.run("doctor")
    assert ran.code == 1
    assert "plugin stranger failed in prices: Boom: no" in ran.out


def test_what_the_processes_counted(empty: Desk) -> None:
    """Every rung of the ladder and every fault, over all processes; cumulative counts once."""
    told = {
        "ladder:beside": 3, "ladder:held": 2, "ladder:late": 2, "breaker:spool:disk:28": 4,
        "sync_failed:5": 1, "refused:disk:28": 5, "drain_failed:LedgerBusy": 6,
        "plugin_hung:slow": 1, "plugin_failed:slow": 2, "claim_failed:13": 1,
        "quarantine_failed:28": 1, "segment_gone": 1, "unsettled:OverflowError": 1,
        "bind_outside_request": 9,
    }  # fmt: skip
    tell(
        empty,
        records.Counts("w1", {"ladder:beside": 1}, 0),
        records.Counts("w1", told, 0),
        records.Counts("w2", {"ladder:beside": 10, "refused:disk:28": 1}, 0),
        records.Refusals("w1", {"disk:28": 5}, 0),
        records.Refusals("w3", {"too_large": 7}, 0),
    )
    ran = empty.run("doctor", "--json", "--quick")
    assert ran.code == 1
    found = findings_of(empty)
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


def test_a_ledger_that_somebody_else_settles(empty: Desk) -> None:
    other = sqlite3.connect(empty.ledger, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ran = empty.run("doctor", "--json")
    assert ran.code == 0
    assert findings_of(empty)["ledger_busy"]["severity"] == "note"
    assert "settled by another process" in ran.json["busy"]
    # Where segments wait for long, that is why.
    path = empty.spool / f"{spool.segment_name(1, 'w', 0)}.seg"
    path.parent.mkdir()
    path.write_bytes(MAGIC)
    os.utime(path, ns=(0, 0))
    assert findings_of(empty)["ledger_busy"]["severity"] == "warning"
    other.execute("ROLLBACK")
    other.close()
    ran = empty.run("doctor", "--json")
    assert ran.json["busy"] is None
    assert "ledger_busy" not in findings_of(empty)


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
    found = findings_of(empty)
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
        note = findings_of(shop)["sink_behind"]
        assert (note["severity"], note["count"]) == ("note", 7)
        assert "down has taken postings up to number 0; 7 wait" in note["what"]
        ran = shop.run("drain")
        assert ran.code == 0
        assert "sink down: 7 postings to take, from 1: OSError: the other end is down" in ran.out
        warning = findings_of(shop)["sink_behind"]
        assert warning["severity"] == "warning"
        assert "it last failed here: OSError: the other end is down" in warning["what"]
        (standing,) = shop.run("doctor", "--json", "--quick").json["sinks"]
        assert (standing["sink"], standing["taken"], standing["waiting"]) == ("down", 0, 7)
    finally:
        hooks.plugins().unregister(name="down")
        hooks.problems[:] = [each for each in hooks.problems if each.plugin != "down"]
