"""`costspan doctor` on the books: every trap is provoked and named; clean books have none."""

from __future__ import annotations

import time
from contextlib import closing

import msgspec
from desk import Desk
from doctor_desk import OK, change_books, findings_of

from costspan.core.settle import settle
from costspan.core.settle.ledger import open_url


def test_clean_books(empty: Desk) -> None:
    empty.ingest([{"attempt_id": "a1", **OK}])
    ran = empty.run("doctor", "--json")
    assert ran.code == 0
    assert findings_of(empty) == {}
    assert ran.json["counts"]["events"] == 1
    assert str(empty.ledger) in ran.err


def test_books_not_balanced(shop: Desk) -> None:
    change_books(shop, "UPDATE lines SET cost_pico = cost_pico + 1 WHERE owner = 'acme'")
    ran = shop.run("doctor")
    assert ran.code == 1
    assert "ERROR    not_balanced" in ran.out


def test_the_shop(shop: Desk) -> None:
    change_books(shop, "DELETE FROM counted")  # by this process, in tests before this one
    found = findings_of(shop)
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
    found = findings_of(empty)
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
    found = findings_of(empty)
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
    found = findings_of(empty)
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
    found = findings_of(empty)
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
    found = findings_of(empty)
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
    found = findings_of(empty)
    assert ran.code == 1
    assert found["identity_conflict"]["severity"] == "error"
    assert found["conflict"]["count"] == 1
    assert found["unmatched"]["count"] == 1


def test_a_gateway_whose_own_records_are_missing(empty: Desk) -> None:
    empty.ingest([{"attempt_id": "a1", "flags": ["downstream"], **OK}])
    assert findings_of(empty)["unmatched_downstream"]["count"] == 1


def test_fields_that_were_left_out_are_named(empty: Desk) -> None:
    empty.ingest([{"attempt_id": f"a{n}", **OK, "cause": "whim"} for n in range(4)])
    found = findings_of(empty)
    assert found["invalid_field"]["severity"] == "warning"
    assert "invalid:cause (4)" in found["invalid_field"]["what"]
    assert "flags" not in found


def test_policies_that_changed(empty: Desk) -> None:
    assert "policy_changes" not in findings_of(empty)
    empty.run("drain", "--profile", "chargeback")
    note = findings_of(empty)["policy_changes"]
    assert (note["severity"], note["count"]) == ("note", 1)


def test_a_policy_that_begins_when_a_wrong_clock_says(empty: Desk) -> None:
    empty.run("drain")
    with closing(open_url(f"sqlite:///{empty.ledger}", create=False)) as ledger:
        [held] = ledger.reading().policies()
        with ledger.settling(1) as settlement:
            ahead = msgspec.structs.replace(held, books=(), effective_from=3_000_000_000 * 10**9)
            settle(settlement, [], [ahead])
    warned = findings_of(empty)["policy_ahead"]
    assert warned["severity"] == "warning"
    assert "from 2065-01-24" in warned["what"]


def test_a_quick_look_takes_no_look_at_the_events(shop: Desk) -> None:
    change_books(shop, "DELETE FROM counted")
    change_books(shop, "UPDATE events SET content = x'c1'")
    ran = shop.run("doctor", "--quick")
    assert ran.code == 0
    assert "the events were not looked at (--quick)" in ran.out
    assert shop.run("doctor").code == 1
