"""Hand-checked books, golden ones and ours: the same in any order, batching and number of copies.

`scenarios.json` beside this file has the rules that the golden files do not reach; its `arith` is
the calculation by hand, in micro-USD. `costspan replay` plays it too.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from costspan.conformance.scenario import ScenarioFile, differences

HERE = Path(__file__).parent
FILES = [*sorted((HERE.parent / "golden").glob("*.json")), HERE / "scenarios.json"]
SCENARIOS = [
    pytest.param(scenario_file, scenario, id=f"{path.stem}-{scenario['id']}")
    for path in FILES
    for scenario_file in [ScenarioFile.load(path)]
    for scenario in scenario_file.scenarios
]


@pytest.mark.parametrize(("scenario_file", "scenario"), SCENARIOS)
def test_the_books_are_those_worked_out_by_hand(
    scenario_file: ScenarioFile, scenario: dict[str, Any]
) -> None:
    deliveries = scenario_file.deliveries(scenario)
    shuffled = random.Random(scenario["id"])
    twice = [*deliveries, *deliveries]
    arrivals = [
        [deliveries],
        [[each] for each in deliveries],
        [[each] for each in reversed(deliveries)],
        [[], [*deliveries, *deliveries], deliveries],
    ]
    for _ in range(3):
        shuffled.shuffle(twice)
        cut = shuffled.randrange(len(twice))
        arrivals += [[twice[:cut], twice[cut:]], [[each] for each in twice]]
    for batches in arrivals:
        found = scenario_file.books_of(scenario, [list(batch) for batch in batches])
        assert differences(found, scenario["expected"]) == []


def test_every_rule_is_reached_by_some_scenario() -> None:
    reached = {
        rule
        for path in FILES
        for scenario in ScenarioFile.load(path).scenarios
        for event in scenario["expected"]["events"].values()
        for rule in event["rules"]
    }
    assert reached >= {f"O{n}" for n in range(1, 9)} | {f"C{n}" for n in range(1, 7)} | {"P0"}
