"""Every golden scenario explained: the headline names who pays how much, in every form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from costspan.cli.explain import print_explanation
from costspan.cli.printing import Page
from costspan.conformance.scenario import ScenarioFile
from costspan.core.read.books import Books
from costspan.core.read.explain import Explained, Explanation
from costspan.core.read.html import render
from costspan.core.read.story import story_of
from costspan.core.settle.ledger import open_url

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {name: ScenarioFile.load(GOLDEN / f"{name}.json") for name in ("ownership", "merge")}
SCENARIOS = [(name, each) for name, file in FILES.items() for each in file.scenarios]
_NAMES = {"@platform": "the platform", "@unattributed": "unattributed"}
_AMOUNT = re.compile(r"([0-9]+\.[0-9]+) USD")


@pytest.fixture(params=SCENARIOS, ids=[each["id"] for _, each in SCENARIOS])
def played(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], Books]]:
    name, scenario = request.param
    with closing(open_url("sqlite:///:memory:", create=True)) as ledger:
        file = FILES[name]
        file.settle_into(ledger, scenario, [file.deliveries(scenario)])
        yield scenario["expected"], Books(ledger, tuple(scenario.get("gateways") or ()))


def _nodes(found: Explanation) -> Iterator[Explained]:
    waiting = list(found.roots)
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.below


def amounts(text: str) -> set[Decimal]:
    """Every amount of USD in a text."""
    return {Decimal(amount) for amount in _AMOUNT.findall(text)}


def test_the_headline_names_owner_and_amount(played: tuple[dict[str, Any], Books]) -> None:
    expected, books = played
    for event_id, wanted in expected["events"].items():
        headline = books.explain(event_id).headline
        for each in wanted["charges"]:
            assert each["owner"] in headline
            assert Decimal(each["charge"]) in amounts(headline)
            assert each["bucket"] in headline
        if wanted["cost"] is None:
            assert headline.startswith("Nobody knows yet what")
        elif not wanted["charges"]:
            assert "pays " not in headline.replace("Nobody pays ", "")
            assert wanted["owners"]
            for each in wanted["owners"]:
                owner = _NAMES.get(each["owner"], each["owner"])
                assert owner in headline.lower() or owner in headline or "without" in headline
        if wanted["cost"] is not None and Decimal(wanted["cost"]):
            assert Decimal(wanted["cost"]) in amounts(headline)


def test_every_page_is_told_in_every_form(played: tuple[dict[str, Any], Books]) -> None:
    expected, books = played
    for event_id, wanted in expected["events"].items():
        found = books.explain(event_id)
        stream = StringIO()
        print_explanation(Page(stream), found)
        text = stream.getvalue()
        assert found.headline in text
        assert "<- asked for" in text or len(list(_nodes(found))) == 1
        for rule in wanted["rules"]:
            # P0 says that there is no price, O8 which part of it is shared: neither is a rule.
            assert rule in ("P0", "O8") or f" {rule}: " in text
        (node,) = [each for each in _nodes(found) if each.id == event_id]
        assert node.cost == wanted["cost"]
        html = render("explain.html", title=event_id, story=story_of(found))
        assert html.count("<h2>") == 1
        assert found.plain()["headline"] == found.headline


def test_what_parts_cost_adds_up_to_what_it_cost(played: tuple[dict[str, Any], Books]) -> None:
    """Quantity x rate of each component, as a page multiplies them: to a pico each."""
    expected, books = played
    for event_id in expected["events"]:
        for node in _nodes(books.explain(event_id)):
            decision = node.decision
            if decision is None or node.price is None or decision.cost_rule != "K4":
                continue
            parts = [Decimal(part.amount or 0) for part in node.price.parts]
            assert abs(sum(parts) - Decimal(node.cost or 0)) <= len(parts) * Decimal("1e-12")
