"""The suite tests itself: every adapter that is wrong on purpose fails, and is told why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from costspan.conformance.broken import BROKEN, Broken
from costspan.conformance.drivers.manual import Manual
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import Driver
from costspan.conformance.suite.run import run
from costspan.conformance.suite.script import Mode, Scenario, shipped

SCENARIOS = {scenario.id: scenario for scenario in shipped()}


def named(test: str) -> tuple[Scenario, Mode]:
    scenario, _, mode = test.partition("-")
    assert mode in ("sync", "async")
    return SCENARIOS[scenario], cast("Mode", mode)


@pytest.fixture(scope="module")
def provider() -> Iterator[LoopbackProvider]:
    with LoopbackProvider() as running:
        yield running


def opened(kind: type[Driver], provider: LoopbackProvider, folder: Path) -> Driver:
    driver = kind()
    driver.open(provider, folder)
    return driver


@pytest.mark.parametrize("broken", BROKEN, ids=lambda kind: kind.name)
def test_a_broken_adapter_is_caught_and_told_its_fault(
    broken: type[Broken], provider: LoopbackProvider, tmp_path: Path
) -> None:
    scenario, mode = named(broken.caught_by)
    said = run(scenario, mode, opened(broken, provider, tmp_path), tmp_path)
    assert said is not None, f"nobody noticed that {broken.fault}"
    assert broken.says in said
    assert f"{scenario.id} " in said
    assert "expected" in said or "never" in said


@pytest.mark.parametrize("test", sorted({broken.caught_by for broken in BROKEN}))
def test_the_adapter_they_are_made_of_is_right(
    test: str, provider: LoopbackProvider, tmp_path: Path
) -> None:
    """Else a broken one could be caught for a mistake of the suite's."""

    class Claiming(Manual):
        can = Manual.can | {"claims_metadata"}

    scenario, mode = named(test)
    assert run(scenario, mode, opened(Claiming, provider, tmp_path), tmp_path) is None


def test_the_broken_ones_are_many_and_each_has_a_name() -> None:
    assert len(BROKEN) >= 12
    assert len({broken.name for broken in BROKEN}) == len(BROKEN)
