"""`report --by user`, `erase`, `prune` and `rebuild --archive`, as an operator runs them."""

from __future__ import annotations

import pytest
from desk import Desk

from costspan.core.settle.close import close_period
from costspan.core.settle.ledger import open_url

ANN = "ann@example.com"
HAND = ("--by", "ops", "--reason", "request 17")
LINES = [
    {
        "oid": f"x:{number}", "attempt_id": f"x{number}", "tenant": "acme", "user": user,
        "tenant_source": "principal", "cause": "primary", "initiator": "user",
        "provider_result": "ok", "executed_model": "gpt-4o", "flat_cost": "1", "started_at": day,
    }
    for number, (user, day) in enumerate(
        [(ANN, "2026-08-03T00:00:00Z"), (ANN, "2026-09-03T00:00:00Z"),
         ("bob@example.com", "2026-08-04T00:00:00Z")]
    )
]  # fmt: skip


@pytest.fixture
def people(empty: Desk) -> Desk:
    assert empty.ingest(LINES).code == 0
    return empty


def close(desk: Desk, period: str) -> None:
    ledger = open_url(f"sqlite:///{desk.ledger}", create=False)
    close_period(ledger, period, "ann", "month's end", 2_000_000_000 * 10**9)
    ledger.close()


def users(desk: Desk, *options: str) -> dict[str, str]:
    rows = desk.run("report", "--by", "user", "--json", *options).json["rows"]
    return {row["user"]: row["cost"] for row in rows}


def test_a_report_names_persons_and_can_leave_them_behind_pseudonyms(people: Desk) -> None:
    assert users(people) == {ANN: "2.000000000000", "bob@example.com": "1.000000000000"}
    assert all(user.startswith("p:") for user in users(people, "--pseudonyms"))


def test_who_is_erased_is_nobody_and_the_sums_stay(people: Desk) -> None:
    totals = people.run("report", "--json").json
    done = people.run("erase", "--user", ANN, *HAND, "--json")
    assert done.code == 0
    assert ANN not in done.out
    pseudonym = done.json["pseudonym"]
    assert users(people) == {pseudonym: "2.000000000000", "bob@example.com": "1.000000000000"}
    assert people.run("report", "--json").json == totals
    again = people.run("erase", "--pseudonym", pseudonym, *HAND)
    assert again.code == 0
    assert "erased before, by ops" in again.out
    gone = people.run("erase", "--user", ANN, *HAND)
    assert gone.code == 2
    assert ANN not in gone.err
    assert ANN.encode() not in people.ledger.read_bytes()


def test_copies_that_are_left_are_named(people: Desk) -> None:
    people.spool.mkdir(exist_ok=True)
    (people.spool / "left.seg").write_bytes(ANN.encode())
    done = people.run("erase", "--user", ANN, *HAND)
    assert done.code == 1
    assert "left.seg still holds the id" in done.out


def test_prune_restore_and_rebuild(people: Desk) -> None:
    folder = people.folder / "archive"
    refused = people.run("prune", "--before", "2026-09", "--archive", folder, *HAND)
    assert refused.code == 2
    assert "no month" in refused.err
    close(people, "2026-08")
    before = people.run("report", "--by", "user,day", "--json").json
    done = people.run("prune", "--before", "2026-09", "--archive", folder, *HAND, "--json")
    assert done.code == 0
    assert (done.json["observations"], done.json["compacted"]) == (2, True)
    assert people.run("report", "--by", "user,day", "--json").json == before
    assert (
        "nothing to prune"
        in people.run("prune", "--before", "2026-09", "--archive", folder, *HAND).out
    )
    without = people.run("rebuild")
    assert without.code == 4
    assert "--archive" in without.err
    assert people.run("rebuild", "--archive", folder).code == 0
    assert people.run("report", "--by", "user,day", "--json").json == before
    assert "0 observations brought back" in people.run("prune", "--restore", folder).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prune", "--before", "2026-09", *HAND), "--archive DIR"),
        (("prune", "--before", "2026-09", "--archive", "x"), "--by is empty"),
        (("prune", "--before", "September", "--archive", "x", *HAND), "no period"),
        (("erase", "--pseudonym", "ann", *HAND), "24 hex"),
    ],
)
def test_what_is_missing_is_said(people: Desk, arguments: tuple[str, ...], said: str) -> None:
    ran = people.run(*arguments)
    assert ran.code == 2
    assert said in ran.err
