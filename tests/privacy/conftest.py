"""The books of these tests are those of the readers' and the settlement's tests."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "read"), str(HERE.parent / "settle")]
