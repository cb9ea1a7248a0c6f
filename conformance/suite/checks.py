"""The suite as a class of tests: subclass it and name your driver.

    from costspan.conformance import AdapterConformance

    class TestMyHost(AdapterConformance):
        driver = MyDriver

Every scenario passes, is skipped for a capability that the driver does not claim, or is a known
failure with a reason, which must go on failing. Nothing may be removed or weakened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest

from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import CAPABILITIES, Driver, missing
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.run import run
from costspan.conformance.suite.script import Mode, Scenario, scenario_files, shipped


def manifest() -> dict[str, Any]:
    """The suite's version (calendar) and the SHA-256 of each of its scenario files."""
    text = files("costspan.conformance").joinpath("manifest.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def checksums() -> dict[str, str]:
    """The SHA-256 of each scenario file as it is here."""
    return {name: hashlib.sha256(raw).hexdigest() for name, raw in sorted(scenario_files())}


class AdapterConformance:
    """All scenarios on one driver."""

    driver: ClassVar[type[Driver]]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test a scenario and mode, marked with why it is skipped or known to fail."""
        if "scenario" not in metafunc.fixturenames:
            return
        driver = self.driver()
        metafunc.parametrize(
            ("scenario", "mode"),
            [
                pytest.param(
                    scenario, mode, id=f"{scenario.id}-{mode}", marks=_marks(driver, scenario, mode)
                )
                for scenario in shipped()
                for mode in scenario.modes
            ],
        )

    @pytest.fixture(scope="class")
    def host(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
        """The driver, open, with a loopback provider of its own."""
        driver = self.driver()
        with LoopbackProvider() as provider:
            driver.open(provider, tmp_path_factory.mktemp(driver.name))
            try:
                yield driver
            finally:
                driver.close()

    @pytest.mark.filterwarnings("ignore")  # the host's libraries warn about themselves
    def test_scenario(self, scenario: Scenario, mode: Mode, host: Driver, tmp_path: Path) -> None:
        """The books are what the scenario, the provider's truth and its invoice say."""
        wrong = run(scenario, mode, host, tmp_path)
        if wrong is not None:
            pytest.fail(wrong, pytrace=False)

    def test_the_suite_is_whole(self) -> None:
        """No scenario was removed or weakened, no test overridden, no excuse left empty."""
        assert checksums() == manifest()["scenarios"], "the scenario files are not as they shipped"
        for name, test in vars(AdapterConformance).items():
            if name.startswith("test_"):
                assert getattr(type(self), name) is test, f"{name} is overridden"
        driver = self.driver
        assert driver.name, "a driver needs a name"
        assert not driver.can - CAPABILITIES.keys(), "capabilities that nobody knows"
        assert driver.can & {"sync", "async"}, "a driver calls in threads, on a loop, or both"
        known = {scenario.id for scenario in shipped()}
        for name, reason in driver.known_failures.items():
            assert name.partition("-")[0] in known, f"{name} is no scenario"
            assert len(reason) > 20, f"{name} is excused without a reason"


def _marks(driver: Driver, scenario: Scenario, mode: Mode) -> list[pytest.MarkDecorator]:
    if lacks := missing(driver, needed(scenario, mode)):
        return [pytest.mark.skip(reason=f"{driver.name} does not claim {'; '.join(lacks)}")]
    failures = driver.known_failures
    reason = failures.get(scenario.id) or failures.get(f"{scenario.id}-{mode}")
    return [pytest.mark.xfail(strict=True, reason=reason)] if reason else []
