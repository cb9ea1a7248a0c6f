"""Langfuse's export: disjoint usage, both spellings, and what is no generation."""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk
from exports import causes, document, ndjson, owners, table

import costspan
from costspan.adapter import Operation

Row = dict[str, Any]
RUN = "0ad1cd04-0db6-41ce-a6ac-ab9ee3b36b03"


def generation(**more: Any) -> Row:
    """600 fresh tokens, 400 cached, 20 out, as its API gives it."""
    return {
        "id": "obs-1",
        "traceId": "t-1",
        "type": "GENERATION",
        "name": "answer",
        "startTime": "2026-10-05T12:00:00.000Z",
        "endTime": "2026-10-05T12:00:01.000Z",
        "model": "gpt-4o-mini",
        "usageDetails": {"input": 600, "input_cached_tokens": 400, "output": 20, "total": 1020},
        "costDetails": {"input": 0.00009, "total": 0.000132},
        "level": "DEFAULT",
        "metadata": {"tenant": "acme"},
        "userId": "u-1",
        **more,
    }


def snake(row: Row) -> Row:
    """As its export to a bucket has it."""
    names = {"traceId": "trace_id", "startTime": "start_time", "endTime": "end_time",
             "usageDetails": "usage_details", "costDetails": "cost_details",
             "model": "provided_model_name", "userId": "user_id"}  # fmt: skip
    return {names.get(name, name): value for name, value in row.items()}


def ingest(desk: Desk, rows: list[Row], *options: object) -> Any:
    return desk.run("ingest", "langfuse", ndjson(desk.folder / "l.ndjson", rows), *options)


def test_every_spelling_is_the_same_observation(desk: Desk) -> None:
    ran = ingest(desk, [generation()], "--json")
    assert (ran.code, causes(ran)) == (0, {"same": 1})
    assert owners(desk) == {"acme": ("0.000132000000", 1)}
    for rows in ([snake(generation())], [generation()]):
        path = table(desk.folder / "l.csv", rows)
        again = desk.run("ingest", "langfuse", path, "--json").json
        assert (again["duplicates"], again["conflicts"], again["new"]) == (1, 0, 0)


@pytest.mark.parametrize(
    ("usage", "flag", "cost"),
    [
        ({"input": 1000, "input_cached_tokens": 400, "output": 20, "total": 1020},
         "cached_inside_input", "0.000132000000"),
        ({"input": 600, "cache_read_input_tokens": 400, "output": 15,
          "output_reasoning_tokens": 5}, None, "0.000132000000"),
        ({"input": 10, "output": 5, "total": 99}, "usage_total_differs", "0.000004500000"),
        ({"input": -1, "output": 5}, "invalid_usage", None),
        ({"input": 10, "output": 5, "images_of_cats": 3}, None, None),
        ({"total": 30}, "usage_total_only", None),
        ({}, None, None),
    ],
)  # fmt: skip
def test_usage(desk: Desk, usage: Row, flag: str | None, cost: str | None) -> None:
    ran = ingest(desk, [generation(usageDetails=usage)], "--json")
    assert set(ran.json["flags"]) - {"estimated"} == ({flag} if flag else set())
    assert owners(desk) == {"acme": (cost, 1)}


def test_the_columns_of_the_ui_and_the_rows_of_the_bucket(desk: Desk) -> None:
    flat = {"inputUsage": "1000", "outputUsage": "20", "totalUsage": "1020",
            "totalCost": "0.000162", "providedModelName": "gpt-4o-mini"}  # fmt: skip
    plain = {k: v for k, v in generation().items() if k not in ("usageDetails", "costDetails")}
    ui = table(desk.folder / "ui.csv", [{**plain, **flat, "model": ""}])
    ran = desk.run("ingest", "langfuse", ui, "--json")
    assert (causes(ran), owners(desk)) == ({"same": 1}, {"acme": ("0.000162000000", 1)})
    bucket = {**snake(generation(id="b")), "start_time": "2026-10-05 12:00:00.000000",
              "total_cost": 0.000132, "project_id": "p"}  # fmt: skip
    assert causes(ingest(desk, [bucket], "--json")) == {"same": 1}
    page = document(desk.folder / "v2.json", [generation(id="v2")])
    assert causes(desk.run("ingest", "langfuse", page, "--json")) == {"same": 1}


def test_traces_are_not_observations(desk: Desk) -> None:
    trace = {"id": "t-1", "timestamp": "2026-10-05T12:00:00Z", "name": "chat", "totalCost": 1}
    ran = ingest(desk, [trace])
    assert ran.code == 2
    assert "observations are read (not traces)" in ran.err
    assert not desk.ledger.exists()


def test_what_is_left_out_and_rejected(desk: Desk) -> None:
    rows = [
        generation(id="s", type="SPAN"),
        generation(id="a", type="AGENT", totalCost=0.5),
        generation(id=None),
        generation(id="x", startTime="never"),
        generation(id="y", metadata={}, userId=None),
        generation(id="z", level="ERROR", usageDetails={}),
    ]
    ran = ingest(desk, rows, "--json")
    assert ran.code == 1
    assert [each["where"] for each in ran.json["rejected"]] == ["line 3", "line 4"]
    assert ran.json["left_out"] == {
        "SPAN is no generation": 1,
        "AGENT is no generation, although it has an amount": 1,
    }
    (nobody,) = ran.json["unattributed"]
    assert nobody["reason"] == "empty: metadata.tenant, metadata.tenant_id, user_id"
    assert nobody["rows"] == 1


def test_a_run_that_was_recorded_live_is_met(desk: Desk) -> None:
    costspan.configure(ledger=desk.ledger, spool=desk.spool, background=False)
    with costspan.attribute("globex"):
        run = Operation.start(
            f"langchain:{RUN}", layer="framework", kind="model",
            requested_model="gpt-4o-mini", provider="openai",
        )  # fmt: skip
    run.end(usage={"input": 600, "cache_read": 400, "output": 20}, executed_model="gpt-4o-mini")
    costspan.flush()
    assert ingest(desk, [generation(id=RUN)], "--json").json["met"] == 1
    assert owners(desk) == {"globex": ("0.000132000000", 1)}
