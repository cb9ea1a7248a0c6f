"""`costspan explain`: found by any id, told as a tree, with everything that decided it."""

from __future__ import annotations

from typing import Any

import pytest
from desk import Desk


def _event(desk: Desk, **wanted: str) -> dict[str, Any]:
    """The node of the event whose facts are these."""
    nodes = list(desk.run("explain", "req-1", "--json").json["roots"])
    for node in nodes:
        nodes += node["below"]
    return next(n for n in nodes if wanted.items() <= n["event"]["facts"].items())


@pytest.mark.parametrize("name", ["req-1", "s-acme", "resp-acme"])
def test_found_by_request_session_and_response(shop: Desk, name: str) -> None:
    ran = shop.run("explain", name)
    assert ran.code == 0
    assert "cost 0.0035 USD = charge 0.0035 USD + absorbed 0.00 USD" in ran.out
    assert str(shop.ledger) in ran.out


def test_found_by_attempt_id(shop: Desk) -> None:
    event = _event(shop, kind="tool")
    ran = shop.run("explain", event["id"])
    assert '  tool  "search"  ok  cost 0.01 USD  acme agent pays 0.01 USD  <- asked for' in ran.out


def test_what_ran_inside_a_tool_is_below_it(shop: Desk) -> None:
    tool = _event(shop, kind="tool")
    (inner,) = tool["below"]
    assert inner["cost"] == "0.001000000000"
    assert inner["decision"]["cause"] == "step"
    assert "\n  [3]  model  gpt-4o  ok" in shop.run("explain", "req-1").out


def test_a_page_says_what_decided(shop: Desk) -> None:
    out = shop.run("explain", "resp-acme").out
    facts = [" ".join(line.split()) for line in out.splitlines()]
    assert facts[2] == (
        "acme pays 0.0035 USD (direct) for a model call to gpt-4o of 2026-11-05 12:00:00Z."
        " Why: the call names its tenant."
    )
    assert "started 2026-11-05 12:00:00Z, took 250 ms" in facts
    assert "tokens input 1,000, output 100 (provider, from gateway shop END)" in facts
    assert "input 1,000 x 2.50 USD per 1M = 0.0025 USD" in facts
    assert "why owner O4: the call names its tenant" in facts
    assert "label team = blue" in facts
    for start in (
        "price gpt-4o in book contract, valid at any date",
        "seen by gateway shop START",
        "seen by gateway shop END",
        "posted acme direct: cost 0.0035, charge 0.0035 USD, in 2026-11 (open month)",
        "not O1 has_members is no, not yes",
    ):
        assert any(fact.startswith(start) for fact in facts), start
    assert "\x1b" not in out
    assert out.isascii()


def test_brief_is_headline_and_tree(shop: Desk) -> None:
    whole = shop.run("explain", "req-1").out.splitlines()
    brief = shop.run("explain", "req-1", "--brief").out.splitlines()
    assert whole[: len(brief)] == brief
    assert brief[2].startswith("acme pays 0.0145 USD")
    assert len(brief) == 7


def test_every_table_of_rules(shop: Desk) -> None:
    assert "why premium" not in shop.run("explain", "resp-acme").out
    out = shop.run("explain", "resp-acme", "--rules").out
    assert "why premium" in out
    assert "why quantity" in out


def test_one_html_page_to_attach(shop: Desk) -> None:
    path = shop.folder / "ticket.html"
    ran = shop.run("explain", "resp-acme", "--html", path)
    assert (ran.code, ran.out) == (0, "")
    page = path.read_text("utf-8")
    assert "acme pays 0.0035 USD (direct)" in page
    assert page == shop.run("explain", "resp-acme", "--html", "-").out
    assert "<script" not in page
    assert shop.run("explain", "resp-acme", "--html", shop.folder / "no" / "x.html").code == 2
    assert shop.run("explain", "resp-acme", "--html", "-", "--json").code == 2


def test_what_if_other_prices_or_rules_and_nothing_is_written(shop: Desk) -> None:
    before = shop.ledger.read_bytes()
    book = shop.folder / "other.toml"
    book.write_text('[[price]]\nmodel = "gpt-4o"\ninput = "1.00"\noutput = "10.00"\n', "utf-8")
    ran = shop.run("explain", "req-1", "--what-if-book", book)
    assert ran.code == 0
    assert "2 of 3 events would be decided differently" in ran.out
    assert "the cost 0.0145 -> 0.0127 USD" in ran.out
    found = shop.run("explain", "req-1", "--what-if-book", book, "--json").json
    assert found["charge"] == ["0.014500000000", "0.012700000000"]
    assert found["owners"] == {"acme": ["0.014500000000", "0.012700000000"]}
    assert {name for each in found["changed"] for name in each["differs"]} == {
        "cost", "charge", "price_row",
    }  # fmt: skip
    rules = shop.folder / "rules.toml"
    rules.write_text(
        '[[owner]]\nid = "mine"\nthen = "platform"\nbecause = "we pay for steps"\n'
        'when = { cause = "step" }\n',
        "utf-8",
    )
    found = shop.run("explain", "req-1", "--what-if", rules, "--json").json
    (changed,) = found["changed"]
    assert changed["stands"]["owners"] == ["acme"]
    assert changed["would_be"]["owners"] == ["@platform"]
    assert "mine" in changed["would_be"]["rules"]
    assert "nothing would be different" in shop.run("explain", "req-1", "--what-if", "billing").out
    for bad in (("--what-if", "nobody.toml"), ("--what-if-book", "nobody.toml")):
        assert shop.run("explain", "req-1", *bad).code == 2
    assert shop.run("explain", "nobody", "--what-if", "billing").code == 3
    assert shop.ledger.read_bytes() == before


def test_json_has_amounts_as_decimal_strings(shop: Desk) -> None:
    ran = shop.run("explain", "resp-globex", "--json")
    (node,) = ran.json["roots"]
    assert node["cost"] == node["decision"]["cost"] == "0.007000000000"
    assert node["decision"]["shares"] == [
        {
            "owner": "globex",
            "bucket": "direct",
            "pool": None,
            "cost": "0.007000000000",
            "charge": "0.007000000000",
        }
    ]
    assert str(shop.ledger) in ran.err


def test_disagreement_and_substitution_are_told(empty: Desk) -> None:
    call = {"attempt_id": "a1", "operation_ids": ["litellm:c1"]}
    empty.ingest(
        [
            {
                **call,
                "layer": "gateway",
                "tenant": "acme",
                "requested_model": "gpt-4o",
                "executed_model": "gpt-4o-mini",
                "usage": {"input": 1000, "output": 100},
                "provider_result": "ok",
            },
            {
                "operation_ids": ["litellm:c1"],
                "layer": "framework",
                "usage": {"input": 990, "output": 100},
                "usage_source": "estimated",
            },
        ]
    )
    out = empty.run("explain", "litellm:c1").out
    assert "model  gpt-4o -> gpt-4o-mini  ok" in out
    assert 'framework END says {"input":990,"output":100}' in out
    assert "evidence on this call; believed about" in out
    assert "charged above cost" in out
    assert "C5: another model answered" in out


def test_open_unknown_and_refused_events_say_so(empty: Desk) -> None:
    signed = {"attempt_id": "a2", "tenant_source": "signed", "provider_result": "ok"}
    empty.ingest(
        [
            {"attempt_id": "a1", "phase": "start", "requested_model": "gpt-4o"},
            {**signed, "oid": "x1", "tenant": "acme", "layer": "gateway"},
            {**signed, "oid": "x2", "tenant": "globex", "layer": "sdk"},
        ]
    )
    assert "it has started and not ended" in empty.run("explain", "a1").out
    out = empty.run("explain", "a2").out
    assert "identity_conflict of x" in out
    assert "no usage was reported" in out
    (node,) = empty.run("explain", "a2", "--json").json["roots"]
    assert node["cost"] is None
    assert node["problems"]


RUN = "0199c0de-7b1e-7000-8000-0123456789ab"


def test_found_by_the_callers_request_and_by_a_bare_run(empty: Desk) -> None:
    usage = {"executed_model": "gpt-4o", "usage": {"input": 1000}, "provider_result": "ok"}
    empty.ingest(
        [
            {"attempt_id": "a1", "client_request_id": "caller-1", "tenant": "acme", **usage},
            {"operation_ids": [f"langchain:{RUN}"], "name": "caller-1 is quoted", **usage},
            {"attempt_id": "a3", "operation_ids": ["litellm:call-0003"], **usage},
        ]
    )
    for name, event in (("caller-1", "a1"), (RUN, f"langchain:{RUN}"), ("call-0003", "a3")):
        assert empty.run("explain", name, "--json").json["matched"] == [event]
    assert empty.run("explain", "0003").code == 3  # the end of an id is no id
    assert "<- asked for" not in empty.run("explain", "caller-1").out


def test_witnesses_in_the_order_they_were_recorded(empty: Desk) -> None:
    call = {"attempt_id": "a1", "writer": "w"}
    empty.ingest([{**call, "seq": n, "phase": "start", "recorded_at": 5} for n in (10, 9, 2)])
    (node,) = empty.run("explain", "a1", "--json").json["roots"]
    assert [seen["oid"] for seen in node["witnesses"]] == ["w:2", "w:9", "w:10"]


def test_a_flat_cost_is_no_price_of_a_model_and_no_money_has_no_price(empty: Desk) -> None:
    account = "0123456789abcdef" * 4
    empty.ingest(
        [
            {"attempt_id": "a1", "kind": "tool", "flat_cost": "0.01", "tenant": "acme",
             "provider_account": account, "provider_result": "ok"},
            {"attempt_id": "a2", "kind": "tool", "tenant": "acme", "provider_result": "ok"},
        ]
    )  # fmt: skip
    flat = empty.run("explain", "a1").out
    assert "charged its flat cost" in flat
    assert "model that answered" not in flat
    assert "account 0123456789ab..." in flat
    assert account not in flat
    free = empty.run("explain", "a2").out
    assert "no money" in free
    assert "why price" not in free
    assert "why charge" not in free


def test_nothing_has_that_name(shop: Desk) -> None:
    ran = shop.run("explain", "nobody")
    assert ran.code == 3
    assert "'nobody' names no event" in ran.err
    assert ran.out == ""
