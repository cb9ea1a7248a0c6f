"""`costspan ingest`: what goes in, what is sent back, and twice is once."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # no stubs among what the checks install
import pytest
from desk import Desk

from costspan.cli.ingest import Reject, fields_of, schema_text

CALL = {
    "tenant": "acme",
    "executed_model": "gpt-4o",
    "usage": {"input": 1000, "output": 100},
    "provider_result": "ok",
    "started_at": 1_790_000_000_000_000_000,
}
SCHEMA = Path(__file__).parents[2] / "docs" / "observation.schema.json"


def test_identity_may_be_anything_or_nothing(empty: Desk) -> None:
    ran = empty.ingest(
        [
            {"attempt_id": "a1", **CALL},
            {"operation_ids": ["langchain:r1"], **CALL},
            {"response_id": "resp1", **CALL},
            CALL,
            {"oid": "mine", **CALL},
            {"writer": "w", "seq": 1, **CALL},
        ]
    )
    assert ran.code == 0
    found = empty.run("report", "--json", "--by", "owner").json
    assert found["rows"] == [
        {"owner": "acme", "cost": "0.021000000000", "charge": "0.021000000000", "events": 6}
    ]
    assert empty.run("explain", "w:1").code == 0


def test_twice_is_once_and_equal_lines_are_counted(empty: Desk) -> None:
    lines = [CALL, CALL, {"attempt_id": "a1", **CALL}, dict(reversed(CALL.items()))]
    assert empty.ingest(lines, "--json").json["settled"]["observations"] == 4
    before = empty.run("report", "--json").json
    assert before["rows"][0]["events"] == 4
    again = empty.ingest(lines, "--json").json["settled"]
    assert (again["observations"], again["duplicates"]) == (0, 4)
    assert empty.run("report", "--json").json == before


def test_rejected_lines_are_named_and_the_rest_goes_in(empty: Desk) -> None:
    aside = empty.folder / "rejected.ndjson"
    lines = [
        json.dumps({"attempt_id": "a1", **CALL}),
        "not json",
        "[1, 2]",
        json.dumps({"attempt_id": "a2", "color": "red", **CALL}),
        "",
        "{}",
        json.dumps({"phase": "end", "layer": "sdk"}),
        json.dumps({"writer": "w", **CALL}),
        json.dumps({"schema_version": 99, **CALL}),
        '{"attempt_id": "a3", "flat_cost": NaN}',
        json.dumps({"attempt_id": "a4", **CALL}),
    ]
    ran = empty.ingest(lines, "--rejected", aside)
    assert ran.code == 1
    assert "2 new" in ran.out
    assert "8 rejected" in ran.out
    for number, reason in (
        (2, "not JSON"),
        (3, "not a JSON object"),
        (4, "unknown fields: 'color'"),
        (6, "says nothing"),
        (7, "says nothing"),
        (8, "writer and seq"),
        (9, "schema_version 99"),
        (10, "not JSON"),
    ):
        (line,) = [line for line in ran.err.splitlines() if line.startswith(f"line {number}:")]
        assert reason in line
    assert aside.read_text("utf-8").splitlines() == [
        lines[n - 1] for n in (2, 3, 4, 6, 7, 8, 9, 10)
    ]
    found = empty.run("report", "--json", "--by", "attempt_id").json
    assert [row["attempt_id"] for row in found["rows"]] == ["a1", "a4"]


def test_json_names_every_rejected_line(empty: Desk) -> None:
    ran = empty.ingest(["{}"] * 30 + [json.dumps(CALL)], "--json")
    assert ran.code == 1
    assert [each["line"] for each in ran.json["rejected"]] == list(range(1, 31))
    assert ran.json["lines"] == 31


def test_what_cannot_be_used_is_left_out_and_said(empty: Desk) -> None:
    ran = empty.ingest([{"attempt_id": "a1", **CALL, "usage": {"input": -1}, "tenant": "@me"}])
    assert ran.code == 0
    assert "invalid_usage (1)" in ran.out
    assert "tenant_invalid (1)" in ran.out


def test_a_byte_order_mark_and_windows_lines(empty: Desk) -> None:
    path = empty.folder / "windows.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"attempt_id": "a1", **CALL}).encode() + b"\r\n")
    assert empty.run("ingest", path).code == 0
    assert empty.run("explain", "a1").code == 0


def test_more_than_one_settlement(empty: Desk) -> None:
    small = {"tenant": "acme", "flat_cost": "0.000001"}
    ran = empty.ingest(({"attempt_id": f"a{n}", **small} for n in range(5_200)), "--json")
    assert ran.json["settled"]["events"] == 5_200
    assert empty.run("report", "--json").json["totals"]["cost"] == "0.005200000000"


def test_nothing_to_ingest(empty: Desk) -> None:
    assert empty.run("ingest").code == 2
    assert empty.run("ingest", empty.folder / "missing.ndjson").code == 2


def test_a_nest_of_brackets_is_no_observation() -> None:
    with pytest.raises(Reject, match=r"nested too deep|not JSON"):
        fields_of(b'{"raw_usage":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_the_published_schema_is_up_to_date(desk: Desk) -> None:
    assert SCHEMA.read_text("utf-8") == schema_text()
    assert desk.run("ingest", "--schema").out == schema_text()


def test_the_published_schema_holds_for_what_is_ingested() -> None:
    schema = json.loads(schema_text())
    jsonschema.validators.validator_for(schema).check_schema(schema)
    jsonschema.validate({"attempt_id": "a1", **CALL}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"attempt_id": "a1", "layer": "moon"}, schema)
