"""`costspan report --spikes`: the answer in the first line, then tables, JSON and CSV."""

from __future__ import annotations

import csv
import io

import pytest
from desk import Desk

LINES = [
    {
        "oid": f"x:{number}", "attempt_id": f"x{number}", "tenant": tenant,
        "tenant_source": "principal", "cause": "step", "initiator": "agent", "agent": "planner",
        "session": "s-9", "session_origin": "ours", "provider_result": "ok",
        "executed_model": "gpt-4o", "usage": {"input": 1000, "output": 100}, "flat_cost": cost,
        "started_at": day, "prompt_template": ["triage", "2"],
    }
    for number, (day, tenant, cost) in enumerate(
        [
            ("2026-12-01T00:00:00Z", "acme", "1"),
            ("2026-12-02T00:00:00Z", "globex", "0.5"),
            ("2026-12-08T00:00:00Z", "acme", "1"),
            ("2026-12-09T00:00:00Z", "acme", "1"),
            ("2026-12-09T01:00:00Z", "acme", "1"),
            ("2026-12-10T00:00:00Z", "globex", "0.5"),
            ("2026-12-10T00:00:00Z", "=1+1", "0.001"),
        ]
    )
]  # fmt: skip
WEEK = ("--since", "2026-12-08", "--until", "2026-12-15")


@pytest.fixture
def risen(empty: Desk) -> Desk:
    assert empty.ingest(LINES).code == 0
    return empty


def test_the_first_line_is_the_answer(risen: Desk) -> None:
    ran = risen.run("report", "--spikes", *WEEK)
    assert ran.code == 0
    first = ran.out.splitlines()[0]
    assert first == (
        "Cost rose by 2.00 USD (+133.4 %) from 2026-12-01..2026-12-08 to 2026-12-08..2026-12-15,"
        " driven by tenant acme (100.0 % of it), agent loop planner (100.0 % of it), prompt"
        " template triage@2 (100.0 % of it); mostly more events."
    )
    assert "\x1b" not in ran.out
    assert "tool chain" not in ran.out


def test_json_and_csv_say_the_same(risen: Desk) -> None:
    found = risen.run("report", "--spikes", *WEEK, "--by", "cause", "--json").json
    assert found["difference"] == "2.001000000000"
    assert found["answer"].startswith("Cost rose by 2.00 USD")
    acme = next(each for each in found["drivers"]["tenant"] if each["key"] == "acme")
    assert acme["volume"] == acme["difference"] == "2.000000000000"
    assert set(found["drivers"]) >= {"tenant", "loop", "session", "tool chain", "cause"}
    ran = risen.run("report", "--spikes", *WEEK, "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    tenants = {row["key"]: row for row in rows if row["dimension"] == "tenant"}
    assert tenants["acme"]["difference"] == "2.000000000000"
    assert tenants["'=1+1"]["state"] == "new"


def test_a_fall_and_a_standstill_are_said_too(risen: Desk) -> None:
    back = ("--since", "2026-12-01", "--until", "2026-12-08", "--before", "2026-12-08..2026-12-15")
    assert risen.run("report", "--spikes", *back).out.startswith("Cost fell by 2.00 USD (-57.2 %)")
    still = ("--since", "2027-01-01", "--until", "2027-01-02")
    assert risen.run("report", "--spikes", *still).out.startswith("Nothing moved")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--spikes",), "give --since and --until"),
        (("--spikes", *WEEK, "--period", "2026-12"), "no --period"),
        (("--spikes", *WEEK, "--before", "2026-12-01"), "a window"),
        (("--spikes", *WEEK, "--before", "2026-12-01..2026-12-09"), "overlap"),
        (("--spikes", *WEEK, "--by", "nonsense"), "no field"),
        (("--before", "2026-12-01..2026-12-02"), "--spikes"),
    ],
)
def test_what_cannot_be_asked_is_refused(risen: Desk, options: tuple[str, ...], said: str) -> None:
    ran = risen.run("report", *options)
    assert ran.code == 2
    assert said in ran.err
