"""The simulator, the oracle and the strategies are modules beside the tests that use them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "settle")]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--examples", type=int, default=None, help="how many runs the simulator makes in all"
    )
    parser.addoption("--simulation", type=int, default=0, help="which runs: each number has others")


@pytest.fixture
def option(request: pytest.FixtureRequest) -> Callable[[str], int | None]:
    """What was asked for, if anything: the options are known only where this folder is named."""

    def ask(name: str) -> int | None:
        given: int | None = request.config.getoption(name, None)
        return given

    return ask
