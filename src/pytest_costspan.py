"""Lets `pytest --pyargs costspan.conformance --adapter …` know its option.

A pytest plugin of its own, outside the package, so that other people's test runs do not import
costspan: where the suite is not named on the command line, nothing happens here.
"""

from typing import Any


def pytest_load_initial_conftests(early_config: Any, args: list[str]) -> None:
    """Load the suite's plugin where the suite is asked for."""
    if any(argument.startswith("costspan.conformance") for argument in args):
        early_config.pluginmanager.import_plugin("costspan.conformance.plugin")
