"""Books to restate: the ledger and the calls are those of the tests of reading."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "read")]
