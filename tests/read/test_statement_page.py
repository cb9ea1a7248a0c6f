"""The page of a statement: what decided, what is not known, names, lines and markup."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
from shelf import PRICES, at, call, close_month, free, keep, shelf, statement, usd

from costspan.cli.statement import html_of
from costspan.core.decide import load_profile
from costspan.core.journal.records import Policy, Restatement
from costspan.core.money import parse_usd
from costspan.core.read.corrected import without
from costspan.core.read.directory import Directory, Entry
from costspan.core.read.statement_page import lines_of, page_of
from costspan.core.settle import settle


def test_a_page_says_what_decided_and_what_is_not_known(tmp_path: Path) -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, flat_cost=None))
        page = page_of(ledger, "acme", "2026-11")
        profile = load_profile("billing")
        assert [(each.profile, each.rules_sha256) for each in page.decided] == [
            ("billing", profile.sha256)
        ]
        texts = [text for _, text in page.notes]
        assert texts[0].startswith("1 call of this month is of UNKNOWN COST")
        assert texts[1].startswith("PRELIMINARY: 2026-11 is not closed")
        close_month(ledger, "2026-11")
        assert page_of(ledger, "acme", "2026-11").is_closed
        other = load_profile("chargeback")
        with ledger.settling(1) as settlement:
            settlement.keep_rule_set(other)
            later = Policy(other.sha256, (PRICES.sha256,), at("2026-12-10"), "ann")
            settle(settlement, [], [later])
        assert [each.profile for each in page_of(ledger, "acme", "2026-11").decided] == ["billing"]
        assert [each.profile for each in page_of(ledger, "acme", "2026-12").decided] == [
            "billing",
            "chargeback",
        ]
        assert [each.profile for each in page_of(ledger, "acme", "2027-01").decided] == [
            "chargeback"
        ]
        with ledger.settling(1) as settlement:
            again = Restatement(None, "2026-11", other.sha256, None, "bob", "for globex", 5)
            settle(settlement, [], [again])
        restated = page_of(ledger, "acme", "2026-11")
        assert restated.restated is not None
        assert restated.restated.profile == "chargeback"
        assert "globex" not in json.dumps(restated.plain())


DIRECTORY = Directory(
    [
        Entry(tenant="group", name="The Group"),
        Entry(tenant="acme", name="Acme Ltd", parent="group", cost_centre="CC-1", currency="EUR"),
        Entry(tenant="globex", parent="group", until="2026-11-20"),
    ]
)


def test_the_directory_is_joined_when_it_is_read() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, tenant="globex"), call(3, tenant="group", flat_cost="4"))
        before = [posting for _, posting in ledger.postings_after(0, 100)]
        page = page_of(ledger, "acme", "2026-11", DIRECTORY)
        group = page_of(ledger, "group", "2026-11", DIRECTORY, with_children=True)
        october = page_of(ledger, "group", "2026-10", DIRECTORY, with_children=True)
        assert [posting for _, posting in ledger.postings_after(0, 100)] == before
    assert (page.name, page.entry and page.entry.cost_centre) == ("Acme Ltd", "CC-1")
    assert any("EUR is the tenant's own currency" in text for _, text in page.notes)
    # globex is nobody's child any more on the month's last day.
    assert [each.statement.tenant for each in group.children] == ["acme"]
    assert group.with_children == usd(5, 2)
    assert group.statement.total == usd(4, 1)
    assert [each.statement.tenant for each in october.children] == ["acme", "globex"]
    with closing(shelf()) as ledger:
        notes = [text for _, text in page_of(ledger, "globex", "2026-11", DIRECTORY).notes]
    assert "until 2026-11-20 the directory said: parent group" in notes


def test_lines_for_a_spreadsheet_add_up() -> None:
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, cause="step", initiator="agent"))
        free(ledger, "credit", ("acme", 0, -3))
        free(ledger, "allocation", ("acme", 2, 2), ("@platform", -2, 0))
        lines = lines_of(page_of(ledger, "acme", "2026-11", DIRECTORY))
    assert [line["line"] for line in lines] == [
        "direct",
        "agent",
        "allocated",
        "adjustment",
        "total",
    ]
    for amounts in ("cost", "charge"):
        parts = [parse_usd(line[amounts]) for line in lines]
        assert sum(parts[:-1]) == parts[-1]
    assert {line["cost_centre"] for line in lines} == {"CC-1"}
    assert (lines[3]["by"], lines[3]["detail"]) == ("ann", "credit")


def test_nothing_of_another_tenant_in_any_form() -> None:
    """Records that are about several tenants, and say so in words, tell each of itself alone."""
    with closing(shelf()) as ledger:
        keep(ledger, call(1), call(2, tenant="globex", executed_model="secret-model"))
        free(
            ledger, "invoice_adjust", ("acme", 1, 1), ("globex", 7, 7),
            reason="globex took from acme", about={"method": "by globex", "note": "globex"},
        )  # fmt: skip
        close_month(ledger, "2026-11")
        free(ledger, "allocation", ("acme", 2, 0), ("globex", 6, 0), ("@platform", -8, 0))
        for period in ("2026-11", "2026-12"):
            page = page_of(
                ledger, "acme", period, Directory([Entry(tenant="acme"), Entry(tenant="globex")])
            )
            for text in (json.dumps(page.plain()), html_of(page), json.dumps(lines_of(page))):
                assert "globex" not in text
                assert "secret" not in text
        (only,) = statement(ledger).corrections
        assert (only.reason, only.amounts) == ("another tenant took from acme", usd(1, 0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("globex owes", "another tenant owes"),
        ("globex2 and aglobex", "globex2 and aglobex"),
        ("for globex-eu, globex", "for another tenant, another tenant"),
        ("nobody", "nobody"),
    ],
)
def test_other_names_are_left_out_whole(text: str, said: str) -> None:
    assert without(text, {"globex", "globex-eu"}) == said


def test_a_page_is_markup_that_nobody_can_write_into() -> None:
    hostile = "<script>alert(1)</script>"
    with closing(shelf()) as ledger:
        keep(ledger, call(1, tenant=hostile, executed_model=hostile))
        free(ledger, "credit", (hostile, 0, -1), reason=hostile)
        directory = Directory([Entry(tenant=hostile, name=hostile, cost_centre=hostile)])
        html = html_of(page_of(ledger, hostile, "2026-11", directory))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5
    assert "0.00 USD" in html
    assert "http" not in html.replace("http-equiv", "")
