"""The scenario files are what their schema, their manifest and the design say they are."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import jsonschema  # type: ignore[import-untyped]  # no stubs among what the checks install
import pytest

from costspan.conformance.suite.checks import checksums, manifest
from costspan.conformance.suite.driver import CAPABILITIES
from costspan.conformance.suite.judge import expected_ledger
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.script import Scenario, json_schema, scenario_files, shipped

SCHEMA = files("costspan.conformance").joinpath("scenarios", "schema.json").read_text("utf-8")


def test_the_published_schema_is_the_one_the_suite_reads_by() -> None:
    assert json_schema() == SCHEMA, "write scenarios/schema.json anew from json_schema()"


@pytest.mark.parametrize(
    ("name", "raw"), sorted(scenario_files()), ids=lambda value: str(value)[:24]
)
def test_every_file_is_valid_by_the_published_schema(name: str, raw: bytes) -> None:
    jsonschema.validate(json.loads(raw), json.loads(SCHEMA))


def test_the_manifest_is_of_these_files_and_dated() -> None:
    assert manifest()["scenarios"] == checksums()
    assert re.fullmatch(r"20\d\d\.\d{1,2}\.\d+", manifest()["version"])


def test_there_are_fifty_scenarios_and_more_each_named_once() -> None:
    names = [scenario.id for scenario in shipped()]
    assert len(names) == len(set(names))
    assert len(names) >= 50


@pytest.mark.parametrize("scenario", shipped(), ids=lambda scenario: scenario.id)
def test_a_scenario_says_what_it_proves_and_how_it_was_worked_out(scenario: Scenario) -> None:
    assert scenario.proves
    assert scenario.arith
    assert scenario.likely
    for mode in scenario.modes:
        assert needed(scenario, mode) <= CAPABILITIES.keys()
    assert all(cost >= 0 for cost, _ in expected_ledger(scenario).values())
