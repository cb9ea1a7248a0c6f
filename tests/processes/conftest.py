"""How much of each loop to play: a short budget by default, the issue's by options.

pytest tests/processes --kills 200 --full
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode puts no folder there

from books_check import costspan_said

KILLS_A_CELL = 15


def pytest_addoption(parser: pytest.Parser) -> None:
    # Known only where this folder is named on the command line: the readers have defaults.
    parser.addoption("--kills", type=int, default=KILLS_A_CELL, help="SIGKILLs a cell")
    parser.addoption("--full", action="store_true", help="the whole budgets, for minutes")


@pytest.fixture
def kills(request: pytest.FixtureRequest) -> int:
    """How many processes to kill in each cell."""
    return int(request.config.getoption("--kills", KILLS_A_CELL))


@pytest.fixture
def is_full(request: pytest.FixtureRequest) -> bool:
    """Whether to play the whole budgets."""
    return bool(request.config.getoption("--full", False))


@pytest.fixture(scope="session")
def _empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    costspan_said(folder, "drain")
    return folder / "ledger.db"


@pytest.fixture
def folder(tmp_path: Path, _empty_ledger: Path) -> Path:
    """A folder with books that have their schema and price lists, which take a second to make."""
    shutil.copy(_empty_ledger, tmp_path / "ledger.db")
    return tmp_path
