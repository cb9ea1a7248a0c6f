"""What the tests of the carrier share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from signing import Refusals


@pytest.fixture
def refusals() -> Refusals:
    return Refusals()
