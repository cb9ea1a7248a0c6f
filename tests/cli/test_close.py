"""`costspan close` and `costspan verify`: a month is sealed, or it says what stands against it."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from desk import Desk, Ran

from costspan.core.journal.records import encode_body
from costspan.core.recorder import Recorder
from costspan.core.schema import Observation

sys.path.append(str(Path(__file__).parents[1] / "verify"))

from keys_on_disk import ed25519, secret

JANUARY = 1_736_000_000_000_000_000  # 2025: over, whatever the day
HAND = ("--by", "ann", "--reason", "month's end")
PRICED: dict[str, Any] = {
    "tenant": "acme",
    "executed_model": "gpt-4o",
    "usage": {"input": 1000, "output": 100},
    "provider_result": "ok",
    "started_at": JANUARY,
}


def priced(desk: Desk, *ids: str, **facts: Any) -> None:
    assert desk.ingest({"attempt_id": each, **PRICED, **facts} for each in ids).code == 0


def closed(desk: Desk, *options: object, month: str = "2025-01") -> Ran:
    return desk.run("close", month, *HAND, *options)


def test_a_month_is_sealed_and_verifies(empty: Desk) -> None:
    priced(empty, "a1", "a2")
    ran = closed(empty)
    assert ran.code == 0, ran.err
    assert "2025-01 is closed: 2 postings sealed by ann (month's end)" in ran.out
    assert "unsigned" in ran.out
    verified = empty.run("verify")
    assert (verified.code, "every seal holds" in verified.out) == (0, True)
    assert empty.run("verify", "--period", "2025-01").code == 0
    assert empty.run("verify", "--period", "2025-02").code == 1
    again = closed(empty)
    assert (again.code, "is closed" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("month", "hand", "said"),
    [
        ("2025-13", HAND, "2025-13"),
        ("9998-01", HAND, "is not over"),
        ("2025-01", ("--by", " ", "--reason", "x"), "--by is empty"),
        ("2025-01", ("--by", "ann"), "--reason"),
    ],
)
def test_what_cannot_be_closed(empty: Desk, month: str, hand: tuple[str, ...], said: str) -> None:
    ran = empty.run("close", month, *hand)
    assert (ran.code, said in ran.err) == (2, True)


def test_what_stands_against_a_close_is_said_and_forcing_is_on_record(empty: Desk) -> None:
    priced(empty, "a1")
    priced(empty, "a2", executed_model="nobody-knows")
    priced(empty, "a3", phase="start", usage=None, provider_result=None)
    priced(empty, "later", started_at=JANUARY + 40 * 86_400 * 10**9, usage=None)
    ran = closed(empty)
    assert ran.code == 1
    assert "1 open calls of the period" in ran.out
    assert "1 events of unknown cost in the period, 0 are allowed" in ran.out
    assert closed(empty, "--json").json["closed"] is False
    assert empty.run("verify", "--json").json["checkpoints"] == []
    forced = closed(empty, "--force", "--json")
    assert forced.code == 0
    assert len(forced.json["checkpoint"]["forced"]) == 2
    assert "1 open calls" in empty.run("verify").out
    # What was forced over does not stand against the next month, and is said.
    later = closed(empty, "--unpriced-threshold", "1", month="2025-02")
    assert (later.code, "2 events of closed months still" in later.out) == (0, True)


def test_calls_without_a_time_would_be_on_no_statement(empty: Desk) -> None:
    priced(empty, "a1")
    priced(empty, "a2", started_at=None)
    refused = closed(empty)
    assert (refused.code, "1 calls that nobody gave a time" in refused.out) == (1, True)
    when = {"attempt_id": "a2", "started_at": JANUARY}
    assert empty.ingest([when]).code == 0
    assert closed(empty).code == 0


def test_the_threshold_may_be_a_setting(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    priced(empty, "a1", executed_model="nobody-knows")
    for value, code in (("0", 1), ("-1", 2), ("many", 2), ("1", 0)):
        monkeypatch.setenv("COSTSPAN_UNPRICED_THRESHOLD", value)
        assert closed(empty).code == code, value


def test_segments_that_wait_come_first(empty: Desk) -> None:
    """One that is complete, and one that a live writer holds."""
    priced(empty, "a1")
    recorder = Recorder(empty.spool)
    seen = Observation(attempt_id="a2", tenant="acme", flat_cost="1", started_at=JANUARY)
    recorder.append_body(encode_body(seen))
    live = closed(empty)
    assert (live.code, "1 records of the period are with live writers" in live.out) == (1, True)
    recorder.rotate()
    ran = closed(empty)
    assert (ran.code, "1 segments wait in" in ran.out) == (1, True)
    assert empty.run("drain").code == 0
    assert closed(empty).code == 0


def test_records_of_later_months_do_not_stand_against_it(empty: Desk) -> None:
    priced(empty, "a1")
    recorder = Recorder(empty.spool)
    later = JANUARY + 40 * 86_400 * 10**9
    seen = Observation(attempt_id="a2", tenant="acme", flat_cost="1", started_at=later)
    recorder.append_body(encode_body(seen))
    assert closed(empty).code == 0
    recorder.rotate()


def test_pools_are_shared_out_before_the_seal(empty: Desk) -> None:
    priced(empty, "a1")
    priced(empty, "a2", cause="router", initiator="platform", tenant=None)
    ran = closed(empty, "--allocate", "activity", "--json")
    assert (ran.code, ran.json["allocated_entries"]) == (0, 2)
    assert ran.json["checkpoint"]["postings"] == 4
    assert empty.run("verify").code == 0


def allocated(desk: Desk) -> dict[str, str]:
    """Owner -> cost of what was shared out."""
    found = desk.run("report", "--by", "owner,bucket", "--csv").out.splitlines()
    rows = list(csv.DictReader(found))
    return {row["owner"]: row["cost"] for row in rows if row["bucket"] == "allocated"}


def test_a_close_that_is_refused_shares_out_nothing(empty: Desk) -> None:
    priced(empty, "a1")
    priced(empty, "a2", cause="router", initiator="platform", tenant=None)
    ran = closed(empty, "--allocate", "weighted")
    assert (ran.code, "pool router: weighted needs weights" in ran.err) == (2, True)
    assert empty.run("verify", "--json").json["checkpoints"] == []
    assert allocated(empty) == {}
    assert closed(empty, "--allocate", "activity").code == 0
    shared = allocated(empty)
    assert set(shared) == {"'@platform", "acme"}  # a spreadsheet's text, no formula
    priced(empty, "late", cause="router", initiator="platform", tenant=None)
    again = closed(empty, "--allocate", "activity")
    assert (again.code, "2025-01 is closed" in again.err) == (2, True)
    assert allocated(empty) == shared
    rule = empty.folder / "rule.toml"
    rule.write_text("nonsense", "utf-8")
    ran = closed(empty, "--allocate", rule, month="2025-02")
    assert (ran.code, str(rule) in ran.err) == (2, True)


def test_a_signed_close_says_what_it_proves(empty: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    priced(empty, "a1")
    key, shared = ed25519(empty.folder / "key.pem"), secret(empty.folder / "secret")
    monkeypatch.setenv("COSTSPAN_CHECKPOINT_KEY", str(key))
    kept = closed(empty, "--json")
    (empty.folder / "checkpoint.json").write_text(kept.out, "utf-8")
    assert closed(empty, "--key", shared, month="2025-02").code == 0
    public = empty.run("verify", "--print-public-key")
    (empty.folder / "public.pem").write_text(public.out, "utf-8")
    monkeypatch.delenv("COSTSPAN_CHECKPOINT_KEY")
    assert "not checked, this key was not given" in empty.run("verify").out
    ran = empty.run("verify", "--public-key", empty.folder / "public.pem", "--key", shared)
    assert ran.code == 0
    assert "only the holder of the private key can have signed it" in ran.out
    assert "whoever has the key to check it could have made it too" in ran.out
    refused = closed(empty, "--key", empty.folder / "public.pem", month="2025-03")
    assert (refused.code, "is a public key" in refused.err) == (2, True)
    assert empty.run("verify", "--checkpoint", empty.folder / "checkpoint.json").code == 0
    assert empty.run("verify", "--print-public-key").code == 2
    one = empty.run("verify", "--key", shared)
    assert (one.code, "checkpoint 2025-01: none of the keys" in one.out) == (0, False)
    one = empty.run("verify", "--public-key", empty.folder / "public.pem")
    assert (one.code, "checkpoint 2025-02: none of the keys" in one.out) == (1, True)


def test_with_a_key_an_unsigned_proof_is_none(empty: Desk) -> None:
    priced(empty, "a1")
    (empty.folder / "checkpoint.json").write_text(closed(empty, "--json").out, "utf-8")
    proof, key = empty.folder / "proof.json", secret(empty.folder / "secret")
    proof.write_text(empty.run("verify", "--prove", "a1").out, "utf-8")
    assert empty.run("verify", "--proof", proof).code == 0
    ran = empty.run("verify", "--proof", proof, "--key", key)
    assert (ran.code, "NOT PROVED: none of the keys" in ran.out) == (1, True)
    assert empty.run("verify", "--proof", proof, "--key", key, "--json").json[0]["is_good"] is False
    kept = ("--checkpoint", empty.folder / "checkpoint.json")
    assert empty.run("verify", "--proof", proof, "--key", key, *kept).code == 0
    assert empty.run("verify", "--key", key).code == 1
    assert empty.run("verify", "--key", key, *kept).code == 0


def test_a_close_that_was_made_anew_is_not_the_one_kept_elsewhere(empty: Desk) -> None:
    priced(empty, "a1")
    kept = closed(empty, "--json").json
    kept["checkpoint"]["reason"] = "another"
    path = empty.folder / "checkpoint.json"
    path.write_text(json.dumps(kept), "utf-8")
    ran = empty.run("verify", "--checkpoint", path)
    assert (ran.code, "the one that was kept elsewhere is not here" in ran.out) == (1, True)
    path.write_text("[]", "utf-8")
    assert empty.run("verify", "--checkpoint", path).code == 2


def test_one_line_is_proved_without_the_ledger(empty: Desk) -> None:
    priced(empty, "a1", "a2", "a3")
    (empty.folder / "checkpoint.json").write_text(closed(empty, "--json").out, "utf-8")
    proof = empty.folder / "proof.json"
    proof.write_text(empty.run("verify", "--prove", "a2").out, "utf-8")
    empty.ledger.unlink()
    ran = empty.run("verify", "--proof", proof, "--checkpoint", empty.folder / "checkpoint.json")
    assert ran.code == 0
    assert "is line 2 of the 3 that ann sealed as 2025-01" in ran.out
    assert "it is the checkpoint that was kept elsewhere" in ran.out
    assert empty.run("verify", "--proof", proof, "--json").json[0]["is_good"] is True
    changed = proof.read_text("utf-8").replace('"cost": 3500000000', '"cost": 3500000001')
    proof.write_text(changed, "utf-8")
    ran = empty.run("verify", "--proof", proof)
    assert (ran.code, "NOT in what the checkpoint" in ran.out) == (1, True)
    proof.write_text("nonsense", "utf-8")
    assert empty.run("verify", "--proof", proof).code == 2


def test_a_changed_amount_is_named(empty: Desk) -> None:
    priced(empty, "a1", "a2")
    closed(empty)
    with closing(sqlite3.connect(empty.ledger)) as db, db:
        db.execute("DROP TRIGGER postings_no_update")
        db.execute("UPDATE postings SET charge = charge - 1 WHERE event_id = 'a2'")
    ran = empty.run("verify")
    assert ran.code == 1
    assert "event a2: its postings are not what stands for it" in ran.out
    assert "NOT VERIFIED: 4 problems" in ran.out
    found = empty.run("verify", "--json").json
    assert (found["verified"], found["problems"], len(found["found"])) == (False, 4, 4)
