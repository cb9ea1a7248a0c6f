"""LiteLLM's rows: the books they make, what they meet, and what is said of the rest."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from desk import Desk
from exports import call, causes, document, ingest, ndjson, owners, table

import costspan
from costspan.adapter import Attempt
from costspan.core import runtime

Row = dict[str, Any]


def test_rows_that_a_proxy_made(desk: Desk, rows: list[Row]) -> None:
    ran = ingest(desk, rows, "--json")
    assert (ran.code, ran.json["new"], ran.json["rejected"]) == (0, 21, [])
    assert ran.json["left_out"] == {
        "refused by the proxy, no provider was called: HTTPException 401": 1
    }
    assert owners(desk) == {
        "acme": ("0.021273500000", 10),  # and one of unknown cost, in no amount
        "globex": ("0.013393500000", 6),
        "shared": ("0.000247500000", 2),  # of no team: its key's
        "@platform": ("0.000000000000", 1),
    }
    assert causes(ran) == {
        "same": 16,
        "host_has_no_price": 2,
        "custom_price": 1,
        "failed_call": 1,
        "no_usage": 1,
    }
    assert [(each["place"], each["rows"]) for each in ran.json["places"]] == [
        ("key", 2),
        ("team_id", 19),
    ]


def test_what_nobody_is_named_for_is_said_by_reason(desk: Desk, rows: list[Row]) -> None:
    ran = ingest(desk, rows, "--json", "--tenant-from", "team_id")
    assert owners(desk)["@unattributed"] == ("0.000247500000", 2)
    assert [(each["reason"], each["rows"], each["ours"]) for each in ran.json["unattributed"]] == [
        ("empty: team_id (filled: user)", 1, "0.000123000000"),
        ("empty: team_id (filled: user, end_user)", 1, "0.000124500000"),
    ]


def test_the_first_screen(desk: Desk, rows: list[Row]) -> None:
    said = ingest(desk, rows).out
    for part in (
        "read 22 rows of litellm-spendlogs, of calls from 2026-11-22 to 2026-11-22",
        "21 new, 0 in the ledger already",
        "acme       direct",
        "team_id: 19 rows, the proxy authenticated it",
        "custom_price: the host's configuration has a price of its own for the deployment",
    ):
        assert part in said, part
    again = ingest(desk, rows).out
    assert "nothing new: 21 in the ledger already" in again
    assert said.splitlines()[5:] == again.splitlines()[5:]


def test_a_table_for_a_spreadsheet(desk: Desk, rows: list[Row]) -> None:
    ran = ingest(desk, rows, "--csv")
    lines = list(csv.DictReader(io.StringIO(ran.out)))
    assert {line["cause"]: line["rows"] for line in lines}["custom_price"] == "1"
    assert sum(int(line["rows"]) for line in lines) == 21
    assert ingest(desk, rows, "--csv", "--json").code == 2


def test_every_format_is_the_same_rows(desk: Desk, rows: list[Row]) -> None:
    objects = [{**row, "metadata": json.loads(row["metadata"])} for row in rows]
    ran = ingest(desk, rows, "--json")
    before = desk.run("report", "--json", "--by", "owner,source,model").json
    files = [
        table(desk.folder / "rows.csv", rows),
        table(desk.folder / "rows.csv.gz", rows, packed=True),
        document(desk.folder / "rows.json", objects),
        ndjson(desk.folder / "page.ndjson", [json.dumps({"data": objects})]),
    ]
    for path in files:
        again = desk.run("ingest", "litellm-spendlogs", path, "--json")
        assert (again.code, again.json["new"], again.json["conflicts"]) == (0, 0, 0), path
        assert again.json["duplicates"] == ran.json["new"]
        assert again.json["differences"] == ran.json["differences"]
    assert desk.run("report", "--json", "--by", "owner,source,model").json == before


@pytest.mark.parametrize("live_first", [True, False])
@pytest.mark.parametrize("has_call_id", [True, False], ids=["call id", "response id"])
def test_a_call_that_was_recorded_live_is_met(
    desk: Desk, live_first: bool, has_call_id: bool
) -> None:
    def live() -> None:
        costspan.configure(ledger=desk.ledger, spool=desk.spool, background=False)
        with costspan.attribute("globex"):
            attempt = Attempt.start(
                layer="gateway", provider="openai", requested_model="gpt-4o-mini",
                operation_ids=("litellm:call-1",),
            )  # fmt: skip
        attempt.end(
            usage={"input": 600, "cache_read": 400, "output": 20},
            executed_model="gpt-4o-mini",
            response_id="openai//chatcmpl-1",
        )
        costspan.flush()
        runtime.recorder().rotate()
        desk.run("drain")

    row = call() if has_call_id else call(litellm_call_id=None)
    if live_first:
        live()
    ran = ingest(desk, [row], "--json")
    assert ran.json["met"] == live_first
    if not live_first:
        live()
    assert owners(desk) == {"globex": ("0.000132000000", 1)}
    assert ingest(desk, [row], "--json").json["met"] == 1


def test_rows_of_one_call_are_one_event_and_said(desk: Desk) -> None:
    bridge = call(2, litellm_call_id="call-1", call_type="aresponses")
    ran = ingest(desk, [call(), bridge], "--json")
    assert owners(desk) == {"acme": ("0.000132000000", 1)}
    assert causes(ran) == {"same": 1, "one_call_of_several_rows": 1}
    assert ran.json["totals"]["theirs"] == "0.000264000000"
    assert ran.json["totals"]["ours"] == "0.000132000000"


def test_by_row_believes_no_call_id(desk: Desk) -> None:
    again = call(2, litellm_call_id="call-1")
    assert ingest(desk, [call(), again], "--by-row").code == 0
    assert owners(desk) == {"acme": ("0.000264000000", 2)}


@pytest.mark.parametrize(
    ("options", "owner"),
    [
        ((), "acme"),
        (("--tenant-from", "end_user"), "eu-1"),
        (("--tenant-from", "api_key"), "88dc"),
        (("--tenant-from", "metadata.spend_logs_metadata.customer"), "deep"),
        (("--tenant-from", "metadata.nothing,end_user"), "eu-1"),
        (("--tenant-from", "metadata.nothing"), "@unattributed"),
    ],
)
def test_where_the_tenant_stands(desk: Desk, options: tuple[str, ...], owner: str) -> None:
    metadata = {**call()["metadata"], "spend_logs_metadata": {"customer": "deep"}}
    assert ingest(desk, [call(end_user="eu-1", metadata=metadata)], *options).code == 0
    assert list(owners(desk)) == [owner]


def test_a_place_that_is_none_is_refused(desk: Desk) -> None:
    ran = ingest(desk, [call()], "--tenant-from", "colour")
    assert ran.code == 2
    assert "team_id" in ran.err
    assert not desk.ledger.exists()


def test_a_tenant_that_can_be_none_is_nobodys(desk: Desk) -> None:
    ran = ingest(desk, [call(team_id="@platform")], "--json")
    assert ran.json["flags"]["tenant_invalid"] == 1
    assert [each["reason"] for each in ran.json["unattributed"]] == [
        "team_id holds what cannot be a tenant"
    ]


def test_bad_rows_are_rejected_where_they_stand_and_the_rest_goes_in(desk: Desk) -> None:
    aside = desk.folder / "rejected.ndjson"
    bad = [
        (2, "{", "not JSON"),
        (3, "[1]", "not a JSON object"),
        (4, call(request_id=""), "no request_id"),
        (5, call(3, startTime="soon", endTime=None), "no month"),
    ]
    lines = [call(1), *(row for _, row, _ in bad), call(2)]
    ran = ingest(desk, lines, "--rejected", aside)
    assert ran.code == 1
    for number, _, reason in bad:
        (line,) = [said for said in ran.err.splitlines() if said.startswith(f"line {number}:")]
        assert reason in line
    assert len(aside.read_text().splitlines()) == len(bad)
    assert owners(desk)["acme"][1] == 2


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 5},
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 90},
        },
        {"prompt_tokens": "many", "completion_tokens": 5},
        {"prompt_tokens": 1.5, "completion_tokens": 5},
        {"prompt_tokens": float("nan"), "completion_tokens": 5},
    ],
)
def test_impossible_tokens_are_unknown_and_flagged(desk: Desk, usage: Row) -> None:
    ran = ingest(desk, [call(metadata={"usage_object": usage})], "--json")
    assert (ran.code, ran.json["new"]) == (0, 1)
    assert ran.json["flags"]["invalid_usage"] == 1
    assert owners(desk) == {"acme": (None, 1)}


@pytest.mark.parametrize("spend", ["NaN", float("nan"), -1.0, "lots", float("inf")])
def test_impossible_money_is_no_amount(desk: Desk, spend: object) -> None:
    ran = ingest(desk, [call(spend=spend)], "--json")
    assert ran.json["flags"]["invalid:spend"] == 1
    assert causes(ran) == {"no_spend": 1}
    assert owners(desk)["acme"][0] == "0.000132000000"


def test_missing_columns_and_huge_metadata(desk: Desk) -> None:
    few = ("request_id", "spend", "startTime", "endTime", "model", "prompt_tokens",
           "completion_tokens", "team_id")  # fmt: skip
    old = {name: call(7)[name] for name in few}
    huge = call(8, metadata={**call()["metadata"], "x": "y" * 5_000_000})
    path = table(desk.folder / "old.csv", [old])
    ran = desk.run("ingest", "litellm-spendlogs", path, "--json")
    assert ran.json["flags"] == {"status_missing": 1, "usage_totals_only": 1}
    ran = desk.run("ingest", "litellm-spendlogs", table(desk.folder / "huge.csv", [huge]), "--json")
    assert (ran.code, ran.json["new"]) == (0, 1)
    assert desk.ledger.stat().st_size < 5_000_000
    torn = call(9, metadata='{"usage_object": {"pro')
    assert ingest(desk, [torn], "--json").json["flags"]["unreadable:metadata"] == 1


def test_rows_of_csv_that_are_torn_have_line_numbers(desk: Desk) -> None:
    path = table(desk.folder / "torn.csv", [call(1, user="two\nlines"), call(2)])
    path.write_bytes(path.read_bytes().rstrip()[:-40])
    ran = desk.run("ingest", "litellm-spendlogs", path, "--json")
    assert ran.code == 1
    assert [each["where"] for each in ran.json["rejected"]] == ["line 4"]


def test_a_batch_is_one_event_however_often_it_was_polled(desk: Desk) -> None:
    polled = call(1, request_id="batch_1_batch_cost", call_type="aretrieve_batch")
    created = call(2, request_id="batch_1", call_type="acreate_batch", spend=0.0, total_tokens=0,
                   metadata={}, prompt_tokens=0, completion_tokens=0)  # fmt: skip
    poll = {**created, "request_id": "batch_2_batch_cost", "call_type": "aretrieve_batch"}
    files = {**created, "request_id": "file-1", "call_type": "acreate_file"}
    ran = ingest(desk, [created, polled, poll, files], "--json")
    assert ran.json["left_out"] == {
        "a poll of an unfinished batch": 1,
        "create_file is no call of a model": 1,
    }
    assert owners(desk)["acme"][1] == 1


def test_who_failed_and_what_a_client_left(desk: Desk) -> None:
    metadata = call()["metadata"]
    gone = {**metadata, "error_information": {"error_message": "Client disconnected the request"}}
    down = {"error_information": {"error_code": "500", "error_class": "InternalServerError"}}
    ingest(
        desk,
        [
            call(1, metadata=gone),
            call(2, status="failure", spend=0, metadata=down, prompt_tokens=0, completion_tokens=0),
        ],
    )
    found = desk.run("report", "--json", "--by", "outcome,error_type").json["rows"]
    assert {(row["outcome"], row["error_type"]) for row in found} == {
        ("cancelled_by_user", ""),
        ("failed", "InternalServerError"),
    }


def test_what_is_no_source(desk: Desk) -> None:
    empty = desk.folder / "empty"
    empty.write_bytes(b"")
    for arguments in (
        ("litellm-spendlogs",),
        ("litellm-spendlogs", desk.folder / "missing.csv"),
        ("litellm-spendlogs", empty),
        ("nonsense", empty),
        ("langfuse", "postgresql://nowhere/x"),
        ("langfuse", empty, "--by-row"),
    ):
        assert desk.run("ingest", *arguments).code == 2, arguments
    assert not desk.ledger.exists()
