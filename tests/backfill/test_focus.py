"""FOCUS rows: usage of a model is an event, a bill is an invoice, no call is counted twice."""

from __future__ import annotations

import json

from desk import Desk
from exports import call, causes, causes_of, ingest, ndjson, owners
from focus_rows import charge, read


def test_usage_of_models_is_priced_anew(desk: Desk) -> None:
    rows = [
        charge(),
        charge("output", "1000", BilledCost="0.0006", Tags='{"tenant": "globex"}'),
        charge("cache_read", "10", BilledCost="0.5"),
    ]
    ran = read(desk, rows, "--json")
    assert (ran.code, causes(ran)) == (0, {"same": 2, "price": 1})
    assert owners(desk) == {"acme": ("0.150000750000", 2), "globex": ("0.000600000000", 1)}
    again = read(desk, rows, "--json").json
    assert (again["duplicates"], again["new"]) == (3, 0)


def test_rows_of_the_same_dimensions_are_one_in_any_order(desk: Desk) -> None:
    rows = [
        charge(InvoiceId="1"),
        charge(quantity="2000000.0", BilledCost="0.30", InvoiceId="2"),
        charge("output", "1000", BilledCost="0.0006"),
    ]
    first = read(desk, rows, "--json").json
    assert (first["rows"], first["new"], causes_of(first)) == (3, 2, {"same": 2})
    before = owners(desk)
    assert before == {"acme": ("0.450600000000", 2)}
    again = read(desk, rows[::-1], "--json").json
    assert (again["new"], again["conflicts"], again["duplicates"]) == (0, 0, 2)
    assert owners(desk) == before


def test_the_same_rows_written_otherwise_are_the_same(desk: Desk) -> None:
    tags = {"tenant": "globex", "env": "prod"}
    row = charge(Tags=json.dumps(tags))
    read(desk, [row])
    before = owners(desk)
    others = [
        {**row, "Tags": json.dumps(dict(reversed(tags.items())), indent=2)},
        {**row, "ChargePeriodStart": "2026-10-05 12:00:00", "ChargePeriodEnd": "2026-10-05 13:00"},
        {**row, "x_New": "a column more", "InvoiceId": "made since"},
    ]
    for other in others:
        again = read(desk, [other], "--json").json
        assert (again["new"], again["conflicts"], again["duplicates"]) == (0, 0, 1), other
    path = ndjson(desk.folder / "focus.ndjson", [{**row, "Tags": tags}])
    assert desk.run("ingest", "focus", path, "--json").json["duplicates"] == 1
    assert owners(desk) == before


def test_a_day_that_grew_conflicts_in_sight(desk: Desk) -> None:
    read(desk, [charge()])
    before = owners(desk)["acme"][1]
    grown = read(desk, [charge(quantity="2000000.0")], "--json").json
    assert grown["conflicts"] == 1
    assert owners(desk)["acme"][1] == before


def test_what_is_a_bill_is_said_to_be_one(desk: Desk) -> None:
    rows = [
        charge(ChargeCategory="Tax"),
        charge(ChargeClass="Correction", quantity="-5"),
        charge(SkuPriceDetails="{}"),
        charge(BillingCurrency="EUR"),
        charge(quantity="-5"),
    ]
    ran = read(desk, rows, "--json")
    assert ran.code == 1
    assert len(ran.json["left_out"]) == 3
    assert all("costspan invoices import" in reason for reason in ran.json["left_out"])
    assert ran.json["rejected"] == [
        {"where": "line 5", "reason": "BillingCurrency EUR: the books are in USD"}
    ]
    assert ran.json["flags"]["invalid_usage"] == 1


def test_a_month_whose_calls_are_known_is_refused(desk: Desk) -> None:
    ingest(desk, [call()])
    before = owners(desk)
    ran = read(desk, [charge()])
    assert ran.code == 2
    assert "2026-10" in ran.err
    assert owners(desk) == before
    other = {"ChargePeriodStart": "2026-09-05T12:00:00Z", "ChargePeriodEnd": "2026-09-05T13:00:00Z"}
    assert read(desk, [charge(**other)]).code == 0
