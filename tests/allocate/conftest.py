"""Ledgers are filled by the shelf of the readers' tests."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "read"), str(HERE.parent / "settle")]
