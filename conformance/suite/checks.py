"""The suite as a class of tests: subclass it and name your driver.

    from costspan.conformance import AdapterConformance

    class TestMyHost(AdapterConformance):
        driver = MyDriver

Every scenario passes, is skipped for a capability that the driver does not claim, or is a known
failure with a reason, which must go on failing. Nothing may be removed or weakened.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import pytest

from costspan.conformance.ledgers.factory import LedgerFactory
from costspan.conformance.ledgers.opened import opened
from costspan.conformance.provider import LoopbackProvider
from costspan.conformance.suite.driver import CAPABILITIES, Driver, missing
from costspan.conformance.suite.elsewhere import OtherBooks
from costspan.conformance.suite.needs import needed
from costspan.conformance.suite.run import LostConnection, run
from costspan.conformance.suite.script import Mode, Scenario, scenario_files, shipped

REASON_CHARS_MIN = 20
"""A known failure is not excused by a word."""

_FIXTURES = ("host", "elsewhere", "pytest_generate_tests")


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
    ledgers: ClassVar[tuple[type[LedgerFactory], ...]] = ()
    """What makes other ledgers than SQLite's: what was recorded is settled in those too."""

    def __init_subclass__(cls) -> None:
        """Raise TypeError where a test, or what makes the tests, is replaced."""
        for name, ours in vars(AdapterConformance).items():
            is_of_the_suite = name.startswith("test_") or name in _FIXTURES
            if is_of_the_suite and inspect.getattr_static(cls, name) is not ours:
                raise TypeError(f"{cls.__name__}: {name} is overridden; only a driver may be set")
        driver: object = getattr(cls, "driver", None)
        if driver is not None and not (isinstance(driver, type) and issubclass(driver, Driver)):
            raise TypeError(f"{cls.__name__}: driver is a subclass of Driver, not {driver!r}")

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
    @classmethod
    def host(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
        """The driver, open, with a loopback provider of its own."""
        driver = cls.driver()
        with LoopbackProvider() as provider:
            driver.open(provider, tmp_path_factory.mktemp("host"))
            try:
                yield driver
            finally:
                driver.close()

    @pytest.fixture(scope="class")
    @classmethod
    def elsewhere(
        cls, pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
    ) -> list[LedgerFactory]:
        """What makes the other ledgers, open."""
        return [opened(kind, pytestconfig, tmp_path_factory) for kind in cls.ledgers]

    @pytest.mark.filterwarnings(
        "ignore",  # the host's libraries warn about themselves
        "always::costspan.conformance.suite.checks.ReplayedWarning",
    )
    def test_scenario(
        self,
        scenario: Scenario,
        mode: Mode,
        host: Driver,
        elsewhere: list[LedgerFactory],
        tmp_path: Path,
    ) -> None:
        """The books are what the scenario, the provider's truth and its invoice say.

        And they are the same books in every ledger: no known failure of a host excuses that.
        """
        other: OtherBooks | None = None
        try:
            wrong = _played(scenario, mode, host, tmp_path, elsewhere)
        except OtherBooks as error:
            wrong, other = None, error
        if other is not None:
            pytest.fail(f"{scenario.id} on {host.name} ({mode}): {other}", pytrace=False)
        reason = _excuse(host, scenario, mode)
        if reason and wrong:
            pytest.xfail(reason)
        if reason:
            pytest.fail(
                f"{scenario.id} on {host.name} ({mode}): the books are right, though known_failures"
                f" says: {reason}\n  Take it off the list.",
                pytrace=False,
            )
        if wrong:
            pytest.fail(wrong, pytrace=False)

    def test_the_suite_is_whole(self) -> None:
        """No scenario was removed or weakened, no excuse left empty, no claim misspelt."""
        if wrong := [*_changed_files(), *_faults(self.driver)]:
            pytest.fail("\n".join(wrong), pytrace=False)


class ReplayedWarning(UserWarning):
    """A cell was played twice, since its host lost a connection to the loopback provider."""


def _played(
    scenario: Scenario, mode: Mode, host: Driver, folder: Path, elsewhere: list[LedgerFactory]
) -> str | None:
    """What is wrong with a play; a host that loses a connection gets one more, in sight.

    A pool of connections may hand one out that it is about to close (seen once in 5,000 cells).
    """
    try:
        return run(scenario, mode, host, folder, elsewhere)
    except LostConnection as first:
        warnings.warn(f"played again, for a lost connection: {first.lost}", ReplayedWarning, 2)
    (again := folder / "again").mkdir()
    try:
        return run(scenario, mode, host, again, elsewhere)
    except LostConnection as second:
        return second.wrong


def _changed_files() -> list[str]:
    shipped_as, here = manifest()["scenarios"], checksums()
    names = sorted(shipped_as.keys() | here.keys())
    changed = [name for name in names if shipped_as.get(name) != here.get(name)]
    return [
        f"the scenario files are not as they shipped: {name}; install costspan again"
        for name in changed
    ]


def _faults(driver: type[Driver]) -> list[str]:
    """What is wrong with what a driver says of itself."""
    faults: list[str] = []
    if not driver.name:
        faults.append(f"{driver.__name__}: a driver needs a name")
    for name in sorted({*driver.can, *driver.only_async} - CAPABILITIES.keys()):
        near = get_close_matches(name, CAPABILITIES, 1)
        hint = f"; is it {near[0]!r}?" if near else "; see CAPABILITIES"
        faults.append(f"{driver.name} claims {name!r}, a capability that nobody knows{hint}")
    if not {"sync", "async"} & {*driver.can}:
        faults.append(f"{driver.name} claims neither 'sync' nor 'async': nothing can be played")
    tests = {name for each in shipped() for name in (each.id, *_ids(each))}
    for name, reason in driver.known_failures.items():
        if name not in tests:
            faults.append(f"known_failures: {name} is no scenario")
        if len(reason) <= REASON_CHARS_MIN:
            faults.append(
                f"known_failures: {name} is excused without a reason"
                f" (say why in more than {REASON_CHARS_MIN} characters)"
            )
    return faults


def _ids(scenario: Scenario) -> list[str]:
    return [f"{scenario.id}-{mode}" for mode in scenario.modes]


def _excuse(driver: Driver, scenario: Scenario, mode: Mode) -> str | None:
    """Why a test is known to fail, if it is."""
    failures = driver.known_failures
    return failures.get(scenario.id) or failures.get(f"{scenario.id}-{mode}")


def _marks(driver: Driver, scenario: Scenario, mode: Mode) -> list[pytest.MarkDecorator]:
    lacks = missing(driver, needed(scenario, mode))
    why = f"{driver.name} does not claim {'; '.join(lacks)}"
    return [pytest.mark.skip(reason=why)] if lacks else []
